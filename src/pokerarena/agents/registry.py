"""Agents and their immutable versions: creating, changing, retiring, and who may see them.

Owns the signing secret of a version from the moment it is made: it leaves this module once, in the
answer to its creation, and afterwards only sealed or to the player that signs with it. It must
never open a connection to a callback URL; whether an address is allowed is `egress.policy`'s word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.house import STRATEGIES
from pokerarena.agents.models import Agent, AgentVersion, AgentVisibility, VersionKind
from pokerarena.auth import accounts, audit
from pokerarena.auth.audit import Event
from pokerarena.auth.permissions import Principal
from pokerarena.egress import rules
from pokerarena.egress.policy import EgressPolicy
from pokerarena.errors import Conflict, Forbidden, Invalid, NotFound, QuotaExceeded
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.protocol.signing import new_secret
from pokerarena.sealing import Sealer
from pokerarena.settings import Settings
from pokerarena.tables.models import Seat

SIGNING_SECRET_PURPOSE = "signing-secret"  # noqa: S105 - names a purpose  # pragma: allowlist secret
HOUSE_NAMES = tuple(STRATEGIES)


@dataclass(frozen=True, slots=True)
class VersionOrder:
    """What a new version is to be; only the fields of its kind are given."""

    kind: VersionKind
    callback_url: str | None = None
    house_name: str | None = None
    max_batch: int = 1
    max_in_flight: int = 1
    wants_events: bool = False


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version that was just made; an ``http`` version's secret is shown once."""

    row: AgentVersion
    signing_secret: str | None


def can_see(principal: Principal, agent: Agent) -> bool:
    """Whether the principal may know that the agent exists."""
    return (
        principal.owns(agent.owner_id)
        or principal.is_operator
        or (agent.visibility == AgentVisibility.PUBLIC.value and agent.archived_at is None)
    )


def can_see_inside(principal: Principal, agent: Agent) -> bool:
    """Whether the principal may know where the agent's callbacks go."""
    return principal.owns(agent.owner_id) or principal.is_operator


async def visible_agent(session: AsyncSession, principal: Principal, agent_id: UUID) -> Agent:
    """The agent, or `NotFound` also where the principal may not know of it."""
    agent = await session.get(Agent, agent_id)
    if agent is None or not can_see(principal, agent):
        raise NotFound("agent")
    return agent


async def own_agent(
    session: AsyncSession, principal: Principal, agent_id: UUID, *, for_update: bool = False
) -> Agent:
    """The principal's own agent; `Forbidden` where it is another's but visible."""
    agent = await session.get(Agent, agent_id, with_for_update=for_update or None)
    if agent is None or not can_see(principal, agent):
        raise NotFound("agent")
    if not principal.owns(agent.owner_id):
        raise Forbidden("not_agent_owner", "Only the agent's owner may do this.")
    return agent


async def list_own(
    session: AsyncSession, owner_id: UUID, *, archived: bool, before: UUID | None, limit: int
) -> list[Agent]:
    """A user's agents, newest first; archived ones only where asked for."""
    query = select(Agent).where(Agent.owner_id == owner_id).order_by(Agent.id.desc()).limit(limit)
    if not archived:
        query = query.where(Agent.archived_at.is_(None))
    if before is not None:
        query = query.where(Agent.id < before)
    return list(await session.scalars(query))


async def create_agent(
    session: AsyncSession,
    principal: Principal,
    *,
    name: str,
    description: str,
    visibility: AgentVisibility,
    settings: Settings,
) -> Agent:
    """Create an agent of the principal's own."""
    owner_id = principal.known_id()
    await accounts.lock(session, owner_id)
    count = await session.scalar(
        select(func.count()).where(Agent.owner_id == owner_id, Agent.archived_at.is_(None))
    )
    if (count or 0) >= settings.agents_per_user_max:
        raise QuotaExceeded(
            "too_many_agents", f"You have {count} agents, the most allowed; archive one first."
        )
    agent = Agent(
        id=new_id(),
        owner_id=owner_id,
        name=name,
        description=description,
        visibility=visibility.value,
    )
    session.add(agent)
    await _flush_name(session)
    await session.refresh(agent)
    return agent


async def change_agent(
    session: AsyncSession,
    principal: Principal,
    agent_id: UUID,
    *,
    name: str | None,
    description: str | None,
    visibility: AgentVisibility | None,
) -> Agent:
    """Change what is given of the principal's own agent; its versions never change."""
    agent = await own_agent(session, principal, agent_id, for_update=True)
    _refuse_archived(agent)
    if name is not None:
        agent.name = name
    if description is not None:
        agent.description = description
    if visibility is not None and visibility.value != agent.visibility:
        agent.visibility = visibility.value
        audit.record(
            session,
            Event.AGENT_EXPOSURE_CHANGED,
            subject=id_text(IdKind.AGENT, agent.id),
            visibility=agent.visibility,
        )
    await _flush_name(session)
    return agent


async def archive_agent(session: AsyncSession, principal: Principal, agent_id: UUID) -> Agent:
    """Put an agent away: it is listed and seated no more. Hands that it played keep its name."""
    agent = await own_agent(session, principal, agent_id, for_update=True)
    if agent.archived_at is None:
        await _refuse_seated(session, Seat.agent_id == agent.id, "agent_seated", "agent")
        agent.archived_at = await session.scalar(select(func.now()))
        await session.flush()
    return agent


