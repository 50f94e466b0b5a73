"""Ordering, stopping and resuming runs, in the caller's transaction."""

from __future__ import annotations

import asyncio
import hashlib
from uuid import UUID

import pytest

from pokerarena.errors import ArenaError, Conflict, Invalid, NotFound, QuotaExceeded, Unavailable
from pokerarena.ids import new_id
from pokerarena.runs import claim as claims
from pokerarena.runs import service
from pokerarena.runs.models import Run
from pokerarena.runs.seams import VoidReason
from pokerarena.tables.models import Table
from tests.arena import Arena, open_arena


async def stop(arena: Arena, run_id: UUID) -> Run:
    async with arena.database.unit_of_work() as session:
        return await service.request_stop(session, run_id)


async def resume(arena: Arena, run_id: UUID) -> Run:
    async with arena.database.unit_of_work() as session:
        return await service.resume_run(session, run_id)


async def claim(arena: Arena, run_id: UUID, lease_s: float = 60) -> claims.Claim | None:
    async with arena.database.unit_of_work() as session:
        return await claims.claim(
            session, run_id, claimed_by="a test", lease_s=lease_s, max_hands_ahead=8
        )


async def jobs_of(arena: Arena, run_id: UUID) -> list[tuple[int, str]]:
    rows = await arena.rows(
        "SELECT id, status::text FROM procrastinate_jobs WHERE args->>'run_id' = :id ORDER BY id",
        id=str(run_id),
    )
    return [(row[0], row[1]) for row in rows]


async def test_a_run_keeps_the_rules_and_the_lineup_of_the_moment_it_was_ordered(
    database_url: str,
) -> None:
    async with open_arena(database_url) as arena:
        table_id = await arena.table(["random", "tight", "caller"], time_bank_ms=500)
        run_id = await arena.run(table_id, 10, request_id="req-1")
        async with arena.database.unit_of_work() as session:
            table = await session.get_one(Table, table_id)
            table.big_blind = 1_000
        run = await arena.look(run_id)
        assert (run.status, run.rules["big_blind"], run.request_id) == ("queued", 100, "req-1")
        assert run.position == {
            "stacks": {"1": 10_000, "2": 10_000, "3": 10_000},
            "button_seat": None,
        }
        async with arena.database.session() as session:
            seats = await service.lineup(session, run_id)
        assert [seat.seat_no for seat in seats] == [1, 2, 3]
        assert {seat.time_bank_ms for seat in seats} == {500}
        assert await jobs_of(arena, run_id) == [(run.job_id, "todo")]


async def test_the_seed_is_sealed_and_its_hash_is_public(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        run = await arena.look(await arena.order(["random", "tight"], 10))
        sealed = await arena.value(
            "SELECT seed_sealed FROM run_seeds WHERE run_id = :id", id=run.id
        )
        seed = await arena.sealer.open(sealed, purpose="run-seed", owner=run.id.bytes)
        assert len(seed) == 32
        assert hashlib.sha256(seed).digest() == run.seed_sha256
        assert seed not in sealed
        again = await arena.look(await arena.order(["random", "tight"], 10))
        assert again.seed_sha256 != run.seed_sha256


@pytest.mark.parametrize(
    ("lineup", "hands", "rules", "code"),
    [
        (["random"], 10, {}, "too_few_seats"),
        (["random", "tight"], 0, {}, "hands_out_of_range"),
        (["random", "tight"], -5, {}, "hands_out_of_range"),
        (["random", "tight"], 1_000_001, {}, "hands_out_of_range"),
        (["random", "tight", "caller"], 10, {"format": "duplicate"}, "hands_not_multiple"),
    ],
)
async def test_an_order_that_cannot_be_played_is_refused_and_leaves_nothing(
    database_url: str, lineup: list[str], hands: int, rules: dict[str, str], code: str
) -> None:
    async with open_arena(database_url) as arena:
        with pytest.raises(Invalid) as error:
            await arena.order(lineup, hands, **rules)
        assert error.value.code == code
        assert await arena.value("SELECT count(*) FROM runs") == 0
        assert await arena.value("SELECT count(*) FROM procrastinate_jobs") == 0


async def test_a_table_has_one_active_run_even_when_two_are_ordered_at_once(
    database_url: str,
) -> None:
    async with open_arena(database_url) as arena:
        table_id = await arena.table(["random", "tight"])
        results = await asyncio.gather(
            *[arena.run(table_id, 10) for _ in range(4)], return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, Exception)]
        assert len(errors) == 3
        assert {error.code for error in errors if isinstance(error, Conflict)} == {"run_active"}
        assert await arena.value("SELECT count(*) FROM procrastinate_jobs") == 1


async def test_the_quota_of_active_runs_holds_for_orders_at_once(database_url: str) -> None:
    async with open_arena(database_url, runs_active_per_user_max=2) as arena:
        tables = [await arena.table(["random", "tight"]) for _ in range(5)]
        results = await asyncio.gather(
            *[arena.run(table_id, 10) for table_id in tables], return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, ArenaError)]
        assert len(errors) == 3
        assert all(isinstance(error, QuotaExceeded) for error in errors)


