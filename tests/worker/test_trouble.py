"""One run's trouble stays its own, and a worker survives its surroundings."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from sqlalchemy import text

from pokerarena.runs import claim as claims
from pokerarena.runs import service
from pokerarena.runs.models import RunSeed
from pokerarena.worker.reaper import reap
from tests.arena import Arena, arena_settings, open_arena
from tests.soundness import assert_sound
from tests.worker.workers import SLOW_PLAYER, worker


async def test_a_run_that_kills_its_process_fails_in_the_end_and_blocks_nobody(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(
        database_url,
        run_recoveries_max=3,
        # A job that was fetched has so long to claim its run: time to start a process.
        run_lease_s=20.0,
        run_lease_renew_s=5.0,
        reaper_interval_s=0.2,
    ) as arena:
        poison_table = await arena.table(["random", "tight"])
        healthy = await arena.order(["random", "tight", "caller"], 150)
        poison = await arena.run(poison_table, 50)
        with worker(
            arena.settings,
            tmp_path,
            player="tests.worker.poison_player",
            POISON_TABLE=str(poison_table),
            HOUSE_DELAY_S="0.002",
        ) as process:
            failed = await arena.until_ended(poison)
            assert (failed.status, failed.failure_code) == ("failed", "recoveries_exhausted")
            assert "3 times in a row" in (failed.failure_detail or "")
            assert failed.hands_done == 0
            assert (await arena.until_ended(healthy)).status == "completed"
            # It died of each claim, and of nothing else.
            assert len(process.events("player_process_died")) == failed.epoch == 4
            # From the second time on each is played alone: the healthy one is not taken along.
            alone = {event["recoveries"] for event in process.events("run_played_alone")}
            assert alone >= {2, 3}
        await assert_sound(arena, healthy)
        assert not await arena.rows(
            "SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        )


async def test_a_run_that_is_played_alone_is_drained_like_any_other(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(database_url, run_lease_s=60, run_lease_renew_s=20) as arena:
        run_id = await arena.order(["random", "tight", "caller"], 1_000_000)
        async with arena.database.unit_of_work() as session:
            await session.execute(text("UPDATE runs SET recoveries = 2"))
        slow = {"player": SLOW_PLAYER, "HOUSE_DELAY_S": "0.002"}
        with worker(arena.settings, tmp_path, **slow) as process:
            await arena.until(run_id, lambda run: run.hands_done >= 5)
            assert len(process.children()) == 2
            process.signal(signal.SIGTERM)
            assert await process.wait(60) == 0
        run = await arena.look(run_id)
        assert (run.status, run.epoch, run.lease_expires_at) == ("running", 2, None)
        # It has completed hands since: whoever takes it up plays it beside others again.
        assert run.recoveries == 0
        assert not await arena.rows("SELECT * FROM void_deals")
        await assert_sound(arena, run_id)


async def test_a_lineup_that_cannot_be_seated_fails_with_a_reason_and_can_be_resumed(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(database_url) as arena:
        hosted = await arena.order(["random", "hosted"], 10)
        unknown = await arena.order(["random", "nobody"], 10)
        damaged = await arena.order(["random", "tight"], 10)
        async with arena.database.unit_of_work() as session:
            seed = await session.get_one(RunSeed, damaged)
            seed.seed_sealed = seed.seed_sealed[:-1] + bytes((seed.seed_sealed[-1] ^ 1,))
        with worker(arena.settings, tmp_path):
            codes = [(await arena.until_ended(run)).failure_code for run in (hosted, unknown)]
            assert codes == ["hosted_unavailable", "house_agent_unknown"]
            assert (await arena.until_ended(damaged)).failure_code == "configuration"
            async with arena.database.unit_of_work() as session:
                await service.resume_run(session, hosted)
            again = await arena.until_ended(hosted)
            assert (again.failure_code, again.epoch) == ("hosted_unavailable", 2)
        for run_id in (hosted, unknown, damaged):
            await assert_sound(arena, run_id)


async def test_a_killed_player_process_is_replaced_and_its_runs_go_on_without_waiting_for_a_lease(
    database_url: str, tmp_path: Path
) -> None:
    # With such a lease the test would time out if it were waited for.
    async with open_arena(
        database_url, run_lease_s=300, run_lease_renew_s=100, reaper_interval_s=100
    ) as arena:
        run_id = await arena.order(["random", "tight", "caller"], 300)
        with worker(arena.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="0.002") as process:
            await arena.until(run_id, lambda run: run.hands_done >= 20)
            (child,) = process.children()
            os.kill(child, signal.SIGKILL)
            run = await arena.until_ended(run_id, deadline_s=30)
            assert (run.status, run.epoch) == ("completed", 2)
        await assert_sound(arena, run_id)


async def cut_connections(arena: Arena) -> None:
    """Cut every connection of the worker, at a moment at which it has any."""
    async with asyncio.timeout(30):
        while not await arena.value(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'pokerarena%'"
        ):
            await asyncio.sleep(0.02)


async def test_a_lost_database_neither_loses_nor_doubles_a_hand(
    database_url: str, tmp_path: Path
) -> None:
    """Every connection of the worker is cut, again and again, as a restart would."""
    async with open_arena(database_url, run_lease_s=4.0) as arena:
        run_id = await arena.order(["random", "tight", "caller"], 400)
        stopped = await arena.order(["caller", "caller"], 100_000)
        with worker(arena.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="0.002") as process:
            done = 0
            for _ in range(6):
                run = await arena.until(run_id, lambda run, done=done: run.hands_done > done)
                done = run.hands_done
                await cut_connections(arena)
            # What listens must listen again.
            later = await arena.order(["random", "tight"], 10)
            assert (await arena.until_ended(later)).status == "completed"
            async with arena.database.unit_of_work() as session:
                await service.request_stop(session, stopped)
            assert (await arena.until_ended(stopped)).status == "stopped"
            run = await arena.until_ended(run_id)
            assert (run.status, run.hands_done) == ("completed", 400)
            assert process.process.poll() is None
        await assert_sound(arena, run_id)
        await assert_sound(arena, stopped)


async def test_many_runs_at_once_all_end_in_one_worker(database_url: str, tmp_path: Path) -> None:
    async with open_arena(database_url, runs_active_per_user_max=100) as arena:
        runs = [await arena.order(["random", "tight", "caller"], 20) for _ in range(40)]
        with worker(arena.settings, tmp_path, processes=2) as process:
            for run_id in runs:
                assert (await arena.until_ended(run_id)).status == "completed"
            players = {event["player"] for event in process.events("run_claimed")}
            assert len(players) == 2, "the runs are spread over the processes"
        for run_id in runs[::8]:
            await assert_sound(arena, run_id)


async def test_a_worker_without_a_database_says_so_in_one_line_and_ends(tmp_path: Path) -> None:
    settings = arena_settings(
        "postgresql+psycopg://postgres@/x?host=/nonexistent", database_start_wait_s=0
    )
    with worker(settings, tmp_path) as process:
        assert await process.wait() == 1
        said = process.log_path.read_text().strip()
    assert said.startswith("pokerarena worker: the database cannot be used")
    assert "\n" not in said


async def _reap(arena: Arena) -> tuple[int, int]:
    async with arena.database.unit_of_work() as session:
        reaped = await reap(session, arena.settings)
    return len(reaped.requeued), len(reaped.given_up)


async def test_the_reaper_leaves_alone_what_waits_and_what_has_only_just_begun(
    database_url: str,
) -> None:
    async with open_arena(database_url, run_lease_s=3.0) as arena:
        run_id = await arena.order(["random", "tight"], 10)
        assert await _reap(arena) == (0, 0)
        run = await arena.look(run_id)
        # Fetched a moment ago, and not claimed yet.
        await _set_job(arena, run.job_id, "doing")
        assert await _reap(arena) == (0, 0)
        # Its worker died before the claim.
        await _age_events(arena)
        assert await _reap(arena) == (1, 0)
        again = await arena.look(run_id)
        assert again.job_id != run.job_id
        assert again.recoveries == 1
        status = await arena.value(
            "SELECT status::text FROM procrastinate_jobs WHERE id = :id", id=run.job_id
        )
        assert status == "failed"
        assert await _reap(arena) == (0, 0)


async def test_one_reaper_at_a_time(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["random", "tight"], 10)
        job_id = (await arena.look(run_id)).job_id
        await _set_job(arena, job_id, "doing")
        await _age_events(arena)
        results = await asyncio.gather(*[_reap(arena) for _ in range(6)])
        assert sum(requeued for requeued, _ in results) == 1


async def _set_job(arena: Arena, job_id: int | None, status: str) -> None:
    async with arena.database.unit_of_work() as session:
        await session.execute(
            text(
                "UPDATE procrastinate_jobs SET status = CAST(:status AS procrastinate_job_status)"
                " WHERE id = :id"
            ),
            {"status": status, "id": job_id},
        )


async def _age_events(arena: Arena) -> None:
    async with arena.database.unit_of_work() as session:
        await session.execute(text("UPDATE procrastinate_events SET at = at - interval '1 hour'"))


async def test_what_a_wrong_clock_has_dated_is_mended(database_url: str) -> None:
    """A lease into next week would keep a dead worker's run, a job of tomorrow nobody would fetch."""
    async with open_arena(database_url, run_lease_s=3.0) as arena:
        held, queued = [await arena.order(["random", "tight"], 10) for _ in range(2)]
        async with arena.database.unit_of_work() as session:
            claim = await claims.claim(
                session, held, claimed_by="the dead", lease_s=7 * 86_400, max_hands_ahead=8
            )
            assert claim is not None
            await session.execute(
                text("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 day'")
            )
        assert await _reap(arena) == (0, 0)
        lease_s = await arena.value(
            "SELECT extract(epoch FROM lease_expires_at - clock_timestamp())::float8"
            " FROM runs WHERE id = :id",
            id=held,
        )
        late = await arena.value(
            "SELECT scheduled_at > clock_timestamp() FROM procrastinate_jobs j"
            " JOIN runs r ON r.job_id = j.id WHERE r.id = :id",
            id=queued,
        )
        assert lease_s <= 3.0
        assert not late
