"""Tables and seats: creating, changing, taking a seat, and who may see a table.

A table's row is the lock of everything at it: whoever changes its rules or seats, or starts a run,
holds it, so that a run's snapshot is never of a half-changed table. This module must never change
a table or a seat while a run is active there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.models import Agent, AgentVersion
from pokerarena.agents.packages import refuse_unchecked
from pokerarena.agents.registry import can_see as can_see_agent
from pokerarena.auth import accounts, audit
from pokerarena.auth.audit import Event
from pokerarena.auth.permissions import Principal
from pokerarena.errors import Conflict, Forbidden, Invalid, NotFound, QuotaExceeded
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.runs.models import ACTIVE_STATUSES, Run
from pokerarena.settings import Settings
from pokerarena.tables.models import (
    BustPolicy,
    Format,
    RevealPolicy,
    Seat,
    Table,
    Visibility,
)
from pokerarena.tables.rules import BlindLevel, TableRules, check_rules


async def create_table(
    session: AsyncSession, principal: Principal, rules: TableRules, *, settings: Settings
) -> Table:
    """Create a table of the principal's own."""
    check_rules(rules, settings)
    owner_id = principal.known_id()
    await accounts.lock(session, owner_id)
    count = await session.scalar(
        select(func.count()).where(Table.owner_id == owner_id, Table.archived_at.is_(None))
    )
    if (count or 0) >= settings.tables_per_user_max:
        raise QuotaExceeded(
            "too_many_tables", f"You have {count} tables, the most allowed; archive one first."
        )
    table = Table(id=new_id(), owner_id=owner_id, **_columns(rules))
    session.add(table)
    await session.flush()
    await session.refresh(table)
    return table


async def change_table(
    session: AsyncSession,
    principal: Principal,
    table_id: UUID,
    changes: dict[str, Any],
    *,
    settings: Settings,
) -> Table:
    """Change what is given of the principal's own table, between runs."""
    table = await own_table(session, principal, table_id, for_update=True)
    _refuse_archived(table)
    await refuse_active_run(session, table.id)
    rules = _rules_of(table, changes)
    check_rules(rules, settings)
    if rules.seat_count < table.seat_count:
        beyond = await session.scalar(
            select(func.max(Seat.seat_no)).where(Seat.table_id == table.id)
        )
        if beyond is not None and beyond > rules.seat_count:
            raise Conflict(
                "seats_in_use", f"Seat {beyond} is taken; empty it before the table gets smaller."
            )
    before = (table.visibility, table.reveal_policy)
    for name, value in _columns(rules).items():
        setattr(table, name, value)
    await session.flush()
    if before != (table.visibility, table.reveal_policy):
        audit.record(
            session,
            Event.TABLE_EXPOSURE_CHANGED,
            subject=id_text(IdKind.TABLE, table.id),
            visibility=table.visibility,
            reveal_policy=table.reveal_policy,
        )
    return table


async def archive_table(session: AsyncSession, principal: Principal, table_id: UUID) -> Table:
    """Put a table away: its seats are emptied, and nothing is played there any more."""
    table = await own_table(session, principal, table_id, for_update=True)
    if table.archived_at is None:
        await refuse_active_run(session, table.id)
        await session.execute(delete(Seat).where(Seat.table_id == table.id))
        table.archived_at = await session.scalar(select(func.now()))
        await session.flush()
    return table


def _columns(rules: TableRules) -> dict[str, Any]:
    columns = asdict(rules)
    columns["format"] = rules.format.value
    columns["bust_policy"] = rules.bust_policy.value
    columns["visibility"] = rules.visibility.value
    columns["reveal_policy"] = rules.reveal_policy.value
    columns["blind_schedule"] = (
        None if rules.blind_schedule is None else [asdict(level) for level in rules.blind_schedule]
    )
    return columns


