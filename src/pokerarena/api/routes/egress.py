"""Where traffic may go: the operators' lists, and the hosts that hosted versions may reach."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from pokerarena.agents import registry
from pokerarena.agents.models import AgentVersion
from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import (
    AgentId,
    Description,
    EgressRuleId,
    Page,
    RequestShape,
    Shown,
    UserId,
    VersionId,
)
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.egress import approvals, rules
from pokerarena.egress.lists import Effect, RuleKind, parse_rule
from pokerarena.egress.models import EgressRule, EgressState, VersionEgress
from pokerarena.errors import NotFound

router = APIRouter(prefix="/egress", tags=["egress"], route_class=IdempotentRoute)
of_version = APIRouter(prefix="/agents", tags=["egress"], route_class=IdempotentRoute)


class RuleShown(Shown):
    """An entry of the lists. What is denied is denied, whatever is allowed."""

    id: EgressRuleId
    effect: Effect
    kind: RuleKind
    value: str
    note: str
    created_at: datetime
    created_by: UserId | None

    @classmethod
    def of(cls, rule: EgressRule) -> RuleShown:
        return cls.model_validate(rule, from_attributes=True)


class NewRule(RequestShape):
    """An entry to add. A domain is one name, or `.example.org` for it and everything below; a port
    may be a range; a network can be denied only."""

    effect: Annotated[Effect, Field(strict=False)]
    kind: Annotated[RuleKind, Field(strict=False)]
    value: Annotated[str, Field(min_length=1, max_length=260)]
    note: Annotated[Description, Field(max_length=200)] = ""


class HostShown(Shown):
    """A host that a version declares, and what an operator made of it."""

    host: str
    port: int
    state: EgressState
    decided_at: datetime | None


class VersionHosts(Shown):
    """A hosted version with the hosts that it declares."""

    agent_id: AgentId
    version_id: VersionId
    hosts: list[HostShown]

    @classmethod
    def of(cls, version: AgentVersion, hosts: list[VersionEgress]) -> VersionHosts:
        shown = [HostShown.model_validate(host, from_attributes=True) for host in hosts]
        return cls(agent_id=version.agent_id, version_id=version.id, hosts=shown)


class Decision(RequestShape):
    """What an operator makes of one host of a version."""

    destination: Annotated[str, Field(min_length=1, max_length=260, description="host:port")]
    state: Literal["approved", "denied"]


class RequestsQuery(PageQuery):
    """Which versions to list."""

    state: Annotated[
        Literal["pending", "approved", "denied", "all"],
        Field(description="versions with a host in this state"),
    ] = "pending"


@router.get("/rules")
async def list_rules(
    _: Annotated[Principal, needs(Permission.EGRESS_MANAGE)],
    page: Annotated[PageQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[RuleShown]:
    """The allow and deny lists, newest entry first."""
    limit = page.bounded_limit(parts.settings)
    rows = await rules.list_rules(session, before=page.before_id("rules"), limit=limit + 1)
    shown, cursor = cut(rows, limit, "rules", lambda rule: rule.id)
    return Page(items=[RuleShown.of(rule) for rule in shown], next_cursor=cursor)


@router.post("/rules", status_code=201)
async def add_rule(
    caller: Annotated[Principal, needs(Permission.EGRESS_MANAGE)],
    body: NewRule,
    parts: PartsOf,
    session: Session,
) -> RuleShown:
    """Add an entry; one that is there already is answered as it is. Registration heeds it at once,
    every dial within `POKERARENA_EGRESS_REFRESH_S`."""
    rule = await rules.add_rule(
        session,
        parse_rule(body.effect, body.kind, body.value),
        note=body.note,
        by=caller.known_id(),
        settings=parts.settings,
    )
    return RuleShown.of(rule)


@router.delete("/rules/{rule_id}", status_code=204)
async def remove_rule(
    _: Annotated[Principal, needs(Permission.EGRESS_MANAGE)],
    rule_id: EgressRuleId,
    session: Session,
) -> Response:
    """Take an entry away."""
    await rules.remove_rule(session, rule_id)
    return Response(status_code=204)


@router.get("/requests")
async def list_requests(
    _: Annotated[Principal, needs(Permission.EGRESS_MANAGE)],
    page: Annotated[RequestsQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[VersionHosts]:
    """Hosted versions that declare hosts, newest first."""
    limit = page.bounded_limit(parts.settings)
    rows = await approvals.list_requests(
        session,
        state=None if page.state == "all" else EgressState(page.state),
        before=page.before_id("requests"),
        limit=limit + 1,
    )
    shown, cursor = cut(rows, limit, "requests", lambda row: row[0].id)
    return Page(items=[VersionHosts.of(*row) for row in shown], next_cursor=cursor)


@router.put("/requests/{version_id}")
async def decide_request(
    caller: Annotated[Principal, needs(Permission.EGRESS_MANAGE)],
    version_id: VersionId,
    body: Decision,
    parts: PartsOf,
    session: Session,
) -> VersionHosts:
    """Approve or deny one host of a version."""
    hosts = await approvals.decide(
        session,
        version_id,
        body.destination,
        approve=body.state == "approved",
        policy=await rules.current_policy(session, parts.settings),
        by=caller.known_id(),
    )
    version = await session.get_one(AgentVersion, version_id)
    return VersionHosts.of(version, hosts)


@of_version.get("/{agent_id}/versions/{version_id}/egress")
async def read_version_egress(
    caller: Annotated[Principal, needs(Permission.EGRESS_READ)],
    agent_id: AgentId,
    version_id: VersionId,
    session: Session,
) -> VersionHosts:
    """The hosts that one's own version declares, and what an operator made of each."""
    agent, version = await registry.visible_version(session, caller, agent_id, version_id)
    if not registry.can_see_inside(caller, agent):
        raise NotFound("version")
    return VersionHosts.of(version, await approvals.of_version(session, version.id))
