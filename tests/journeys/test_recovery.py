"""Whatever happens to a worker, a run goes on: no hand lost that was complete, none doubled."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg

from pokerarena.ops.privileges import DatabaseRole
from pokerarena.runs import claim as claims
from pokerarena.runs import service
from pokerarena.worker.committer import commits_name, libpq_url
from tests.arena import Arena, open_arena
from tests.database_server import as_role
from tests.soundness import assert_sound
from tests.worker.workers import SLOW_PLAYER, WorkerProcess, worker

KILLS = 20
HANDS = 2_000
QUICK = {"run_lease_s": 1.0, "run_lease_renew_s": 0.3, "reaper_interval_s": 0.2}


async def holder_of(arena: Arena, run_id: object, workers: list[WorkerProcess]) -> WorkerProcess:
    """The worker that plays the run now."""
    claimed_by = await arena.value("SELECT claimed_by FROM runs WHERE id = :id", id=run_id)
    return next(each for each in workers if f":{each.pid}:" in claimed_by)


async def test_a_run_survives_twenty_kills_of_its_worker(database_url: str, tmp_path: Path) -> None:
    chance = random.Random(20)
    # A recovery counts until the next complete hand, and a kill may come before that one.
    async with open_arena(database_url, run_recoveries_max=KILLS, **QUICK) as arena:
        run_id = await arena.order(["tight", "random", "caller"], HANDS)
        with ExitStack() as stack:

            def start() -> WorkerProcess:
                return stack.enter_context(
                    worker(arena.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="0.001")
                )

            workers = [start(), start()]
            hands_done = 0
            for kill in range(KILLS):
                run = await arena.until(
                    run_id,
                    lambda run, kill=kill: run.epoch > kill and run.lease_expires_at is not None,
                )
                if chance.random() < 0.8:
                    run = await arena.until(
                        run_id, lambda run, before=hands_done: run.hands_done > before
                    )
                await asyncio.sleep(chance.uniform(0, 0.4))
                assert run.status == "running", "the run ended before it was killed often enough"
                victim = await holder_of(arena, run_id, workers)
                children = victim.children()
                victim.kill()
                workers[workers.index(victim)] = start()
                hands_done = (await arena.look(run_id)).hands_done
                for child in children:
                    await until_gone(child)
            run = await arena.until_ended(run_id, deadline_s=90)
        assert (run.status, run.hands_done) == ("completed", HANDS)
        assert run.epoch >= KILLS + 1
        voids = await arena.rows(
            "SELECT DISTINCT reason FROM void_deals WHERE run_id = :id", id=run_id
        )
        assert voids == [("worker_lost",)], "hands in progress at a kill are recorded as void"
        await assert_sound(arena, run_id)


async def test_a_halted_worker_writes_nothing_after_another_took_over(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(database_url, **QUICK) as arena:
        run_id = await arena.order(["tight", "random", "caller"], 400)
        slow = {"player": SLOW_PLAYER, "HOUSE_DELAY_S": "0.002"}
        with worker(arena.settings, tmp_path, **slow) as first:
            await arena.until(run_id, lambda run: run.hands_done >= 20)
            first.signal_group(signal.SIGSTOP)
            with worker(arena.settings, tmp_path, **slow) as second:
                await arena.until(run_id, lambda run: run.epoch == 2 and run.hands_done >= 100)
                of_first = await arena.value(
                    "SELECT count(*) FROM hands WHERE run_id = :id AND epoch = 1", id=run_id
                )
                first.signal_group(signal.SIGCONT)
                await until_logged(first, "fence_lost")
                run = await arena.until_ended(run_id)
                assert (run.status, run.epoch) == ("completed", 2)
                # The first one lives, and has stayed out of it.
                assert first.process.poll() is None
                counts = await arena.rows(
                    "SELECT epoch, count(*) FROM hands WHERE run_id = :id"
                    " GROUP BY epoch ORDER BY epoch",
                    id=run_id,
                )
                assert counts == [(1, of_first), (2, 400 - of_first)]
                assert not second.events("fence_lost")
            # And it is fit to work: the second one is gone, and a new run goes to the first.
            again = await arena.order(["tight", "random"], 5)
            assert (await arena.until_ended(again)).status == "completed"
        await assert_sound(arena, run_id)


async def test_a_worker_halted_within_a_commit_does_not_hold_up_the_run(
    database_url: str, tmp_path: Path
) -> None:
    """Its open transaction holds the lock of the run's row; the reaper ends it."""
    async with open_arena(database_url, **QUICK) as arena:
        run_id = await arena.order(["tight", "random"], 100)
        async with arena.database.unit_of_work() as session:
            assert await claims.claim(
                session, run_id, claimed_by="halted", lease_s=0.1, max_hands_ahead=8
            )
        # One worker may end the statements of another, and nobody else's.
        mine = as_role(libpq_url(arena.settings), DatabaseRole.WORKER)
        halted = await psycopg.AsyncConnection.connect(
            mine, application_name=commits_name("halted")
        )
        async with halted:
            await halted.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", (run_id,))
            # In the middle of a COPY no timeout of the server's applies.
            halted.pgconn.send_query(b"COPY hands FROM STDIN")
            with worker(arena.settings, tmp_path) as process:
                run = await arena.until_ended(run_id, deadline_s=20)
                assert process.events("halted_commits_ended")
            await halted.close()
        assert (run.status, run.epoch) == ("completed", 2)
        await assert_sound(arena, run_id)


