"""Versions that only fail are suspended, and come back by a check or by an operator's word."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from pokerarena.agents import standing
from pokerarena.agents.models import Agent, AgentVersion, VersionStanding
from pokerarena.agents.standing import Conduct
from pokerarena.auth import audit
from pokerarena.auth.permissions import Principal
from pokerarena.errors import Conflict, QuotaExceeded
from pokerarena.ids import new_id
from pokerarena.ops.privileges import DatabaseRole
from pokerarena.runs import service
from pokerarena.runs.conduct import note_conduct
from pokerarena.runs.models import Run
from pokerarena.worker.stage import Stage
from tests.agents.misbehaving import Misbehaving
from tests.arena import Arena, arena_settings, open_arena
from tests.database_server import as_role

AT_ONCE = {"suspension_runs": 2, "suspension_decisions": 4, "suspension_span_s": 0}


async def standing_of(arena: Arena, version_id: UUID) -> VersionStanding:
    async with arena.database.session() as session:
        return await session.get_one(VersionStanding, version_id)


async def http_version(arena: Arena) -> tuple[UUID, UUID]:
    """The one agent that is asked over HTTP, and its version."""
    return tuple(
        (await arena.rows("SELECT agent_id, id FROM agent_versions WHERE kind = 'http' LIMIT 1"))[0]
    )


async def check(arena: Arena, version_id: UUID) -> None:
    """What a worker makes of the check's job, with the rights that a worker has."""
    url = as_role(arena.settings.database_url.get_secret_value(), DatabaseRole.WORKER)
    stage = Stage(
        arena.settings.model_copy(update={"database_url": arena_settings(url).database_url}),
        name="a test",
    )
    try:
        await stage.check(version_id)
    finally:
        await stage.close()


async def entered(arena: Arena, run_id: UUID, *conducts: Conduct, **changes: Any) -> list[UUID]:
    settings = arena.settings.model_copy(update=changes)
    async with arena.database.unit_of_work() as session:
        return await standing.take_note(session, run_id, conducts, settings)


async def test_what_only_fails_is_suspended_until_it_passes_a_check(database_url: str) -> None:
    async with Misbehaving("/server-error") as server, open_arena(database_url, **AT_ONCE) as arena:
        table_id = await arena.table(["tight", server.url("")], format="reset")
        stopped = await arena.run(table_id, 50)
        async with arena.database.unit_of_work() as session:
            await service.request_stop(session, stopped)
        for _ in range(2):
            run = await arena.play(await arena.run(table_id, 6))
            assert run.status == "completed"
        agent_id, version_id = await http_version(arena)
        found = await standing_of(arena, version_id)
        assert found.cause == "only_failed"
        assert found.reason is not None
        assert "every one of its" in found.reason
        for order in (lambda: arena.run(table_id, 6), lambda: resume(arena, stopped)):
            with pytest.raises(Conflict) as refused:
                await order()
            assert refused.value.code == "version_suspended"
            assert "standing/check lifts the suspension" in refused.value.message
            assert refused.value.context["seat_no"] == 2
        # It keeps its seat, and the owner may try a few times.
        assert await arena.value("SELECT count(*) FROM seats WHERE table_id = :t", t=table_id) == 2
        owner = Principal(user_id=arena.user_id)
        for status, mended in (("failed", False), ("passed", True)):
            server.default_path = "/good" if mended else "/server-error"
            async with arena.database.unit_of_work() as session:
                await standing.ask_for_check(session, owner, agent_id, version_id, arena.settings)
            assert await arena.value(
                "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'agents.check'"
                " AND queue_name = 'runs' AND args->>'version_id' = :v",
                v=str(version_id),
            )
            await check(arena, version_id)
            found = await standing_of(arena, version_id)
            assert found.check_status == status
            assert (found.suspended_at is None) == mended
            assert found.check_report is not None
            assert (found.check_report["errors"] == 0) == mended
        run = await arena.play(await arena.run(table_id, 6))
        assert run.status == "completed"
        # A decision of its own forgives the checks that it took.
        assert (await standing_of(arena, version_id)).checks_used == 0
        assert (await resume(arena, stopped)).status == "queued"
        events = await arena.rows("SELECT event, actor_id FROM audit_records ORDER BY seq")
        assert [tuple(row) for row in events] == [
            ("version.suspended", None),
            ("version.reinstated", None),
        ]
        async with arena.database.session() as session:
            assert (await audit.verify(session)).broken is None


async def resume(arena: Arena, run_id: UUID) -> Run:
    async with arena.database.unit_of_work() as session:
        return await service.resume_run(session, run_id)


