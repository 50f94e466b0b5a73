"""Three worker hosts and one database: the network between them breaks, and is mended."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr

from pokerarena.ids import IdKind, id_text
from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.runs import service
from tests.arena import Arena, open_arena
from tests.database_server import UNSAFE_BUT_FAST, new_directory
from tests.journeys.test_recovery import holder_of
from tests.namespaces import HUB_ADDRESS, Network, left_over, let_in_hosts
from tests.soundness import assert_sound
from tests.worker.workers import SLOW_PLAYER, WorkerProcess, worker

HOSTS = 3
RUNS = 6
# Longer than any test takes: these runs are stopped.
ENDLESS = 1_000_000


async def until(what: str, condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    give_up_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up_s, f"waited in vain: {what}"
        await asyncio.sleep(0.05)


def runs_named(process: WorkerProcess, event: str) -> set[object]:
    return {found.get("run_id") for found in process.events(event)}


async def stop(arena: Arena, run_id: UUID) -> None:
    async with arena.database.unit_of_work() as session:
        await service.request_stop(session, run_id)
    assert (await arena.until_ended(run_id)).status == "stopped"


async def test_a_host_that_is_cut_off_loses_its_runs_writes_nothing_late_and_works_again(
    tmp_path: Path,
) -> None:
    with new_directory() as directory, ExitStack() as stack, Network(HOSTS) as network:
        postgres = EmbeddedPostgres(
            directory / "pg", settings={**UNSAFE_BUT_FAST, "listen_addresses": HUB_ADDRESS}
        )
        stack.callback(postgres.stop)
        with network.hub.entered():
            postgres.start()
        postgres.ensure_database("pokerarena")
        migrate.upgrade(postgres.url())
        async with open_arena(
            postgres.url(),
            database_silence_s=2,
            run_lease_s=3.0,
            reaper_interval_s=0.3,
        ) as arena:
            settings = arena.settings.model_copy(
                update={"database_url": SecretStr(let_in_hosts(postgres))}
            )
            workers = [
                stack.enter_context(
                    worker(
                        settings,
                        tmp_path,
                        player=SLOW_PLAYER,
                        prefix=host.prefix,
                        HOUSE_DELAY_S="0.01",
                    )
                )
                for host in network.hosts
            ]
            runs = [await arena.order(["tight", "caller"], ENDLESS) for _ in range(RUNS)]
            for run_id in runs:
                await arena.until(run_id, lambda run: run.hands_done >= 2)

            cut_off = await holder_of(arena, runs[0], workers)
            host = network.hosts[workers.index(cut_off)]
            moved = [run for run in runs if await holder_of(arena, run, workers) is cut_off]
            host.cut()
            stored: dict[UUID, int] = {}
            for run_id in moved:
                taken = await arena.until(run_id, lambda run: run.epoch >= 2)
                stored[run_id] = await arena.value(
                    "SELECT count(*) FROM hands WHERE run_id = :id AND epoch = 1", id=run_id
                )
                await arena.until(run_id, lambda run, n=taken.hands_done: run.hands_done > n + 2)
                assert await holder_of(arena, run_id, workers) is not cut_off
            await until("it says that it cannot store", lambda: cut_off.events("commit_failed"))

            host.mend()
            late = {id_text(IdKind.RUN, run_id) for run_id in moved}
            await until(
                "it says that it is late", lambda: late <= runs_named(cut_off, "fence_lost")
            )
            for run_id in moved:
                of_first = await arena.value(
                    "SELECT count(*) FROM hands WHERE run_id = :id AND epoch = 1", id=run_id
                )
                assert of_first == stored[run_id], "a late write was taken"
            assert cut_off.process.poll() is None

            # The others leave, and everything goes on with the one that was cut off.
            runs.append(await arena.order(["tight", "caller"], ENDLESS))
            for other in workers:
                if other is not cut_off:
                    other.signal(signal.SIGTERM)
            for other in workers:
                if other is not cut_off:
                    assert await other.wait(60) == 0
            for run_id in runs:
                run = await arena.look(run_id)
                await arena.until(run_id, lambda run, n=run.hands_done: run.hands_done > n + 2)
                assert await holder_of(arena, run_id, workers) is cut_off
            for run_id in runs:
                await stop(arena, run_id)
                await assert_sound(arena, run_id)
    assert left_over(network) == []
