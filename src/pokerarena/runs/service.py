"""Runs as their owners know them: create, stop, resume, look.

Takes a session and never commits: the run and its job are one transaction of the caller. It never
plays; a worker does, and finds all it needs in the row.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents import standing
from pokerarena.agents.models import Agent, AgentVersion, VersionKind
from pokerarena.auth.models import User
from pokerarena.engine.deal import SEED_BYTES, seed_commitment
from pokerarena.errors import Conflict, Invalid, NotFound, QuotaExceeded, Unavailable
from pokerarena.ids import new_id
from pokerarena.jobs import enqueue_run
from pokerarena.runs.dead_letters import close_letters_of
from pokerarena.runs.formats import RunRules, first_position
from pokerarena.runs.models import (
    ACTIVE_STATUSES,
    RevealedSeed,
    Run,
    RunSeat,
    RunSeed,
    RunStatus,
)
from pokerarena.sealing import Sealer
from pokerarena.settings import Settings
from pokerarena.tables.models import Format, Seat, Table
from pokerarena.tables.rules import check_runtime
from pokerarena.tracing import traceparent

SEED_PURPOSE: Final = "run-seed"
CONTROL_CHANNEL: Final = "pokerarena_control"


async def create_run(
    session: AsyncSession,
    *,
    table: Table,
    created_by: UUID,
    hands: int,
    settings: Settings,
    sealer: Sealer,
    request_id: str | None,
) -> Run:
    """Order a run at a table, with the rules and the lineup of this moment, and enqueue its job.

    Raises `Conflict` (``run_active``, ``version_suspended``), `Invalid` (``too_few_seats``,
    ``hands_out_of_range``, ``hands_not_multiple``, ``runtime_not_available``), `QuotaExceeded`
    (``too_many_active_runs``)
    and `Unavailable` (``too_many_runs_in_progress``).
    """
    # Both locks last until the caller commits: no second run at the table, no quota outrun. The
    # order (user, then table) is the same for everybody.
    # Not FOR UPDATE of the user: whoever takes a seat holds the table and refers to the user.
    await session.execute(
        select(User.id).where(User.id == created_by).with_for_update(key_share=True)
    )
    await session.refresh(table, with_for_update=True)
    lineup = await _lineup_of(session, table.id)
    _check_hands(hands, table, len(lineup), settings)
    if await _active_run_of(session, table.id):
        raise Conflict(
            "run_active", "This table has a run in progress; stop it, or wait for its end."
        )
    await standing.refuse_suspended(
        session, [(seat.seat_no, version.id) for seat, _, version in lineup]
    )
    active = await _check_quota(session, created_by, settings)
    rules = RunRules.of_table(table)
    seed = os.urandom(SEED_BYTES)
    run_id = new_id()
    run = Run(
        id=run_id,
        table_id=table.id,
        created_by=created_by,
        status=RunStatus.QUEUED.value,
        rules=rules.to_json(),
        sandbox_runtime=_runtime_of(table, [version for _, _, version in lineup], settings),
        visibility=table.visibility,
        reveal_policy=table.reveal_policy,
        hands_target=hands,
        position=first_position(rules, [seat.seat_no for seat, _, _ in lineup]).to_json(),
        seed_sha256=seed_commitment(seed),
        request_id=request_id,
        trace_context=traceparent(),
    )
    session.add(run)
    await session.flush()
    sealed = await sealer.seal(seed, purpose=SEED_PURPOSE, owner=run_id.bytes)
    session.add(RunSeed(run_id=run_id, seed_sealed=sealed))
    for seat, agent, version in lineup:
        session.add(
            RunSeat(
                run_id=run_id,
                seat_no=seat.seat_no,
                agent_id=agent.id,
                version_id=version.id,
                owner_id=agent.owner_id,
                agent_name=agent.name,
                version_number=version.number,
                time_bank_ms=rules.time_bank_ms,
            )
        )
    # Whoever has many runs in progress waits behind those who have few.
    run.job_id = await enqueue_run(session, run_id, priority=-active)
    await session.flush()
    # Defaults that the database has set, such as created_at.
    await session.refresh(run)
    return run


async def revealed_seed(session: AsyncSession, run_id: UUID) -> bytes | None:
    """The seed that the worker told when it completed the run; None while it is secret."""
    return await session.scalar(select(RevealedSeed.seed).where(RevealedSeed.run_id == run_id))


async def request_stop(session: AsyncSession, run_id: UUID) -> Run:
    """Ask for the end of a run within one hand; a run that has not begun ends at once.

    Stopping a stopped run changes nothing. Raises `NotFound`, and `Conflict` (``run_not_active``).
    """
    run = await _locked(session, run_id)
    if run.status == RunStatus.STOPPED.value:
        return run
    if run.status not in ACTIVE_STATUSES:
        raise Conflict("run_not_active", f"This run is {run.status}: there is nothing to stop.")
    now = await session.scalar(select(func.now()))
    run.stop_requested_at = run.stop_requested_at or now
    if run.status == RunStatus.QUEUED.value:
        run.status = RunStatus.STOPPED.value
        run.finished_at = now
        run.job_id = None
    else:
        await session.execute(
            text("SELECT pg_notify(:channel, :run_id)"),
            {"channel": CONTROL_CHANNEL, "run_id": str(run_id)},
        )
    await session.flush()
    return run


async def resume_run(session: AsyncSession, run_id: UUID) -> Run:
    """Queue a stopped or failed run again; it goes on at the next hand.

    Its lineup is that of the order: a run with an agent or a version that was put away since then,
    or suspended, is not resumed.

    Raises `NotFound`, and `Conflict` (``run_not_resumable``, ``run_archived``, ``run_active``,
    ``agent_archived``, ``version_retired``, ``version_suspended``).
    """
    run = await _locked(session, run_id)
    if run.archive_id is not None:
        raise Conflict("run_archived", "The hands of this run were archived; order a new run.")
    if run.status not in (RunStatus.STOPPED.value, RunStatus.FAILED.value):
        raise Conflict(
            "run_not_resumable",
            f"This run is {run.status}; only a stopped or failed run can be resumed.",
        )
    await session.execute(select(Table.id).where(Table.id == run.table_id).with_for_update())
    if await _active_run_of(session, run.table_id):
        raise Conflict(
            "run_active", "This table has another run in progress; stop it, or wait for its end."
        )
    await _refuse_put_away(session, run_id)
    run.status = RunStatus.QUEUED.value
    run.failure_code = None
    run.failure_detail = None
    run.finished_at = None
    run.stop_requested_at = None
    run.lease_expires_at = None
    run.claimed_by = None
    run.recoveries = 0
    await close_letters_of(session, run_id)
    run.job_id = await enqueue_run(session, run_id)
    await session.flush()
    return run


async def get_run(session: AsyncSession, run_id: UUID) -> Run | None:
    """The run, whoever asks: what they may see is for the caller to judge."""
    return await session.get(Run, run_id)


async def lineup(session: AsyncSession, run_id: UUID) -> list[RunSeat]:
    """The seats of a run, by number, with their totals."""
    return list(
        await session.scalars(
            select(RunSeat).where(RunSeat.run_id == run_id).order_by(RunSeat.seat_no)
        )
    )


async def list_runs(
    session: AsyncSession, table_id: UUID, before: UUID | None, limit: int
) -> list[Run]:
    """The runs of a table, newest first; `before` is the last one of the page before."""
    query = select(Run).where(Run.table_id == table_id).order_by(Run.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Run.id < before)
    return list(await session.scalars(query))


async def _locked(session: AsyncSession, run_id: UUID) -> Run:
    run = await session.scalar(
        select(Run)
        .where(Run.id == run_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if run is None:
        raise NotFound("run")
    return run


async def _refuse_put_away(session: AsyncSession, run_id: UUID) -> None:
    """Raise `Conflict` where a seat of the lineup may play no more."""
    rows = await session.execute(
        select(RunSeat, Agent.archived_at, AgentVersion.retired_at)
        .join(Agent, Agent.id == RunSeat.agent_id)
        .join(AgentVersion, AgentVersion.id == RunSeat.version_id)
        .where(RunSeat.run_id == run_id)
        .order_by(RunSeat.seat_no)
    )
    lineup = []
    for seat, archived_at, retired_at in rows:
        lineup.append((seat.seat_no, seat.version_id))
        if archived_at is not None:
            raise Conflict(
                "agent_archived",
                f"The agent in seat {seat.seat_no} was archived since this run was ordered; "
                "order a new run with another.",
                seat_no=seat.seat_no,
            )
        if retired_at is not None:
            raise Conflict(
                "version_retired",
                f"The version in seat {seat.seat_no} was retired since this run was ordered; "
                "order a new run with another.",
                seat_no=seat.seat_no,
            )
    await standing.refuse_suspended(session, lineup)


async def _lineup_of(
    session: AsyncSession, table_id: UUID
) -> Sequence[tuple[Seat, Agent, AgentVersion]]:
    rows = await session.execute(
        select(Seat, Agent, AgentVersion)
        .join(Agent, Agent.id == Seat.agent_id)
        .join(AgentVersion, AgentVersion.id == Seat.version_id)
        .where(Seat.table_id == table_id)
        .order_by(Seat.seat_no)
    )
    return [(seat, agent, version) for seat, agent, version in rows]


def _runtime_of(table: Table, versions: Sequence[AgentVersion], settings: Settings) -> str | None:
    """In which sandbox the run's hosted agents play; None where it has none."""
    if all(version.kind != VersionKind.HOSTED.value for version in versions):
        return None
    # The deployment may have changed since the table was made.
    check_runtime(table.sandbox_runtime, settings)
    return table.sandbox_runtime or settings.sandbox_runtimes[0]