async def test_only_decisions_that_all_failed_in_runs_in_a_row_count(database_url: str) -> None:
    async with open_arena(database_url, **AT_ONCE) as arena:
        await arena.table(["tight", "http://127.0.0.1:1/"])
        _, version_id = await http_version(arena)
        runs = [new_id() for _ in range(8)]
        bad, good = Conduct(version_id, 3, 3), Conduct(version_id, 300, 299)
        # The same run twice, a run without a decision, and one with a single good one.
        assert await entered(arena, runs[0], bad) == []
        assert await entered(arena, runs[0], bad) == []
        assert await entered(arena, runs[1], Conduct(version_id, 0, 0)) == []
        assert await entered(arena, runs[2], good) == []
        assert (await standing_of(arena, version_id)).failing_runs == []
        assert await entered(arena, runs[3], bad) == []
        # Too few decisions, or too short a time, is not enough either.
        assert await entered(arena, runs[4], bad, suspension_decisions=100) == []
        assert await entered(arena, runs[5], bad, suspension_span_s=600.0) == []
        assert await entered(arena, runs[6], bad) == [version_id]
        assert await entered(arena, runs[7], bad) == []
        found = await standing_of(arena, version_id)
        assert found.failing_runs == [runs[3], runs[4], runs[5], runs[6]]
        assert found.failing_decisions == 12
        # What it was suspended for is not forgiven by a run that was under way.
        await entered(arena, new_id(), good)
        assert (await standing_of(arena, version_id)).suspended_at is not None


async def test_quick_tables_and_faults_of_ours_suspend_nobody(database_url: str) -> None:
    changes = {**AT_ONCE, "suspension_runs": 1, "suspension_decisions": 1}
    async with Misbehaving("/server-error") as server, open_arena(database_url, **changes) as arena:
        quick = await arena.table(["tight", server.url("")], action_time_ms=500)
        await arena.play(await arena.run(quick, 4))
        assert await arena.rows("SELECT version_id FROM version_standings") == []
        table_id = await arena.table(["tight", server.url("")])
        run_id = await arena.run(table_id, 4)

        async with arena.database.unit_of_work() as session:
            await session.execute(
                text(
                    "UPDATE run_seats SET decisions = 9, fallbacks = '{\"infrastructure\": 9}'"
                    " WHERE run_id = :id"
                ),
                {"id": run_id},
            )
            assert await note_conduct(session, run_id, arena.settings) == []
        assert await arena.rows("SELECT version_id FROM version_standings") == []


async def test_checks_are_bounded_and_an_operators_word_stands(database_url: str) -> None:
    async with open_arena(database_url, suspension_checks=1, **AT_ONCE) as arena:
        await arena.table(["tight", "http://127.0.0.1:1/"])
        agent_id, version_id = await http_version(arena)
        owner = Principal(user_id=arena.user_id)

        async def refusal(error: type[Conflict | QuotaExceeded]) -> str:
            with pytest.raises(error) as refused:
                async with arena.database.unit_of_work() as session:
                    await standing.ask_for_check(
                        session, owner, agent_id, version_id, arena.settings
                    )
            return refused.value.code

        assert await refusal(Conflict) == "version_not_suspended"
        for _ in range(2):
            await entered(arena, new_id(), Conduct(version_id, 3, 3))
        async with arena.database.unit_of_work() as session:
            await standing.ask_for_check(session, owner, agent_id, version_id, arena.settings)
        assert await refusal(Conflict) == "check_pending"
        async with arena.database.unit_of_work() as session:
            await standing.settle_check(session, version_id, passed=False, report={})
        assert await refusal(QuotaExceeded) == "no_checks_left"
        async with arena.database.unit_of_work() as session:
            await standing.suspend(session, agent_id, version_id, reason="no")
            # A check that was under way lifts nothing that an operator said.
            await standing.settle_check(session, version_id, passed=True, report={})
        assert await refusal(Conflict) == "suspended_by_operator"
        async with arena.database.unit_of_work() as session:
            await standing.lift(session, agent_id, version_id)
        found = await standing_of(arena, version_id)
        assert (found.suspended_at, found.checks_used, found.failing_runs) == (None, 0, [])


@pytest.mark.parametrize(
    ("model", "column", "code"),
    [(Agent, "archived_at", "agent_archived"), (AgentVersion, "retired_at", "version_retired")],
)
async def test_a_run_whose_lineup_was_put_away_is_not_resumed(
    database_url: str, model: type[Agent | AgentVersion], column: str, code: str
) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["random", "tight"], 10)
        async with arena.database.unit_of_work() as session:
            await service.request_stop(session, run_id)
            thing = (await session.scalars(select(model).limit(1))).one()
            setattr(thing, column, thing.created_at + timedelta(seconds=1))
        with pytest.raises(Conflict) as refused:
            await resume(arena, run_id)
        assert refused.value.code == code
        assert (await arena.look(run_id)).status == "stopped"
