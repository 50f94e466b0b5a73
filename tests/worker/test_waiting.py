"""Runs whose hosted agents find no agent-host: they wait, are counted, and hold up nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pokerarena import metrics
from pokerarena.service_identity.keys import ServiceName
from pokerarena.service_identity.rotation import publish
from pokerarena.worker.stage import End, Stage
from tests.arena import open_arena


async def test_a_run_waits_for_a_host_a_further_one_in_the_queue_and_a_drain_ends_it(
    database_url: str, tmp_path: Path
) -> None:
    private, public = tmp_path / "worker.pem", tmp_path / "service-keys.json"
    publish(ServiceName.WORKER, private, public)
    changes = {
        "agent_hosts": (f"one={tmp_path}/nobody.sock",),
        "service_key": private.read_text(),
        "service_public_keys": public.read_text(),
        "agent_host_waiting_max": 1,
    }
    async with open_arena(database_url, **changes) as arena:
        run_ids = [await arena.order(["hosted", "caller"], 10) for _ in range(2)]
        stage = Stage(arena.settings, name="test")
        serving = asyncio.create_task(stage.serve())
        try:
            claims = [await stage.claim(run_id) for run_id in run_ids]
            assert claims[0] is not None
            assert claims[1] is not None
            first = asyncio.create_task(stage.play(claims[0]))
            async with asyncio.timeout(30):
                while metrics.RUNS_WITHOUT_ROOM.number().value < 1:
                    await asyncio.sleep(0.01)
                assert await stage.play(claims[1]) is End.HANDED_BACK
            assert not first.done()
            later = await arena.value(
                "SELECT j.status::text || ' ' || (j.scheduled_at > now() + interval '2 seconds')"
                " FROM runs r JOIN procrastinate_jobs j ON j.id = r.job_id WHERE r.id = :id",
                id=run_ids[1],
            )
            assert later == "todo true"
            stage.drain()
            async with asyncio.timeout(30):
                assert await first is End.HANDED_BACK
            assert metrics.RUNS_WITHOUT_ROOM.number().value == 0
            # No card was dealt: every deal of theirs can still be used.
            assert await arena.value("SELECT count(*) FROM void_deals") == 0
            assert await arena.value("SELECT sum(deals_done) FROM runs") == 0
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await stage.close()
