"""Uploaded agents: storing their packages, their versions, and the word whether they may play.

Owns the relation of packages and its bounds: a user's quota, and that a package goes with the last
version that needs it. It never unpacks anything; what an upload may be is `sandbox.archive`'s to say.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents import registry
from pokerarena.agents.models import Agent, AgentPackage, AgentVersion, CheckStatus, VersionKind
from pokerarena.auth import accounts, audit
from pokerarena.auth.audit import Event
from pokerarena.auth.permissions import Principal
from pokerarena.egress import approvals, rules
from pokerarena.errors import Conflict, QuotaExceeded
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.jobs import enqueue_check
from pokerarena.sandbox.archive import Package, pack
from pokerarena.settings import Settings

# What a version says of itself where the manifest promises more: hands in flight of one run.
IN_FLIGHT_MAX = 64


async def add_version(
    session: AsyncSession,
    principal: Principal,
    agent_id: UUID,
    package: Package,
    *,
    settings: Settings,
) -> AgentVersion:
    """Add a checked upload as the next version of the principal's own agent; its check is queued."""
    if package.manifest.egress:
        policy = await rules.current_policy(session, settings)
        approvals.check_declared(policy, package.manifest.egress)
    agent = await registry.open_own_agent(session, principal, agent_id)
    await accounts.lock(session, agent.owner_id)
    number = await registry.next_number(session, agent, settings)
    digest = bytes.fromhex(package.digest)
    packed = pack(package)
    used = await stored_bytes(session, agent.owner_id, without=digest)
    if used + len(packed) > settings.package_bytes_per_user_max:
        raise QuotaExceeded(
            "too_many_bytes",
            f"Your hosted versions have {used:,} bytes, and this one {len(packed):,}; at most "
            f"{settings.package_bytes_per_user_max:,} are kept. Retire versions that you need no "
            "more.",
        )
    # An update of what is there already locks it against `drop_unused`.
    await session.execute(
        insert(AgentPackage)
        .values(digest=digest, bytes=packed, size=len(packed))
        .on_conflict_do_update(index_elements=["digest"], set_={"size": len(packed)})
    )
    version = AgentVersion(
        id=new_id(),
        agent_id=agent.id,
        number=number,
        kind=VersionKind.HOSTED.value,
        max_in_flight=min(IN_FLIGHT_MAX, package.manifest.max_in_flight),
        wants_events=package.manifest.events,
        package_digest=digest,
        package_size=len(packed),
        manifest=package.manifest.as_dict(),
        check_status=CheckStatus.PENDING.value,
    )
    session.add(version)
    await session.flush()
    approvals.declare(session, version.id, package.manifest.egress)
    await enqueue_check(session, version.id)
    audit.record(
        session,
        Event.VERSION_UPLOADED,
        subject=id_text(IdKind.VERSION, version.id),
        agent=id_text(IdKind.AGENT, agent.id),
        package_sha256=package.digest,
        size_bytes=len(packed),
    )
    await session.flush()
    await session.refresh(version)
    return version


async def stored_bytes(session: AsyncSession, owner_id: UUID, *, without: bytes = b"") -> int:
    """What a user's packages weigh, each counted once; only those that a version still needs."""
    sizes = (
        select(AgentVersion.package_digest, func.max(AgentVersion.package_size).label("size"))
        .join(Agent, Agent.id == AgentVersion.agent_id)
        .where(Agent.owner_id == owner_id, _needed(), AgentVersion.package_digest != without)
        .group_by(AgentVersion.package_digest)
        .subquery()
    )
    return int(await session.scalar(select(func.coalesce(func.sum(sizes.c.size), 0))) or 0)


async def read_package(session: AsyncSession, digest: str) -> bytes | None:
    """The packed bytes, for an agent-host that does not have them yet."""
    package: bytes | None = await session.scalar(
        select(AgentPackage.bytes).where(AgentPackage.digest == bytes.fromhex(digest))
    )
    return package


async def drop_unused(session: AsyncSession, agent: Agent) -> int:
    """Forget the packages of an agent that no version needs any more; how many."""
    digests = await session.scalars(
        select(AgentVersion.package_digest)
        .where(AgentVersion.agent_id == agent.id, AgentVersion.package_digest.is_not(None))
        .distinct()
    )
    # Locked in one order, and looked at again by a statement of its own: an upload of the same
    # content at the same time either is seen by it, or stores the package anew.
    locked = await session.scalars(
        select(AgentPackage.digest)
        .where(AgentPackage.digest.in_(digests.all()))
        .order_by(AgentPackage.digest)
        .with_for_update()
    )
    found = locked.all()
    if not found:
        return 0
    needed = (
        select(AgentVersion.package_digest)
        .join(Agent, Agent.id == AgentVersion.agent_id)
        .where(_needed())
    )
    gone = await session.scalars(
        delete(AgentPackage)
        .where(AgentPackage.digest.in_(found), AgentPackage.digest.not_in(needed))
        .returning(AgentPackage.digest)
    )
    return len(gone.all())


async def settle_check(
    session: AsyncSession, version_id: UUID, status: CheckStatus, report: dict[str, Any]
) -> bool:
    """Store what a check found; False when another one was first."""
    version = await session.get(AgentVersion, version_id, with_for_update=True)
    if version is None or version.check_status != CheckStatus.PENDING.value:
        return False
    version.check_status = status.value
    version.check_report = report
    await session.flush()
    return True


def refuse_unchecked(version: AgentVersion) -> None:
    """Raise `Conflict` for a hosted version that may not play (yet)."""
    if version.check_status == CheckStatus.PENDING.value:
        raise Conflict(
            "version_unchecked",
            "This version is still being checked; seat it when its check_status is 'passed'.",
        )
    if version.check_status == CheckStatus.FAILED.value:
        raise Conflict("version_unfit", "This version failed its check; its check_report says why.")


def _needed() -> Any:
    return (
        AgentVersion.package_digest.is_not(None)
        & AgentVersion.retired_at.is_(None)
        & Agent.archived_at.is_(None)
    )