async def test_a_stop_takes_effect_within_one_hand_and_the_run_resumes_at_the_next(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["caller", "caller"], 30)
        # Eight decisions a hand: a hand takes seconds, far longer than word of the stop needs.
        slow = {"player": SLOW_PLAYER, "HOUSE_DELAY_S": "0.3"}
        with worker(arena.settings, tmp_path, **slow):
            await arena.until(run_id, lambda run: run.hands_done >= 1)
            async with arena.database.unit_of_work() as session:
                asked = await service.request_stop(session, run_id)
                hands_done_then = asked.hands_done
            stopped = await arena.until_ended(run_id)
            assert stopped.status == "stopped"
            # The hand in progress, and one that had ended and was being stored.
            assert hands_done_then <= stopped.hands_done <= hands_done_then + 2
            await assert_sound(arena, run_id)

        async with arena.database.unit_of_work() as session:
            await service.resume_run(session, run_id)
        with worker(arena.settings, tmp_path):
            run = await arena.until_ended(run_id)
        assert (run.status, run.hands_done) == ("completed", 30)
        assert run.epoch == stopped.epoch + 1
        await assert_sound(arena, run_id)
        assert not await arena.rows("SELECT * FROM void_deals WHERE run_id = :id", id=run_id)


async def test_sigterm_hands_runs_back_at_once_and_loses_nothing(
    database_url: str, tmp_path: Path
) -> None:
    # With such a lease only a hand-back can be quick.
    async with open_arena(database_url, run_lease_s=60, run_lease_renew_s=20) as arena:
        run_id = await arena.order(["tight", "random", "caller"], 400)
        slow = {"player": SLOW_PLAYER, "HOUSE_DELAY_S": "0.002"}
        with worker(arena.settings, tmp_path, **slow) as first:
            await arena.until(run_id, lambda run: run.hands_done >= 20)
            children = first.children()
            first.signal(signal.SIGTERM)
            assert await first.wait(10) == 0
            for child in children:
                await until_gone(child)
        handed_back = await arena.look(run_id)
        assert handed_back.status == "running"
        assert handed_back.lease_expires_at is None
        assert handed_back.recoveries == 0
        with worker(arena.settings, tmp_path, **slow):
            run = await arena.until_ended(run_id)
        assert (run.status, run.hands_done) == ("completed", 400)
        assert not await arena.rows("SELECT * FROM void_deals WHERE run_id = :id", id=run_id)
        await assert_sound(arena, run_id)


async def until_gone(pid: int, deadline_s: float = 10.0) -> None:
    """Wait until a process has ended."""
    give_up_s = time.monotonic() + deadline_s
    while Path(f"/proc/{pid}").exists():
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if status == "Z":
            return
        assert time.monotonic() < give_up_s, f"process {pid} outlives its parent"
        await asyncio.sleep(0.02)


async def until_logged(process: WorkerProcess, event: str, deadline_s: float = 20.0) -> None:
    """Wait until a worker has logged an event."""
    give_up_s = time.monotonic() + deadline_s
    while not process.events(event):
        assert time.monotonic() < give_up_s, f"the worker never logged {event}"
        await asyncio.sleep(0.02)