async def _active_run_of(session: AsyncSession, table_id: UUID) -> bool:
    query = select(Run.id).where(Run.table_id == table_id, Run.status.in_(ACTIVE_STATUSES))
    return await session.scalar(query.limit(1)) is not None


def _check_hands(hands: int, table: Table, seat_count: int, settings: Settings) -> None:
    if seat_count < 2:
        raise Invalid(
            "too_few_seats",
            f"A run needs at least two taken seats, and this table has {seat_count}.",
            seats_taken=seat_count,
        )
    if not 1 <= hands <= settings.run_hands_max:
        raise Invalid(
            "hands_out_of_range",
            f"A run has 1 to {settings.run_hands_max} hands.",
            hands_max=settings.run_hands_max,
        )
    if table.format == Format.DUPLICATE.value and hands % seat_count:
        raise Invalid(
            "hands_not_multiple",
            f"In duplicate every deal is played once by each of the {seat_count} seats: "
            f"the number of hands must be a multiple of {seat_count}.",
            multiple_of=seat_count,
        )


async def _check_quota(session: AsyncSession, user_id: UUID, settings: Settings) -> int:
    """How many runs the user has in progress; raises where one more is too many, for them or for all.

    The bound of all is not locked: orders at the same moment may exceed it by a few.
    """
    active = await session.scalar(
        select(func.count())
        .select_from(Run)
        .where(Run.created_by == user_id, Run.status.in_(ACTIVE_STATUSES))
    )
    if (active or 0) >= settings.runs_active_per_user_max:
        raise QuotaExceeded(
            "too_many_active_runs",
            f"You have {active} runs in progress, and may have "
            f"{settings.runs_active_per_user_max}; wait for one to end, or stop it.",
            limit=settings.runs_active_per_user_max,
        )
    total = await session.scalar(
        select(func.count()).select_from(Run).where(Run.status.in_(ACTIVE_STATUSES))
    )
    if (total or 0) >= settings.runs_active_total_max:
        raise Unavailable(
            "too_many_runs_in_progress",
            "The arena has as many runs in progress as it takes; try again later.",
        )
    return active or 0
