"""Agents and their versions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from pokerarena.agents import packages, registry
from pokerarena.agents.models import (
    Agent,
    AgentVersion,
    AgentVisibility,
    CheckStatus,
    VersionKind,
)
from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.envelope import UPLOAD_TYPES
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import (
    AgentId,
    AgentName,
    Description,
    OrKeep,
    Page,
    RequestShape,
    Shown,
    UrlText,
    UserId,
    VersionId,
)
from pokerarena.auth.permissions import Permission, Principal

router = APIRouter(prefix="/agents", tags=["agents"], route_class=IdempotentRoute)

_ARCHIVE = {"schema": {"type": "string", "format": "binary"}}
VisibilityField = Annotated[AgentVisibility, Field(strict=False)]


class AgentShown(Shown):
    """An agent."""

    id: AgentId
    owner_id: UserId
    name: str
    description: str
    visibility: AgentVisibility
    created_at: datetime
    archived_at: datetime | None

    @classmethod
    def of(cls, agent: Agent) -> AgentShown:
        return cls(
            id=agent.id,
            owner_id=agent.owner_id,
            name=agent.name,
            description=agent.description,
            visibility=AgentVisibility(agent.visibility),
            created_at=agent.created_at,
            archived_at=agent.archived_at,
        )


class NewAgent(RequestShape):
    """An agent to create."""

    name: AgentName
    description: Description = ""
    visibility: VisibilityField = AgentVisibility.PRIVATE


class AgentChange(RequestShape):
    """What to change of an agent; what is left out stays."""

    name: OrKeep[AgentName] = None
    description: OrKeep[Description] = None
    visibility: OrKeep[VisibilityField] = None


class CheckFinding(Shown):
    """One mistake, or one warning, of a check match."""

    severity: str
    code: str
    where: str
    sentence: str


class CheckSummary(Shown):
    """What came of a check match."""

    findings: list[CheckFinding]
    errors: int
    warnings: int
    decisions: int
    hands: int
    median_ms: float
    slowest_ms: float


class CheckReport(CheckSummary):
    """What came of a hosted version's, with the end of the agent's stderr."""

    starts: int
    cpu_ms: int
    memory_peak_bytes: int
    stderr: str


class ManifestShown(Shown):
    """What a hosted version's manifest says."""

    runtime: str
    entry_point: str
    max_in_flight: int
    events: bool
    egress: list[str]
    name: str


class VersionShown(Shown):
    """A version. What is inside it (where its callbacks go, its manifest, its check report) is
    shown to its owner and to operators only."""

    id: VersionId
    agent_id: AgentId
    number: int
    kind: VersionKind
    house_name: str | None
    callback_url: str | None
    max_batch: int
    max_in_flight: int
    wants_events: bool
    package_sha256: str | None
    package_size: int | None
    manifest: ManifestShown | None
    check_status: CheckStatus | None
    check_report: CheckReport | None
    created_at: datetime
    retired_at: datetime | None

    @classmethod
    def of(cls, version: AgentVersion, *, inside: bool) -> VersionShown:
        return cls(**version_fields(version, inside=inside))


class CreatedVersion(VersionShown):
    """A version that was just made; its signing secret is shown this once."""

    signing_secret: str | None


def version_fields(version: AgentVersion, *, inside: bool) -> dict[str, object]:
    return {
        "id": version.id,
        "agent_id": version.agent_id,
        "number": version.number,
        "kind": VersionKind(version.kind),
        "house_name": version.house_name,
        "callback_url": version.callback_url if inside else None,
        "max_batch": version.max_batch,
        "max_in_flight": version.max_in_flight,
        "wants_events": version.wants_events,
        "package_sha256": version.package_digest.hex()
        if inside and version.package_digest is not None
        else None,
        "package_size": version.package_size if inside else None,
        "manifest": version.manifest if inside else None,
        "check_status": version.check_status,
        "check_report": version.check_report if inside else None,
        "created_at": version.created_at,
        "retired_at": version.retired_at,
    }


class NewVersion(RequestShape):
    """A version to add: ``http`` with a callback_url, or ``house`` with a house_name."""

    kind: Annotated[VersionKind, Field(strict=False)]
    callback_url: UrlText | None = None
    house_name: Annotated[str, Field(max_length=40)] | None = None
    max_batch: Annotated[int, Field(ge=1, le=64)] = 1
    max_in_flight: Annotated[int, Field(ge=1, le=64)] = 1
    wants_events: bool = False


class AgentsQuery(PageQuery):
    """Which of one's agents to list."""

    archived: Annotated[bool, Field(description="list archived agents as well")] = False


