"""The standing of versions: those that only fail are suspended, and how they come back.

Owns the relation of standings: what ended runs say of a version, the suspension, and the two ways
out of it: a check that the version passes, or an operator's word. A suspended version keeps its
seats, and no run is begun with it. A fault of ours never counts: hands that are void by one are not
in the numbers that come here. It takes a session and never commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena import metrics
from pokerarena.agents import registry
from pokerarena.agents.models import (
    Agent,
    AgentVersion,
    CheckStatus,
    SuspensionCause,
    VersionKind,
    VersionStanding,
)
from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.auth.permissions import Principal
from pokerarena.errors import Conflict, NotFound, QuotaExceeded
from pokerarena.ids import IdKind, id_text
from pokerarena.jobs import CHECKS_QUEUE, RUNS_QUEUE, enqueue_check
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger

log = get_logger("agents.standing")

RUNS_REMEMBERED: Final = 20


@dataclass(frozen=True, slots=True)
class Conduct:
    """What one ended run says of a version: its decisions, and how many of them it failed at."""

    version_id: UUID
    decisions: int
    failures: int

    @property
    def only_failed(self) -> bool:
        return self.decisions > 0 and self.failures >= self.decisions


async def take_note(
    session: AsyncSession, run_id: UUID, conducts: Iterable[Conduct], settings: Settings
) -> list[UUID]:
    """Enter an ended run into the standings; the versions that are suspended by it.

    To enter the same run again changes nothing.
    """
    # In one order, so that runs that end together never wait for each other in a circle.
    judged = sorted(
        (conduct for conduct in conducts if conduct.decisions > 0), key=lambda one: one.version_id
    )
    good = [conduct.version_id for conduct in judged if not conduct.only_failed]
    if good:
        await _forgive(session, good)
    return [
        conduct.version_id
        for conduct in judged
        if conduct.only_failed and await _enter(session, run_id, conduct, settings)
    ]


async def _forgive(session: AsyncSession, version_ids: Sequence[UUID]) -> None:
    """One decision that an agent took itself ends its row of failures."""
    due = await session.scalars(
        select(VersionStanding)
        .where(
            VersionStanding.version_id.in_(version_ids),
            VersionStanding.suspended_at.is_(None),
            VersionStanding.failing_since.is_not(None) | (VersionStanding.checks_used > 0),
        )
        .order_by(VersionStanding.version_id)
        .with_for_update()
    )
    for standing in due:
        _begin_anew(standing)
        standing.checks_used = 0
    await session.flush()


async def _enter(session: AsyncSession, run_id: UUID, conduct: Conduct, settings: Settings) -> bool:
    """One more run of nothing but failures; whether that suspends the version."""
    standing = await _locked(session, conduct.version_id)
    if standing.suspended_at is not None or run_id in standing.failing_runs:
        return False
    now = await session.scalar(select(func.clock_timestamp()))
    assert now is not None
    # A new list: a change within the old one would go unnoticed.
    standing.failing_runs = [*standing.failing_runs, run_id][-RUNS_REMEMBERED:]
    standing.failing_decisions += conduct.decisions
    standing.failing_since = standing.failing_since or now
    due = (
        len(standing.failing_runs) >= settings.suspension_runs
        and standing.failing_decisions >= settings.suspension_decisions
        and now - standing.failing_since >= timedelta(seconds=settings.suspension_span_s)
    )
    if due:
        runs, decisions = len(standing.failing_runs), standing.failing_decisions
        _suspend(
            standing,
            SuspensionCause.ONLY_FAILED,
            f"It failed at every one of its {decisions} decisions in {runs} runs in a row, the last "
            f"of them {id_text(IdKind.RUN, run_id)}; the runs' results name the reasons.",
            now,
        )
        subject = id_text(IdKind.VERSION, conduct.version_id)
        audit.record_judgement(
            session, Event.VERSION_SUSPENDED, subject=subject, runs=runs, decisions=decisions
        )
        log.warning("version_suspended", version_id=subject, runs=runs, decisions=decisions)
    await session.flush()
    return due


async def refuse_suspended(session: AsyncSession, seats: Iterable[tuple[int, UUID]]) -> None:
    """Raise `Conflict` (``version_suspended``) for a lineup with a suspended version."""
    seat_of = {version_id: seat_no for seat_no, version_id in seats}
    suspended = await session.scalars(
        select(VersionStanding)
        .where(
            VersionStanding.version_id.in_(list(seat_of)),
            VersionStanding.suspended_at.is_not(None),
        )
        .order_by(VersionStanding.version_id)
    )
    for standing in suspended:
        version = await session.get_one(AgentVersion, standing.version_id)
        agent_text = id_text(IdKind.AGENT, version.agent_id)
        version_text = id_text(IdKind.VERSION, version.id)
        seat_no = seat_of[standing.version_id]
        way_out = (
            f"Its owner mends it and asks for a check: POST /v1/agents/{agent_text}/versions/"
            f"{version_text}/standing/check lifts the suspension when it passes."
            if standing.cause == SuspensionCause.ONLY_FAILED.value
            else "Only an operator can lift this."
        )
        raise Conflict(
            "version_suspended",
            f"The version in seat {seat_no} is suspended. {standing.reason} {way_out} "
            "Or seat another version.",
            seat_no=seat_no,
            agent_id=agent_text,
            version_id=version_text,
            cause=standing.cause,
        )


async def read(
    session: AsyncSession, principal: Principal, agent_id: UUID, version_id: UUID
) -> VersionStanding:
    """The standing of a version, for its owner and for operators; `NotFound` for others."""
    await _inside(session, principal, agent_id, version_id)
    found = await session.get(VersionStanding, version_id)
    return found or VersionStanding(
        version_id=version_id, failing_runs=[], failing_decisions=0, checks_used=0
    )


async def ask_for_check(
    session: AsyncSession,
    principal: Principal,
    agent_id: UUID,
    version_id: UUID,
    settings: Settings,
) -> VersionStanding:
    """Queue the check that lifts a suspension when the version passes it.

    Raises `Conflict` (``version_not_suspended``, ``suspended_by_operator``, ``check_pending``,
    ``version_retired``) and `QuotaExceeded` (``no_checks_left``).
    """
    await registry.own_agent(session, principal, agent_id)
    _, version = await registry.visible_version(session, principal, agent_id, version_id)
    standing = await _locked(session, version_id)
    if standing.suspended_at is None:
        raise Conflict("version_not_suspended", "This version is not suspended.")
    if standing.cause != SuspensionCause.ONLY_FAILED.value:
        raise Conflict(
            "suspended_by_operator",
            "An operator suspended this version, and only an operator lifts that.",
        )
    if version.retired_at is not None:
        raise Conflict("version_retired", "This version is retired; seat another.")
    if standing.check_status == CheckStatus.PENDING.value:
        raise Conflict("check_pending", "A check of this version is under way; wait for its end.")
    if standing.checks_used >= settings.suspension_checks:
        raise QuotaExceeded(
            "no_checks_left",
            f"The {settings.suspension_checks} checks of this suspension are used up: add a new "
            "version, or ask an operator.",
            limit=settings.suspension_checks,
        )
    standing.checks_used += 1
    standing.check_status = CheckStatus.PENDING.value
    standing.check_asked_at = await session.scalar(select(func.now()))
    standing.check_report = None
    await session.flush()
    await enqueue_check_of(session, version)
    return standing


async def enqueue_check_of(session: AsyncSession, version: AgentVersion) -> None:
    """The job of a check; any worker can ask an HTTP agent, and not all have an agent-host."""
    hosted = version.kind == VersionKind.HOSTED.value
    await enqueue_check(session, version.id, queue=CHECKS_QUEUE if hosted else RUNS_QUEUE)


async def settle_check(
    session: AsyncSession, version_id: UUID, *, passed: bool, report: dict[str, Any]
) -> bool:
    """Store what a check found, and lift the suspension if it passed; False when none was due."""
    standing = await _locked(session, version_id)
    if standing.check_status != CheckStatus.PENDING.value:
        return False
    standing.check_status = (CheckStatus.PASSED if passed else CheckStatus.FAILED).value
    standing.check_report = report
    # What an operator said meanwhile stands.
    lifts = passed and standing.cause == SuspensionCause.ONLY_FAILED.value
    if lifts:
        _lift(standing, await session.scalar(select(func.clock_timestamp())), "check")
        subject = id_text(IdKind.VERSION, version_id)
        audit.record_judgement(
            session, Event.VERSION_REINSTATED, subject=subject, checks=standing.checks_used
        )
        log.info("version_reinstated", version_id=subject, by="check")
    await session.flush()
    return True


async def suspend(
    session: AsyncSession, agent_id: UUID, version_id: UUID, *, reason: str
) -> VersionStanding:
    """An operator's suspension; it takes the place of an automatic one."""
    await _version_of(session, agent_id, version_id)
    standing = await _locked(session, version_id)
    now = await session.scalar(select(func.clock_timestamp()))
    _suspend(standing, SuspensionCause.OPERATOR, reason, now)
    subject = id_text(IdKind.VERSION, version_id)
    audit.record(session, Event.VERSION_SUSPENDED, subject=subject, reason=reason)
    log.warning("version_suspended", version_id=subject, runs=len(standing.failing_runs),
                decisions=standing.failing_decisions)  # fmt: skip
    await session.flush()
    return standing


