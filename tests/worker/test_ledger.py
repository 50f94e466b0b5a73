"""Storing what was played: all of a run or nothing, each run for itself, and twice is once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pokerarena.runs import claim as claims
from pokerarena.runs.claim import Claim
from pokerarena.runs.ledger import Batch, Verdict, store
from pokerarena.runs.play import play_run
from pokerarena.runs.seams import Clock, Control, PlayedUnit, VoidReason
from pokerarena.tables.models import Format
from pokerarena.worker.committer import GroupCommitter, Refused, libpq_url
from pokerarena.worker.runlog import FenceLost, RunLog, StoreLost
from tests.arena import Arena, open_arena
from tests.runs.stages import Recorder, Told, seat, spec


async def units(hands: int) -> list[PlayedUnit]:
    players = {number: Told(name, number) for number, name in ((1, "random"), (2, "tight"))}
    recorder = Recorder()
    run = spec([1, 2], hands, Format.CASH, starting_stack=10_000)
    await play_run(run, seat(players), recorder, Control(), Clock())
    return recorder.units


async def claimed(arena: Arena, hands: int = 20, lease_s: float = 60) -> Claim:
    run_id = await arena.order(["random", "tight"], hands)
    return await claim_again(arena, run_id, lease_s)


async def claim_again(arena: Arena, run_id: UUID, lease_s: float = 60) -> Claim:
    async with arena.database.unit_of_work() as session:
        claim = await claims.claim(
            session, run_id, claimed_by="a test", lease_s=lease_s, max_hands_ahead=8
        )
    assert claim is not None
    return claim


async def lose_lease(arena: Arena, run_id: UUID) -> None:
    async with arena.database.unit_of_work() as session:
        await claims.expire_leases(session, "a test")


def batch(claim: Claim, played: list[PlayedUnit], **changes: Any) -> Batch:
    last = played[-1].deal_no if played else claim.run.deals_done
    return Batch(
        claim.run.id,
        claim.epoch,
        played,
        changes.get("voids", []),
        deals_done=changes.get("deals_done", last),
        reserve_to=last + 4,
    )


async def put(arena: Arena, *batches: Batch) -> Verdict:
    async with await psycopg.AsyncConnection.connect(libpq_url(arena.settings)) as connection:
        return await store(connection, batches, lease_s=60)


async def test_of_two_runs_in_a_group_the_fenced_one_is_dropped_and_the_other_stored(
    database_url: str,
) -> None:
    async with open_arena(database_url) as arena:
        played = await units(10)
        fenced, sound = await claimed(arena), await claimed(arena)
        await lose_lease(arena, fenced.run.id)
        later = await claim_again(arena, fenced.run.id)
        verdict = await put(arena, batch(fenced, played), batch(sound, played))
        assert (set(verdict.stored), verdict.fenced) == ({sound.run.id}, {fenced.run.id})
        counts = await arena.rows("SELECT run_id, count(*) FROM hands GROUP BY run_id")
        assert counts == [(sound.run.id, 10)]
        run = await arena.look(fenced.run.id)
        assert (run.hands_done, run.epoch) == (0, later.epoch)


async def test_a_batch_that_is_stored_twice_is_stored_once(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        played = await units(12)
        claim = await claimed(arena)
        void = [(13, VoidReason.INFRASTRUCTURE)]
        await put(arena, batch(claim, played[:5]))
        for _ in range(2):
            await put(arena, batch(claim, played[:10], voids=void))
        await put(arena, batch(claim, played[5:], voids=void))
        run = await arena.look(claim.run.id)
        assert run.hands_done == 12
        assert await arena.value("SELECT count(*) FROM hands") == 12
        assert await arena.value("SELECT count(*) FROM hand_cards") == 12
        assert await arena.value("SELECT count(*) FROM void_deals") == 1
        totals = await arena.rows(
            "SELECT net, units, hands FROM run_seats WHERE run_id = :id ORDER BY seat_no",
            id=claim.run.id,
        )
        expected = played[-1].totals
        assert totals == [
            (expected[number].net, expected[number].units, expected[number].hands)
            for number in (1, 2)
        ]


async def test_a_gap_between_hands_is_an_error_and_nothing_is_stored(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        played = await units(6)
        claim = await claimed(arena)
        with pytest.raises(RuntimeError, match="the next to store is 3"):
            await put(arena, batch(claim, played[2:]))
        assert await arena.value("SELECT count(*) FROM hands") == 0


async def test_a_run_whose_row_is_locked_waits_without_holding_up_the_others(
    database_url: str,
) -> None:
    async with open_arena(database_url) as arena:
        played, others = await units(4), await units(4)
        locked, free = await claimed(arena), await claimed(arena)
        async with await psycopg.AsyncConnection.connect(libpq_url(arena.settings)) as other:
            await other.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", (locked.run.id,))
            verdict = await put(arena, batch(locked, played), batch(free, others))
            assert (set(verdict.stored), verdict.busy) == ({free.run.id}, {locked.run.id})
        verdict = await put(arena, batch(locked, played))
        assert set(verdict.stored) == {locked.run.id}


async def test_a_stored_hand_ends_a_row_of_recoveries_and_a_mere_reservation_does_not(
    database_url: str,
) -> None:
    async with open_arena(database_url) as arena:
        claim = await claimed(arena)
        async with arena.database.unit_of_work() as session:
            run = await session.get_one(type(claim.run), claim.run.id)
            run.recoveries = 3
        await put(arena, batch(claim, []))
        assert (await arena.look(claim.run.id)).recoveries == 3
        await put(arena, batch(claim, await units(1)))
        assert (await arena.look(claim.run.id)).recoveries == 0


@asynccontextmanager
async def committing(arena: Arena) -> AsyncIterator[GroupCommitter]:
    committer = GroupCommitter(arena.settings, name="a test")
    task = asyncio.create_task(committer.run())
    try:
        yield committer
        assert not task.done(), "the committer has died"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run_log(committer: GroupCommitter, claim: Claim, **changes: Any) -> RunLog:
    return RunLog(
        committer,
        run_id=claim.run.id,
        epoch=claim.epoch,
        deals_done=claim.run.deals_done,
        deals_reserved=claim.run.deals_reserved,
        hands_ahead_max=changes.get("hands_ahead_max", 64),
        lease_until_s=time.monotonic() + changes.get("lease_s", 60.0),
        monotonic=time.monotonic,
    )


async def keep(log: RunLog, played: list[PlayedUnit]) -> None:
    for unit in played:
        await log.reserve(unit.deal_no)
        await log.record(unit)
    await log.flush()


async def test_a_fence_lost_in_a_group_commit_ends_that_log_alone(database_url: str) -> None:
    async with open_arena(database_url) as arena, committing(arena) as committer:
        played = await units(20)
        first, second = await claimed(arena), await claimed(arena)
        logs = run_log(committer, first), run_log(committer, second)
        await lose_lease(arena, first.run.id)
        await claim_again(arena, first.run.id)
        results = await asyncio.gather(*[keep(log, played) for log in logs], return_exceptions=True)
        assert isinstance(results[0], FenceLost)
        assert results[1] is None
        assert isinstance(logs[0].over.result(), FenceLost)
        counts = await arena.rows("SELECT run_id, count(*) FROM hands GROUP BY run_id")
        assert counts == [(second.run.id, 20)]


async def test_a_log_that_ends_while_its_batch_is_under_way_leaves_the_others_their_commits(
    database_url: str,
) -> None:
    """The renewal may find out first; what the run records meanwhile must not be taken any more."""
    async with open_arena(database_url) as arena:
        played = await units(6)
        claim = await claimed(arena)
        log = run_log(GroupCommitter(arena.settings, name="a test"), claim)
        await log.reserve(1)
        await log.record(played[0])
        assert log.take() is not None
        log.end(FenceLost())
        assert log.take() is None


async def test_what_the_database_refuses_fails_its_run_and_no_other(database_url: str) -> None:
    async with open_arena(database_url) as arena, committing(arena) as committer:
        played, others = await units(10), await units(10)
        first, second = await claimed(arena, 5), await claimed(arena, 10)
        logs = run_log(committer, first), run_log(committer, second)
        # Ten hands of a run of five: the database's own check says no.
        results = await asyncio.gather(
            keep(logs[0], played), keep(logs[1], others), return_exceptions=True
        )
        assert isinstance(results[0], Refused)
        assert results[0].fault.code == "store_refused"
        assert results[1] is None
        assert (await arena.look(second.run.id)).hands_done == 10


async def test_a_commit_survives_the_loss_of_its_connection(database_url: str) -> None:
    async with open_arena(database_url) as arena, committing(arena) as committer:
        played = await units(60)
        claim = await claimed(arena, 60)
        log = run_log(committer, claim)
        for number, unit in enumerate(played):
            await log.reserve(unit.deal_no)
            await log.record(unit)
            if number % 10 == 5:
                await arena.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE '%commits%'"
                )
        await log.flush()
        assert (await arena.look(claim.run.id)).hands_done == 60
        numbers = await arena.rows("SELECT hand_no FROM hands ORDER BY hand_no")
        assert [row[0] for row in numbers] == list(range(1, 61))


async def test_a_database_that_stays_away_ends_the_logs_within_bounds(
    empty_database_url: str, database_url: str
) -> None:
    async with open_arena(database_url) as arena:
        claim = await claimed(arena)
        nowhere = arena.settings.model_copy(
            update={
                "database_url": type(arena.settings.database_url)(
                    "postgresql+psycopg://postgres@/x?host=/nonexistent"
                ),
                "commit_retry_s": 0.3,
            }
        )
        committer = GroupCommitter(nowhere, name="a test")
        task = asyncio.create_task(committer.run())
        log = run_log(committer, claim)
        with pytest.raises(StoreLost):
            await keep(log, await units(5))
        assert not task.done()
        task.cancel()


async def test_play_is_never_further_ahead_of_the_store_than_it_may(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        claim = await claimed(arena)
        committer = GroupCommitter(arena.settings, name="a test")
        log = run_log(committer, claim, hands_ahead_max=8)
        played = await units(20)
        ahead = 0

        async def go_on() -> None:
            nonlocal ahead
            for unit in played:
                await log.reserve(unit.deal_no)
                await log.record(unit)
                ahead += 1

        playing = asyncio.create_task(go_on())
        for _ in range(50):
            await asyncio.sleep(0)
        # Nobody commits: it stands at the reservation of its claim, below the bound.
        assert ahead == claims.FIRST_RESERVATION
        task = asyncio.create_task(committer.run())
        await playing
        await log.flush()
        task.cancel()
        assert ahead == 20


async def test_no_deal_begins_when_the_lease_is_over_until_it_is_renewed(
    database_url: str,
) -> None:
    async with open_arena(database_url) as arena, committing(arena) as committer:
        claim = await claimed(arena)
        log = run_log(committer, claim, lease_s=-1.0)
        waiting = asyncio.create_task(log.reserve(1))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        log.renewed(time.monotonic() + 60)
        await waiting
