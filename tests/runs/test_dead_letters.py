"""What gives up becomes a letter, and a letter leads to a retry or to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from pokerarena.errors import Conflict, NotFound
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.runs import claim as claims
from pokerarena.runs import dead_letters, service
from pokerarena.runs.models import DeadLetter, DeadLetterState
from pokerarena.worker.reaper import reap
from pokerarena.worker.tasks import JOB_RETRIES
from tests.arena import Arena, open_arena
from tests.ops.test_cli import one_line, pokerarena


@pytest.fixture
async def arena(database_url: str) -> AsyncIterator[Arena]:
    async with open_arena(database_url) as arena:
        yield arena


async def fail(arena: Arena, run_id: UUID, code: str) -> None:
    async with arena.database.unit_of_work() as session:
        claim = await claims.claim(
            session, run_id, claimed_by="player 7", lease_s=60, max_hands_ahead=1
        )
        assert claim is not None
    async with arena.database.unit_of_work() as session:
        assert await claims.fail(
            session, run_id, claim.epoch, None, code=code, detail="the disk is full"
        )


async def letters(arena: Arena, state: DeadLetterState | None = None) -> list[DeadLetter]:
    async with arena.database.session() as session:
        return await dead_letters.list_letters(session, state=state, before=None, limit=100)


@pytest.mark.parametrize("code", sorted(dead_letters.BURIED_CODES))
async def test_a_run_that_fails_by_our_fault_leaves_a_letter_that_leads_to_it(
    arena: Arena, code: str
) -> None:
    run_id = await arena.run(await arena.table(["random", "tight"]), 5, request_id="req-1")
    await fail(arena, run_id, code)
    (letter,) = await letters(arena)
    run = await arena.look(run_id)
    assert (letter.run_id, letter.code, letter.detail) == (run_id, code, "the disk is full")
    assert (letter.request_id, letter.claimed_by, letter.epoch) == ("req-1", "player 7", run.epoch)
    assert (letter.attempts, letter.state) == (1, "open")


async def test_what_the_owner_has_to_mend_leaves_none(arena: Arena) -> None:
    run_id = await arena.order(["random", "tight"], 5)
    await fail(arena, run_id, "house_agent_unknown")
    assert await letters(arena) == []


async def test_a_retry_resumes_the_run_and_closes_the_letter(arena: Arena) -> None:
    run_id = await arena.order(["random", "tight"], 5)
    await fail(arena, run_id, "infrastructure")
    (letter,) = await letters(arena)
    async with arena.database.unit_of_work() as session:
        closed = await dead_letters.retry(session, letter.id, by=arena.user_id)
        assert (closed.state, closed.closed_by) == ("retried", arena.user_id)
    assert (await arena.play(run_id)).status == "completed"
    async with arena.database.unit_of_work() as session:
        with pytest.raises(Conflict, match="retried already"):
            await dead_letters.retry(session, letter.id, by=None)
        with pytest.raises(NotFound):
            await dead_letters.retry(session, new_id(), by=None)


async def test_a_run_resumed_by_its_owner_closes_its_letter_and_a_new_failure_opens_another(
    arena: Arena,
) -> None:
    run_id = await arena.order(["random", "tight"], 5)
    for _ in range(2):
        await fail(arena, run_id, "infrastructure")
        async with arena.database.unit_of_work() as session:
            assert await dead_letters.count_open(session) == 1
            await service.resume_run(session, run_id)
    assert [letter.state for letter in await letters(arena)] == ["retried", "retried"]


async def test_a_letter_is_written_with_what_it_tells_of_or_not_at_all(arena: Arena) -> None:
    run_id = await arena.order(["random", "tight"], 5)
    async with arena.database.unit_of_work() as session:
        claim = await claims.claim(session, run_id, claimed_by="a", lease_s=60, max_hands_ahead=1)
        assert claim is not None
    async with arena.database.unit_of_work() as session:
        # Another epoch: this failure is nobody's any more.
        assert not await claims.fail(
            session, run_id, claim.epoch - 1, None, code="infrastructure", detail="late"
        )
    async with arena.database.session() as session:
        await claims.fail(session, run_id, claim.epoch, None, code="infrastructure", detail="x")
        await session.rollback()
    assert await letters(arena) == []
    assert (await arena.look(run_id)).status == "running"


async def failed_job(arena: Arena, run_text: str, attempts: int) -> int:
    async with arena.database.unit_of_work() as session:
        return int(
            (
                await session.execute(
                    text(
                        "INSERT INTO procrastinate_jobs"
                        " (queue_name, task_name, priority, args, status, attempts)"
                        " VALUES ('runs', 'runs.play', 0, jsonb_build_object('run_id',"
                        " CAST(:run AS text)), 'failed', :attempts) RETURNING id"
                    ),
                    {"run": run_text, "attempts": attempts},
                )
            ).scalar_one()
        )


async def test_a_job_without_attempts_left_and_without_a_run_becomes_a_letter_once(
    arena: Arena,
) -> None:
    most = JOB_RETRIES.attempts_max or 0
    lost = await failed_job(arena, "no run at all", most)
    await failed_job(arena, "it was tried once", most - 1)
    active = await arena.order(["random", "tight"], 5)
    await failed_job(arena, str(active), most)
    for _ in range(2):
        async with arena.database.unit_of_work() as session:
            await reap(session, arena.settings)
    (letter,) = await letters(arena)
    assert (letter.subject, letter.job_id, letter.attempts) == ("job", lost, most)
    async with arena.database.unit_of_work() as session:
        with pytest.raises(Conflict, match="belongs to no run"):
            await dead_letters.retry(session, letter.id, by=None)
        await dead_letters.discard(session, letter.id, by=None)
    async with arena.database.unit_of_work() as session:
        await reap(session, arena.settings)
        assert await dead_letters.count_open(session) == 0


async def test_old_ended_jobs_and_closed_letters_are_deleted_and_nothing_else(
    arena: Arena,
) -> None:
    run_id = await arena.order(["random", "tight"], 5)
    old = await failed_job(arena, "old", 1)
    await fail(arena, await arena.order(["random", "tight"], 5), "infrastructure")
    (letter,) = await letters(arena)
    async with arena.database.unit_of_work() as session:
        # What began a week ago began then for the queue too.
        await session.execute(
            text("UPDATE procrastinate_events SET at = now() - interval '8 days'")
        )
        jobs, gone = await dead_letters.sweep(
            session, jobs_keep_s=7 * 86_400, letters_keep_s=60, limit=100
        )
        assert (jobs, gone) == (1, 0), "an open letter stays, and so do jobs that wait"
        await dead_letters.discard(session, letter.id, by=None)
        await session.execute(text("UPDATE dead_letters SET closed_at = now() - interval '2 min'"))
        swept = await dead_letters.sweep(
            session, jobs_keep_s=7 * 86_400, letters_keep_s=60, limit=100
        )
        assert swept == (0, 1)
    assert not await arena.rows("SELECT 1 FROM procrastinate_jobs WHERE id = :id", id=old)
    assert (await arena.look(run_id)).status == "queued"


async def test_the_commands_list_show_retry_and_discard(arena: Arena, tmp_path: Path) -> None:
    environment = {"POKERARENA_DATABASE_URL": arena.settings.database_url.get_secret_value()}
    names = []
    for _ in range(2):
        run_id = await arena.order(["random", "tight"], 5)
        await fail(arena, run_id, "infrastructure")
        names.append(id_text(IdKind.RUN, run_id))
    listed = pokerarena("dead-letters", "list", **environment).stdout.splitlines()
    assert [line.split()[3] for line in listed] == names[::-1]
    first, second = (line.split()[0] for line in listed)
    assert "the disk is full" in pokerarena("dead-letters", "show", first, **environment).stdout
    assert " retried " in pokerarena("dead-letters", "retry", first, **environment).stdout
    assert " discarded " in pokerarena("dead-letters", "discard", second, **environment).stdout
    assert pokerarena("dead-letters", "list", **environment).stdout == ""
    again = pokerarena("dead-letters", "retry", first, **environment)
    assert again.returncode == 1
    assert "retried already" in one_line(again)