def _rules_of(table: Table, changes: dict[str, Any]) -> TableRules:
    """The table's rules with some changed; a schedule goes when the format leaves freezeout."""
    present: dict[str, Any] = {
        "name": table.name,
        "seat_count": table.seat_count,
        "small_blind": table.small_blind,
        "big_blind": table.big_blind,
        "starting_stack": table.starting_stack,
        "ante": table.ante,
        "ante_kind": table.ante_kind,
        "format": Format(table.format),
        "bust_policy": BustPolicy(table.bust_policy),
        "visibility": Visibility(table.visibility),
        "reveal_policy": RevealPolicy(table.reveal_policy),
        "blind_schedule": (
            None
            if table.blind_schedule is None
            else tuple(BlindLevel(**level) for level in table.blind_schedule)
        ),
        "action_time_ms": table.action_time_ms,
        "time_bank_ms": table.time_bank_ms,
        "sandbox_runtime": table.sandbox_runtime,
    }
    if changes.get("format", Format.FREEZEOUT) is not Format.FREEZEOUT:
        present["blind_schedule"] = None
    return TableRules(**present | changes)


async def can_see(session: AsyncSession, principal: Principal, table: Table) -> bool:
    """Whether the principal may know that the table exists."""
    if principal.seat is not None:
        return principal.seat.table_id == table.id
    if table.visibility != Visibility.PRIVATE.value:
        return True
    if principal.user_id is None:
        return False
    if principal.owns(table.owner_id) or principal.is_operator:
        return True
    seated = exists().where(
        Seat.table_id == table.id,
        Seat.agent_id == Agent.id,
        Agent.owner_id == principal.user_id,
    )
    return bool(await session.scalar(select(seated)))


async def visible_table(session: AsyncSession, principal: Principal, table_id: UUID) -> Table:
    """The table, or `NotFound` also where the principal may not know of it."""
    table = await session.get(Table, table_id)
    if table is None or not await can_see(session, principal, table):
        raise NotFound("table")
    return table


async def own_table(
    session: AsyncSession, principal: Principal, table_id: UUID, *, for_update: bool = False
) -> Table:
    """The principal's own table; `Forbidden` where it is another's but visible."""
    table = await session.get(Table, table_id, with_for_update=for_update or None)
    if table is None or not await can_see(session, principal, table):
        raise NotFound("table")
    if not principal.owns(table.owner_id):
        raise Forbidden("not_table_owner", "Only the table's owner may do this.")
    return table


async def list_tables(
    session: AsyncSession, *, owner_id: UUID | None, before: UUID | None, limit: int
) -> list[Table]:
    """One owner's tables, or else all public ones; newest first, without archived ones."""
    query = select(Table).where(Table.archived_at.is_(None)).order_by(Table.id.desc()).limit(limit)
    if owner_id is not None:
        query = query.where(Table.owner_id == owner_id)
    else:
        query = query.where(Table.visibility == Visibility.PUBLIC.value)
    if before is not None:
        query = query.where(Table.id < before)
    return list(await session.scalars(query))


@dataclass(frozen=True, slots=True)
class TakenSeat:
    """A seat with the names of who sits there."""

    seat: Seat
    agent: Agent
    version: AgentVersion


async def list_seats(session: AsyncSession, table_id: UUID) -> list[TakenSeat]:
    """The taken seats of a table that the caller found visible, by number."""
    rows = await session.execute(
        select(Seat, Agent, AgentVersion)
        .join(Agent, Agent.id == Seat.agent_id)
        .join(AgentVersion, AgentVersion.id == Seat.version_id)
        .where(Seat.table_id == table_id)
        .order_by(Seat.seat_no)
    )
    return [TakenSeat(*row) for row in rows]