@router.get("")
async def list_agents(
    caller: Annotated[Principal, needs(Permission.AGENTS_LIST)],
    page: Annotated[AgentsQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[AgentShown]:
    """One's own agents, newest first."""
    limit = page.bounded_limit(parts.settings)
    rows = await registry.list_own(
        session,
        caller.known_id(),
        archived=page.archived,
        before=page.before_id("agents"),
        limit=limit + 1,
    )
    rows_shown, cursor = cut(rows, limit, "agents", lambda agent: agent.id)
    return Page(items=[AgentShown.of(agent) for agent in rows_shown], next_cursor=cursor)


@router.post("", status_code=201)
async def create_agent(
    caller: Annotated[Principal, needs(Permission.AGENT_CREATE)],
    body: NewAgent,
    parts: PartsOf,
    session: Session,
) -> AgentShown:
    """Create an agent of one's own; its first version comes next."""
    agent = await registry.create_agent(
        session,
        caller,
        name=body.name,
        description=body.description,
        visibility=body.visibility,
        settings=parts.settings,
    )
    return AgentShown.of(agent)


@router.get("/{agent_id}")
async def read_agent(
    caller: Annotated[Principal, needs(Permission.AGENT_READ)], agent_id: AgentId, session: Session
) -> AgentShown:
    """One agent."""
    return AgentShown.of(await registry.visible_agent(session, caller, agent_id))


@router.patch("/{agent_id}")
async def change_agent(
    caller: Annotated[Principal, needs(Permission.AGENT_CHANGE)],
    agent_id: AgentId,
    body: AgentChange,
    session: Session,
) -> AgentShown:
    """Change name, description or visibility of one's own agent."""
    agent = await registry.change_agent(
        session,
        caller,
        agent_id,
        name=body.name,
        description=body.description,
        visibility=body.visibility,
    )
    return AgentShown.of(agent)


@router.post("/{agent_id}/archive")
async def archive_agent(
    caller: Annotated[Principal, needs(Permission.AGENT_CHANGE)],
    agent_id: AgentId,
    session: Session,
) -> AgentShown:
    """Put an agent away: it is listed and seated no more."""
    agent = await registry.archive_agent(session, caller, agent_id)
    await packages.drop_unused(session, agent)
    return AgentShown.of(agent)


@router.get("/{agent_id}/versions")
async def list_versions(
    caller: Annotated[Principal, needs(Permission.AGENT_READ)],
    agent_id: AgentId,
    page: Annotated[PageQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[VersionShown]:
    """The versions of an agent, newest first."""
    limit = page.bounded_limit(parts.settings)
    agent = await registry.visible_agent(session, caller, agent_id)
    inside = registry.can_see_inside(caller, agent)
    rows = await registry.list_versions(
        session, agent.id, before_number=page.number("versions"), limit=limit + 1
    )
    rows_shown, cursor = cut(rows, limit, "versions", lambda version: version.number)
    return Page(
        items=[VersionShown.of(version, inside=inside) for version in rows_shown],
        next_cursor=cursor,
    )


@router.post(
    "/{agent_id}/versions",
    status_code=201,
    openapi_extra={"requestBody": {"content": dict.fromkeys(UPLOAD_TYPES, _ARCHIVE)}},
)
async def add_version(
    caller: Annotated[Principal, needs(Permission.AGENT_CHANGE)],
    agent_id: AgentId,
    body: NewVersion,
    parts: PartsOf,
    session: Session,
) -> CreatedVersion:
    """Add a version to one's own agent: JSON, or the archive of a hosted one as the whole body
    (a single file is named by `?file_name=`). Versions never change; add another instead."""
    made = await registry.add_version(
        session,
        caller,
        agent_id,
        registry.VersionOrder(
            kind=body.kind,
            callback_url=body.callback_url,
            house_name=body.house_name,
            max_batch=body.max_batch,
            max_in_flight=body.max_in_flight,
            wants_events=body.wants_events,
        ),
        settings=parts.settings,
        sealer=parts.sealer,
    )
    return CreatedVersion(
        signing_secret=made.signing_secret, **version_fields(made.row, inside=True)
    )


@router.get("/{agent_id}/versions/{version_id}")
async def read_version(
    caller: Annotated[Principal, needs(Permission.AGENT_READ)],
    agent_id: AgentId,
    version_id: VersionId,
    session: Session,
) -> VersionShown:
    """One version of an agent."""
    agent, version = await registry.visible_version(session, caller, agent_id, version_id)
    return VersionShown.of(version, inside=registry.can_see_inside(caller, agent))


@router.post("/{agent_id}/versions/{version_id}/retire")
async def retire_version(
    caller: Annotated[Principal, needs(Permission.AGENT_CHANGE)],
    agent_id: AgentId,
    version_id: VersionId,
    session: Session,
) -> VersionShown:
    """Retire a version: it is seated no more."""
    version = await registry.retire_version(session, caller, agent_id, version_id)
    await packages.drop_unused(session, await registry.own_agent(session, caller, agent_id))
    return VersionShown.of(version, inside=True)