async def lift(session: AsyncSession, agent_id: UUID, version_id: UUID) -> VersionStanding:
    """An operator lifts any suspension; the owner has all checks again."""
    await _version_of(session, agent_id, version_id)
    standing = await _locked(session, version_id)
    if standing.suspended_at is None:
        raise Conflict("version_not_suspended", "This version is not suspended.")
    _lift(standing, await session.scalar(select(func.clock_timestamp())), "operator")
    standing.checks_used = 0
    subject = id_text(IdKind.VERSION, version_id)
    audit.record(session, Event.VERSION_REINSTATED, subject=subject)
    log.info("version_reinstated", version_id=subject, by="operator")
    await session.flush()
    return standing


async def _inside(
    session: AsyncSession, principal: Principal, agent_id: UUID, version_id: UUID
) -> None:
    agent, _ = await registry.visible_version(session, principal, agent_id, version_id)
    if not registry.can_see_inside(principal, agent):
        raise NotFound("standing")


async def _version_of(session: AsyncSession, agent_id: UUID, version_id: UUID) -> AgentVersion:
    version = await session.scalar(
        select(AgentVersion)
        .join(Agent, Agent.id == AgentVersion.agent_id)
        .where(Agent.id == agent_id, AgentVersion.id == version_id)
    )
    if version is None:
        raise NotFound("version")
    return version


async def _locked(session: AsyncSession, version_id: UUID) -> VersionStanding:
    await session.execute(
        insert(VersionStanding).values(version_id=version_id).on_conflict_do_nothing()
    )
    return await session.get_one(
        VersionStanding, version_id, with_for_update=True, populate_existing=True
    )


def _suspend(standing: VersionStanding, cause: SuspensionCause, reason: str, now: Any) -> None:
    standing.suspended_at, standing.cause, standing.reason = now, cause.value, reason
    standing.lifted_at = None
    standing.check_status = standing.check_report = standing.check_asked_at = None
    metrics.SUSPENSIONS.number(cause.value).add()


def _lift(standing: VersionStanding, now: Any, by: str) -> None:
    standing.suspended_at = standing.cause = standing.reason = None
    standing.lifted_at = now
    if standing.check_status == CheckStatus.PENDING.value:
        standing.check_status = standing.check_asked_at = None
    _begin_anew(standing)
    metrics.REINSTATEMENTS.number(by).add()


def _begin_anew(standing: VersionStanding) -> None:
    standing.failing_runs, standing.failing_decisions, standing.failing_since = [], 0, None