async def take_seat(
    session: AsyncSession,
    principal: Principal,
    *,
    table_id: UUID,
    seat_no: int,
    agent_id: UUID,
    version_id: UUID,
) -> TakenSeat:
    """Seat a version of the principal's own agent. An agent in its own seat may change version."""
    table = await _locked_visible_table(session, principal, table_id)
    _refuse_archived(table)
    check_seat_no(table, seat_no)
    agent, version = await _own_version(session, principal, agent_id, version_id)
    await refuse_active_run(session, table.id)
    present = await session.get(Seat, (table.id, seat_no), populate_existing=True)
    if present is not None and present.agent_id != agent.id:
        raise Conflict("seat_taken", f"Seat {seat_no} is taken; choose another, or empty it first.")
    await session.execute(
        insert(Seat)
        .values(
            table_id=table.id,
            seat_no=seat_no,
            agent_id=agent.id,
            version_id=version.id,
            taken_by=principal.known_id(),
        )
        .on_conflict_do_update(
            index_elements=[Seat.table_id, Seat.seat_no],
            set_={"version_id": version.id, "taken_by": principal.known_id()},
        )
    )
    seat = await session.get(Seat, (table.id, seat_no), populate_existing=True)
    if seat is None:
        raise NotFound("seat")
    _record_seat(session, Event.SEAT_TAKEN, table.id, seat)
    return TakenSeat(seat, agent, version)


async def leave_seat(
    session: AsyncSession, principal: Principal, *, table_id: UUID, seat_no: int
) -> None:
    """Empty a seat: its agent's owner or the table's owner may. An empty seat stays empty."""
    table = await _locked_visible_table(session, principal, table_id)
    check_seat_no(table, seat_no)
    seat = await session.get(Seat, (table.id, seat_no))
    if seat is None:
        return
    agent = await session.get(Agent, seat.agent_id)
    if not (principal.owns(table.owner_id) or (agent and principal.owns(agent.owner_id))):
        raise Forbidden(
            "not_seat_owner",
            "Only the owner of the agent in this seat or of the table may do this.",
        )
    await refuse_active_run(session, table.id)
    await session.delete(seat)
    await session.flush()
    _record_seat(session, Event.SEAT_LEFT, table.id, seat)


def _record_seat(session: AsyncSession, event: Event, table_id: UUID, seat: Seat) -> None:
    audit.record(
        session,
        event,
        subject=id_text(IdKind.TABLE, table_id),
        seat_no=seat.seat_no,
        agent=id_text(IdKind.AGENT, seat.agent_id),
    )


async def refuse_active_run(session: AsyncSession, table_id: UUID) -> None:
    """Raise `Conflict` while a run is queued or running at the table."""
    active = exists().where(
        Run.table_id == table_id, Run.status.in_([status.value for status in ACTIVE_STATUSES])
    )
    if await session.scalar(select(active)):
        raise Conflict(
            "run_active", "A run is active at this table: wait for its end, or stop it first."
        )


async def _locked_visible_table(
    session: AsyncSession, principal: Principal, table_id: UUID
) -> Table:
    table = await session.get(Table, table_id, with_for_update=True)
    if table is None or not await can_see(session, principal, table):
        raise NotFound("table")
    return table


async def _own_version(
    session: AsyncSession, principal: Principal, agent_id: UUID, version_id: UUID
) -> tuple[Agent, AgentVersion]:
    agent = await session.get(Agent, agent_id, with_for_update={"read": True, "key_share": True})
    if agent is None or not can_see_agent(principal, agent):
        raise NotFound("agent")
    if not principal.owns(agent.owner_id):
        raise Forbidden("not_agent_owner", "Only the agent's owner may seat it.")
    if agent.archived_at is not None:
        raise Conflict("agent_archived", "This agent is archived; seat another.")
    version = await session.get(AgentVersion, version_id)
    if version is None or version.agent_id != agent.id:
        # The same words for a version of somebody else's agent: nothing is told about it.
        raise Invalid(
            "version_not_of_agent",
            "This agent has no such version; list them at /v1/agents/{id}/versions.",
            field="version_id",
        )
    if version.retired_at is not None:
        raise Conflict("version_retired", "This version is retired; seat another.")
    refuse_unchecked(version)
    return agent, version


def check_seat_no(table: Table, seat_no: int) -> None:
    """Raise `Invalid` for a seat that the table does not have."""
    if not 1 <= seat_no <= table.seat_count:
        raise Invalid(
            "seat_out_of_range", f"This table has seats 1 to {table.seat_count}.", field="seat_no"
        )


def _refuse_archived(table: Table) -> None:
    if table.archived_at is not None:
        raise Conflict("table_archived", "This table is archived; make a new one.")