async def test_an_order_that_is_rolled_back_has_no_job(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        table_id = await arena.table(["random", "tight"])
        async with arena.database.session() as session:
            table = await session.get_one(Table, table_id)
            run = await service.create_run(
                session,
                table=table,
                created_by=arena.user_id,
                hands=10,
                settings=arena.settings,
                sealer=arena.sealer,
                request_id=None,
            )
            assert run.job_id is not None
            await session.rollback()
        assert await arena.value("SELECT count(*) FROM procrastinate_jobs") == 0


async def test_a_queued_run_stops_at_once_and_nobody_can_claim_it(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["random", "tight"], 10)
        run = await stop(arena, run_id)
        assert run.status == "stopped"
        assert run.finished_at is not None
        assert await claim(arena, run_id) is None
        assert (await stop(arena, run_id)).status == "stopped"


async def test_only_a_stopped_or_failed_run_resumes_and_only_on_a_free_table(
    database_url: str,
) -> None:
    async with open_arena(database_url) as arena:
        table_id = await arena.table(["random", "tight"])
        run_id = await arena.run(table_id, 10)
        with pytest.raises(Conflict) as error:
            await resume(arena, run_id)
        assert error.value.code == "run_not_resumable"
        await stop(arena, run_id)
        other = await arena.run(table_id, 10)
        with pytest.raises(Conflict) as error:
            await resume(arena, run_id)
        assert error.value.code == "run_active"
        await stop(arena, other)
        run = await resume(arena, run_id)
        assert (run.status, run.stop_requested_at, run.finished_at) == ("queued", None, None)
        assert len(await jobs_of(arena, run_id)) == 2


async def test_a_failed_run_loses_its_reason_when_it_is_resumed(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["random", "tight"], 10)
        claimed = await claim(arena, run_id)
        assert claimed is not None
        async with arena.database.unit_of_work() as session:
            settlement = claims.Settlement(0, [], VoidReason.FAILED)
            assert await claims.fail(
                session, run_id, claimed.epoch, settlement, code="because", detail="of this"
            )
        failed = await arena.look(run_id)
        assert (failed.status, failed.failure_code) == ("failed", "because")
        with pytest.raises(Conflict) as error:
            await stop(arena, run_id)
        assert error.value.code == "run_not_active"
        resumed = await resume(arena, run_id)
        assert (resumed.failure_code, resumed.failure_detail) == (None, None)


async def test_a_claim_holds_until_its_lease_is_over_and_the_next_one_voids_its_deals(
    database_url: str,
) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["random", "tight"], 10)
        first = await claim(arena, run_id, lease_s=0.3)
        assert first is not None
        assert first.epoch == 1
        assert await claim(arena, run_id) is None
        second = None
        while second is None:
            second = await claim(arena, run_id)
        assert second.epoch == 2
        assert second.voided_deals == claims.FIRST_RESERVATION
        assert second.run.deals_done == claims.FIRST_RESERVATION
        # The first one may try what it likes.
        settlement = claims.Settlement(0, [], VoidReason.STOPPED)
        async with arena.database.unit_of_work() as session:
            renewal = await claims.renew(session, {run_id: 1}, lease_s=60)
            assert (renewal.renewed, renewal.lost) == (frozenset(), {run_id})
            assert not await claims.hand_back(session, run_id, 1, settlement)
            assert not await claims.fail(session, run_id, 1, settlement, code="x", detail="x")
        run = await arena.look(run_id)
        assert (run.epoch, run.status, run.failure_code) == (2, "running", None)


async def test_runs_are_listed_newest_first_page_by_page(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        table_id = await arena.table(["random", "tight"])
        made = []
        for _ in range(5):
            made.append(await arena.run(table_id, 10))
            await stop(arena, made[-1])
        async with arena.database.session() as session:
            first = await service.list_runs(session, table_id, None, 3)
            second = await service.list_runs(session, table_id, first[-1].id, 3)
        assert [run.id for run in (*first, *second)] == made[::-1]


async def test_an_unknown_run_is_not_found(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        async with arena.database.session() as session:
            assert await service.get_run(session, new_id()) is None
        with pytest.raises(NotFound):
            await stop(arena, new_id())
        with pytest.raises(NotFound):
            await resume(arena, new_id())


async def test_when_the_arena_is_full_an_order_is_told_to_come_later(database_url: str) -> None:
    async with open_arena(database_url, runs_active_total_max=2) as arena:
        first = await arena.order(["random", "tight"], 5)
        await arena.order(["random", "tight"], 5)
        table = await arena.table(["random", "tight"])
        with pytest.raises(Unavailable, match="as many runs"):
            await arena.run(table, 5)
        async with arena.database.unit_of_work() as session:
            await service.request_stop(session, first)
        await arena.run(table, 5)


async def test_whoever_has_few_runs_comes_before_those_who_queued_many(database_url: str) -> None:
    async with open_arena(database_url) as many, open_arena(database_url) as few:
        queued = [await many.order(["random", "tight"], 5) for _ in range(4)]
        late = await few.order(["random", "tight"], 5)
        # The order in which the queue gives them out.
        order = await many.rows(
            "SELECT args->>'run_id' FROM procrastinate_jobs WHERE status = 'todo'"
            " ORDER BY priority DESC, id"
        )
        assert [row[0] for row in order] == [
            str(run_id) for run_id in (queued[0], late, *queued[1:])
        ]
