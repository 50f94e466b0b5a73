"""The standing of versions: why one is suspended, and the ways back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from pokerarena.agents import standing
from pokerarena.agents.models import CheckStatus, SuspensionCause, VersionStanding
from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.routes.agents import CheckSummary
from pokerarena.api.shapes import AgentId, Description, RequestShape, RunId, Shown, VersionId
from pokerarena.auth.permissions import Permission, Principal

router = APIRouter(
    prefix="/agents/{agent_id}/versions/{version_id}/standing",
    tags=["agents"],
    route_class=IdempotentRoute,
)


class StandingShown(Shown):
    """How a version stands: the runs in which it only failed, and its suspension, if any."""

    version_id: VersionId
    failing_runs: list[RunId]
    failing_decisions: int
    failing_since: datetime | None
    suspended_at: datetime | None
    cause: SuspensionCause | None
    reason: str | None
    checks_left: int
    check_status: CheckStatus | None
    check_report: CheckSummary | None
    lifted_at: datetime | None

    @classmethod
    def of(cls, row: VersionStanding, parts: PartsOf) -> StandingShown:
        shown = {name: getattr(row, name) for name in cls.model_fields if name != "checks_left"}
        left = max(0, parts.settings.suspension_checks - row.checks_used)
        return cls(checks_left=left, **shown)


class NewSuspension(RequestShape):
    """An operator's suspension of a version."""

    reason: Annotated[
        Description, StringConstraints(min_length=1), Field(description="for the owner")
    ]


@router.get("")
async def read_standing(
    caller: Annotated[Principal, needs(Permission.STANDING_READ)],
    agent_id: AgentId,
    version_id: VersionId,
    parts: PartsOf,
    session: Session,
) -> StandingShown:
    """How a version of one's own agent stands, and why."""
    return StandingShown.of(await standing.read(session, caller, agent_id, version_id), parts)


@router.post("/check", status_code=202)
async def ask_for_check(
    caller: Annotated[Principal, needs(Permission.AGENT_CHANGE)],
    agent_id: AgentId,
    version_id: VersionId,
    parts: PartsOf,
    session: Session,
) -> StandingShown:
    """Have a suspended version of one's own checked: when it passes, the suspension is lifted."""
    row = await standing.ask_for_check(session, caller, agent_id, version_id, parts.settings)
    return StandingShown.of(row, parts)


@router.post("/suspend")
async def suspend_version(
    _: Annotated[Principal, needs(Permission.VERSIONS_SUSPEND)],
    agent_id: AgentId,
    version_id: VersionId,
    body: NewSuspension,
    parts: PartsOf,
    session: Session,
) -> StandingShown:
    """Suspend a version; its runs in progress go on. The owner sees the reason."""
    row = await standing.suspend(session, agent_id, version_id, reason=body.reason)
    return StandingShown.of(row, parts)


@router.post("/lift")
async def lift_suspension(
    _: Annotated[Principal, needs(Permission.VERSIONS_SUSPEND)],
    agent_id: AgentId,
    version_id: VersionId,
    parts: PartsOf,
    session: Session,
) -> StandingShown:
    """Lift any suspension."""
    return StandingShown.of(await standing.lift(session, agent_id, version_id), parts)