async def add_version(
    session: AsyncSession,
    principal: Principal,
    agent_id: UUID,
    order: VersionOrder,
    *,
    settings: Settings,
    sealer: Sealer,
) -> NewVersion:
    """Add the next version of the principal's own agent."""
    # From the database each time: whoever registers is held to the lists of this moment.
    check_order(order, await rules.current_policy(session, settings))
    agent = await open_own_agent(session, principal, agent_id)
    number = await next_number(session, agent, settings)
    version_id = new_id()
    secret = new_secret() if order.kind is VersionKind.HTTP else None
    sealed = None
    if secret is not None:
        sealed = await sealer.seal(
            secret.encode(), purpose=SIGNING_SECRET_PURPOSE, owner=version_id.bytes
        )
    version = AgentVersion(
        id=version_id,
        agent_id=agent.id,
        number=number,
        kind=order.kind.value,
        callback_url=order.callback_url,
        house_name=order.house_name,
        signing_secret_sealed=sealed,
        max_batch=order.max_batch,
        max_in_flight=order.max_in_flight,
        wants_events=order.wants_events,
    )
    session.add(version)
    await session.flush()
    await session.refresh(version)
    return NewVersion(version, secret)


async def open_own_agent(session: AsyncSession, principal: Principal, agent_id: UUID) -> Agent:
    """The principal's own agent, locked, to add something to; an archived one takes nothing."""
    agent = await own_agent(session, principal, agent_id, for_update=True)
    _refuse_archived(agent)
    return agent


async def next_number(session: AsyncSession, agent: Agent, settings: Settings) -> int:
    """The number of the version that comes next to an agent that the caller has locked."""
    last = await session.scalar(
        select(func.max(AgentVersion.number)).where(AgentVersion.agent_id == agent.id)
    )
    if (last or 0) >= settings.versions_per_agent_max:
        raise QuotaExceeded(
            "too_many_versions",
            f"An agent has at most {settings.versions_per_agent_max} versions; make a new agent.",
        )
    return (last or 0) + 1


def check_order(order: VersionOrder, policy: EgressPolicy) -> None:
    """Raise `Invalid` for a version that cannot be made here."""
    if order.kind is VersionKind.HOSTED:
        raise Invalid(
            "upload_expected",
            "A hosted version is its upload: send the archive itself as the body, with Content-Type "
            "application/gzip, application/zip or application/octet-stream.",
        )
    if order.kind is VersionKind.HOUSE:
        if order.house_name not in HOUSE_NAMES:
            raise Invalid(
                "house_name_unknown",
                f"A house version names one of: {', '.join(HOUSE_NAMES)}.",
                house_names=list(HOUSE_NAMES),
            )
        if order.callback_url is not None:
            raise Invalid("callback_url_unexpected", "A house version has no callback_url.")
        return
    if order.house_name is not None:
        raise Invalid("house_name_unexpected", "An http version has no house_name.")
    if order.callback_url is None:
        raise Invalid("callback_url_missing", "An http version needs a callback_url.")
    if problems := policy.check_url(order.callback_url):
        raise Invalid(
            "callback_url_refused",
            f"The callback_url cannot be used: {'; '.join(problems)}.",
            field="callback_url",
        )


async def list_versions(
    session: AsyncSession, agent_id: UUID, *, before_number: int | None, limit: int
) -> list[AgentVersion]:
    """The versions of an agent that the caller found visible, newest first."""
    query = (
        select(AgentVersion)
        .where(AgentVersion.agent_id == agent_id)
        .order_by(AgentVersion.number.desc())
        .limit(limit)
    )
    if before_number is not None:
        query = query.where(AgentVersion.number < before_number)
    return list(await session.scalars(query))


async def visible_version(
    session: AsyncSession, principal: Principal, agent_id: UUID, version_id: UUID
) -> tuple[Agent, AgentVersion]:
    """A version with its agent, or `NotFound`."""
    agent = await visible_agent(session, principal, agent_id)
    version = await session.get(AgentVersion, version_id)
    if version is None or version.agent_id != agent.id:
        raise NotFound("version")
    return agent, version


async def retire_version(
    session: AsyncSession, principal: Principal, agent_id: UUID, version_id: UUID
) -> AgentVersion:
    """Retire a version: it is seated no more. To do it again changes nothing."""
    agent = await own_agent(session, principal, agent_id, for_update=True)
    version = await session.get(AgentVersion, version_id)
    if version is None or version.agent_id != agent.id:
        raise NotFound("version")
    if version.retired_at is None:
        await _refuse_seated(session, Seat.version_id == version.id, "version_seated", "version")
        version.retired_at = await session.scalar(select(func.now()))
        await session.flush()
    return version


async def open_signing_secret(version: AgentVersion, sealer: Sealer) -> str:
    """The ``whsec_`` secret of an ``http`` version, for the player that signs with it."""
    if version.signing_secret_sealed is None:
        raise ValueError(f"version {version.id} is of kind {version.kind} and signs nothing")
    secret = await sealer.open(
        version.signing_secret_sealed, purpose=SIGNING_SECRET_PURPOSE, owner=version.id.bytes
    )
    return secret.decode()


async def _refuse_seated(session: AsyncSession, which: Any, code: str, what: str) -> None:
    if await session.scalar(select(Seat.seat_no).where(which).limit(1)) is not None:
        raise Conflict(code, f"This {what} has a seat at a table; leave its seats first.")


def _refuse_archived(agent: Agent) -> None:
    if agent.archived_at is not None:
        raise Conflict("agent_archived", "This agent is archived; make a new one.")


async def _flush_name(session: AsyncSession) -> None:
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(
            "agent_name_taken", "You have an agent of this name (maybe archived); choose another."
        ) from None
