"""Everything is restarted one by one under load, and nobody notices.

``POKERARENA_JOURNEY_ROUNDS`` sets how often; the suite does it once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

from pokerarena.runs import service
from tests.agents.misbehaving import Misbehaving
from tests.arena import Arena, open_arena
from tests.journeys.balanced import Balanced, Client, Watcher
from tests.journeys.test_recovery import until_gone
from tests.soundness import assert_sound
from tests.worker.workers import SLOW_PLAYER, WorkerProcess, worker

ROUNDS = int(os.environ.get("POKERARENA_JOURNEY_ROUNDS", "1"))
CLIENTS = 4
WORKERS = 2
ENDLESS = 1_000_000
DRAIN_S = 20.0


async def ended(arena: Arena, run_id: UUID) -> None:
    async with arena.database.unit_of_work() as session:
        await service.request_stop(session, run_id)
    assert (await arena.until_ended(run_id)).status == "stopped"


async def test_a_rolling_restart_under_load_fails_no_request_and_voids_no_hand(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        # With such a lease only handing over can move a run.
        open_arena(
            database_url, run_lease_s=60, run_lease_renew_s=20, worker_drain_s=DRAIN_S
        ) as arena,
        Misbehaving() as agents,
    ):
        with ExitStack() as stack:
            balanced = Balanced(database_url, count=2)
            stack.callback(balanced.close)
            front = balanced.servers[0]
            await asyncio.to_thread(front.log_in, "alice")
            token = front.token
            assert token is not None
            table = await asyncio.to_thread(
                front.ok, "POST", "/v1/tables", {"name": "Open", "visibility": "public"}
            )
            watcher = Watcher(balanced, f"/v1/tables/{table['id']}/live")
            clients = [Client(balanced, token, f"client {number}") for number in range(CLIENTS)]

            def start() -> WorkerProcess:
                return stack.enter_context(
                    worker(arena.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="0.01")
                )

            workers = [start() for _ in range(WORKERS)]
            lineups = [
                ("tight", "caller"), ("tight", "random", "caller"),
                (agents.url("good"), "tight"), (agents.url("slow"), "caller"),
            ]  # fmt: skip
            runs = [await arena.order(lineup, ENDLESS) for lineup in lineups]
            for run_id in runs:
                await arena.until(run_id, lambda run: run.hands_done >= 1)
            for thread in (watcher, *clients):
                thread.start()

            async def restart_workers() -> None:
                for at, process in enumerate(workers):
                    children = process.children()
                    process.signal(signal.SIGTERM)
                    assert await process.wait(DRAIN_S + 20) == 0
                    for child in children:
                        await until_gone(child)
                    workers[at] = start()
                    for run_id in runs:
                        before = (await arena.look(run_id)).hands_done
                        await arena.until(run_id, lambda run, n=before: run.hands_done > n)

            for _ in range(ROUNDS):
                await asyncio.gather(
                    asyncio.to_thread(balanced.restart_one_by_one), restart_workers()
                )
            for thread in (watcher, *clients):
                await asyncio.to_thread(thread.stop)
            for run_id in runs:
                await ended(arena, run_id)

        assert [failure for client in clients for failure in client.failures] == []
        assert watcher.failures == []
        assert sum("shutdown" in end for end in watcher.ends) >= ROUNDS
        answered = {name: client.answers for name, client in zip("abcd", clients, strict=True)}
        assert all(client.kept > client.answers[503] for client in clients), answered
        assert await arena.rows("SELECT reason, count(*) FROM void_deals GROUP BY reason") == []
        made = await arena.value("SELECT count(*) FROM tables WHERE name LIKE 'client %'")
        assert made == sum(client.answers[201] for client in clients)
        for run_id in runs:
            assert (await arena.look(run_id)).recoveries == 0
            await assert_sound(arena, run_id)
        print(
            f"{sum(sum(client.answers.values()) for client in clients)} requests, "
            f"{sum(client.answers[503] for client in clients)} honest 503, "
            f"{watcher.streams} streams, "
            f"{sum([(await arena.look(run_id)).hands_done for run_id in runs])} hands, no void"
        )


async def test_draining_is_bounded_where_an_agent_keeps_everybody_waiting(
    database_url: str, tmp_path: Path
) -> None:
    """Its hand is cut and void; the run goes to the next worker all the same."""
    async with (
        open_arena(
            database_url,
            run_lease_s=60,
            run_lease_renew_s=20,
            worker_drain_s=2.0,
            action_time_max_ms=600_000,
        ) as arena,
        Misbehaving("/hang") as agents,
    ):
        run_id = await arena.order([agents.url(""), "caller"], ENDLESS, action_time_ms=600_000)
        with worker(arena.settings, tmp_path) as first:
            while not agents.received:
                await asyncio.sleep(0.02)
            first.signal(signal.SIGTERM)
            # The bound of the drain, not that of the agent; the rest is what a slow machine takes.
            assert await first.wait(60) == 0
        assert first.events("hands_cut"), first.events()[-5:]
        run = await arena.look(run_id)
        assert (run.status, run.lease_expires_at, run.recoveries) == ("running", None, 0)
        assert await arena.rows("SELECT deal_no, reason FROM void_deals") == [(1, "drained")]
        agents.default_path = "/good"
        with worker(arena.settings, tmp_path):
            await arena.until(run_id, lambda run: run.hands_done >= 1)
            await ended(arena, run_id)
        await assert_sound(arena, run_id)
