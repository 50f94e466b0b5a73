"""Which hosts a hosted version may reach: what its manifest declares, and what operators decide.

Owns the relation of declared hosts. A host that nobody has decided on is as good as denied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.models import AgentVersion
from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.egress.models import EgressState, VersionEgress
from pokerarena.egress.policy import EgressDenied, EgressPolicy
from pokerarena.egress.rules import raise_revision
from pokerarena.errors import Conflict, Invalid, NotFound
from pokerarena.ids import IdKind, id_text

Destination = tuple[str, int]


def parse_destination(text: str) -> Destination:
    """``host:port`` taken apart; one that no manifest can declare is simply not found."""
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and len(port) <= 5):
        raise Invalid("destination_invalid", "A destination is written as host:port.")
    return host, int(port)


def check_declared(policy: EgressPolicy, declared: Iterable[str]) -> None:
    """Raise `Invalid` for a manifest with a host that the operator's lists do not allow."""
    for text in declared:
        try:
            policy.check_host(*parse_destination(text))
        except EgressDenied as denied:
            raise Invalid(
                "egress_host_refused",
                f"The manifest's egress {text!r} cannot be approved here: {denied}.",
                field="egress",
            ) from None


def declare(session: AsyncSession, version_id: UUID, declared: Iterable[str]) -> None:
    """Note what a new version declares; an operator decides on each host."""
    for host, port in sorted({parse_destination(text) for text in declared}):
        session.add(
            VersionEgress(
                version_id=version_id, host=host, port=port, state=EgressState.PENDING.value
            )
        )


async def of_version(session: AsyncSession, version_id: UUID) -> list[VersionEgress]:
    """Every host that a version declares, with what became of it."""
    return list(
        await session.scalars(
            select(VersionEgress)
            .where(VersionEgress.version_id == version_id)
            .order_by(VersionEgress.host, VersionEgress.port)
        )
    )


async def approved(
    session: AsyncSession, version_ids: Collection[UUID]
) -> dict[UUID, frozenset[Destination]]:
    """The approved hosts of some versions; those without any are left out."""
    if not version_ids:
        return {}
    rows = await session.execute(
        select(VersionEgress.version_id, VersionEgress.host, VersionEgress.port).where(
            VersionEgress.version_id.in_(version_ids),
            VersionEgress.state == EgressState.APPROVED.value,
        )
    )
    found: dict[UUID, set[Destination]] = {}
    for version_id, host, port in rows:
        found.setdefault(version_id, set()).add((host, port))
    return {version_id: frozenset(hosts) for version_id, hosts in found.items()}


async def list_requests(
    session: AsyncSession, *, state: EgressState | None, before: UUID | None, limit: int
) -> list[tuple[AgentVersion, list[VersionEgress]]]:
    """Versions that are not retired and declare hosts (in this state), newest first."""
    wanted = select(VersionEgress.version_id)
    if state is not None:
        wanted = wanted.where(VersionEgress.state == state.value)
    query = (
        select(AgentVersion)
        .where(AgentVersion.id.in_(wanted), AgentVersion.retired_at.is_(None))
        .order_by(AgentVersion.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(AgentVersion.id < before)
    versions = list(await session.scalars(query))
    hosts: dict[UUID, list[VersionEgress]] = {}
    rows = await session.scalars(
        select(VersionEgress)
        .where(VersionEgress.version_id.in_([version.id for version in versions]))
        .order_by(VersionEgress.host, VersionEgress.port)
    )
    for row in rows:
        hosts.setdefault(row.version_id, []).append(row)
    return [(version, hosts[version.id]) for version in versions]


async def decide(
    session: AsyncSession,
    version_id: UUID,
    destination: str,
    *,
    approve: bool,
    policy: EgressPolicy,
    by: UUID | None,
) -> list[VersionEgress]:
    """Approve or deny one host of one version; to do it again changes nothing."""
    host, port = parse_destination(destination)
    await raise_revision(session)
    row = await session.get(VersionEgress, (version_id, host, port))
    if row is None:
        raise NotFound("declared host")
    wanted = EgressState.APPROVED if approve else EgressState.DENIED
    if approve:
        try:
            policy.check_host(host, port)
        except EgressDenied as denied:
            raise Conflict(
                "egress_host_refused", f"{host}:{port} cannot be approved: {denied}."
            ) from None
    if row.state != wanted.value:
        row.state = wanted.value
        row.decided_at = await session.scalar(select(func.now()))
        row.decided_by = by
        audit.record(
            session,
            Event.EGRESS_APPROVED if approve else Event.EGRESS_DENIED,
            subject=id_text(IdKind.VERSION, version_id),
            destination=f"{host}:{port}",
        )
        await session.flush()
    return await of_version(session, version_id)
