"""Tables and their seats."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import (
    INT32_MAX,
    AgentId,
    Blind,
    Chips,
    OrKeep,
    Page,
    RequestShape,
    Shown,
    TableId,
    TableName,
    UserId,
    VersionId,
)
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.errors import Unauthenticated
from pokerarena.settings_agents import SandboxRuntime
from pokerarena.tables import rules, service
from pokerarena.tables.models import BustPolicy, Format, RevealPolicy, Table, Visibility

router = APIRouter(prefix="/tables", tags=["tables"], route_class=IdempotentRoute)

AnteKind = Literal["each", "big_blind"]
SeatCount = Annotated[int, Field(ge=2, le=10)]
_MAY_BE_TAKEN_AWAY = ("blind_schedule", "sandbox_runtime")
DurationMs = Annotated[int, Field(ge=0, le=INT32_MAX)]


class BlindLevel(RequestShape):
    """These blinds for this many hands; the last level stays."""

    hands: Annotated[int, Field(ge=1, le=rules.LEVEL_HANDS_MAX)]
    small_blind: Blind
    big_blind: Blind
    ante: Chips = 0


Schedule = Annotated[list[BlindLevel], Field(min_length=1, max_length=rules.LEVELS_MAX)]


class NewTable(RequestShape):
    """A table to create."""

    name: TableName
    seat_count: SeatCount = 6
    small_blind: Blind = 50
    big_blind: Blind = 100
    ante: Chips = 0
    ante_kind: AnteKind = "each"
    starting_stack: Blind = 10_000
    format: Annotated[Format, Field(strict=False)] = Format.CASH
    bust_policy: Annotated[BustPolicy, Field(strict=False)] = BustPolicy.REBUY
    visibility: Annotated[Visibility, Field(strict=False)] = Visibility.PRIVATE
    reveal_policy: Annotated[RevealPolicy, Field(strict=False)] = RevealPolicy.SHOWDOWN
    blind_schedule: Schedule | None = None
    action_time_ms: DurationMs = 2_000
    time_bank_ms: DurationMs = 0
    sandbox_runtime: SandboxRuntime | None = None


class TableChange(RequestShape):
    """What to change of a table between runs; what is left out stays."""

    name: OrKeep[TableName] = None
    seat_count: OrKeep[SeatCount] = None
    small_blind: OrKeep[Blind] = None
    big_blind: OrKeep[Blind] = None
    ante: OrKeep[Chips] = None
    ante_kind: OrKeep[AnteKind] = None
    starting_stack: OrKeep[Blind] = None
    format: OrKeep[Annotated[Format, Field(strict=False)]] = None
    bust_policy: OrKeep[Annotated[BustPolicy, Field(strict=False)]] = None
    visibility: OrKeep[Annotated[Visibility, Field(strict=False)]] = None
    reveal_policy: OrKeep[Annotated[RevealPolicy, Field(strict=False)]] = None
    blind_schedule: Schedule | None = None
    action_time_ms: OrKeep[DurationMs] = None
    time_bank_ms: OrKeep[DurationMs] = None
    sandbox_runtime: SandboxRuntime | None = None


class TableShown(Shown):
    """A table."""

    id: TableId
    owner_id: UserId
    name: str
    seat_count: int
    small_blind: int
    big_blind: int
    ante: int
    ante_kind: AnteKind
    starting_stack: int
    format: Format
    bust_policy: BustPolicy
    visibility: Visibility
    reveal_policy: RevealPolicy
    blind_schedule: list[dict[str, int]] | None
    action_time_ms: int
    time_bank_ms: int
    sandbox_runtime: SandboxRuntime | None
    created_at: datetime
    archived_at: datetime | None

    @classmethod
    def of(cls, table: Table) -> TableShown:
        return cls.model_validate(table, from_attributes=True)


class SeatOrder(RequestShape):
    """Who takes the seat."""

    agent_id: AgentId
    version_id: VersionId


class SeatShown(Shown):
    """A taken seat. Who plays is public to those who see the table."""

    seat_no: int
    agent_id: AgentId
    agent_name: str
    owner_id: UserId
    version_id: VersionId
    version_number: int
    taken_at: datetime

    @classmethod
    def of(cls, taken: service.TakenSeat) -> SeatShown:
        return cls(
            seat_no=taken.seat.seat_no,
            agent_id=taken.agent.id,
            agent_name=taken.agent.name,
            owner_id=taken.agent.owner_id,
            version_id=taken.version.id,
            version_number=taken.version.number,
            taken_at=taken.seat.taken_at,
        )


class SeatsShown(Shown):
    """The taken seats of a table, by number."""

    items: list[SeatShown]


class TablesQuery(PageQuery):
    """Which tables to list."""

    mine: Annotated[bool, Field(description="one's own tables instead of public ones")] = False


@router.get("")
async def list_tables(
    caller: Annotated[Principal, needs(Permission.TABLES_LIST)],
    page: Annotated[TablesQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[TableShown]:
    """Public tables, or with ``mine`` one's own; newest first."""
    if page.mine and caller.user_id is None:
        raise Unauthenticated("authentication_required", "Send a token to list your own tables.")
    limit = page.bounded_limit(parts.settings)
    rows = await service.list_tables(
        session,
        owner_id=caller.user_id if page.mine else None,
        before=page.before_id("tables"),
        limit=limit + 1,
    )
    rows_shown, cursor = cut(rows, limit, "tables", lambda table: table.id)
    return Page(items=[TableShown.of(table) for table in rows_shown], next_cursor=cursor)


@router.post("", status_code=201)
async def create_table(
    caller: Annotated[Principal, needs(Permission.TABLE_CREATE)],
    body: NewTable,
    parts: PartsOf,
    session: Session,
) -> TableShown:
    """Create a table of one's own."""
    values = {name: getattr(body, name) for name in NewTable.model_fields}
    values["blind_schedule"] = _levels(body.blind_schedule)
    table = await service.create_table(
        session, caller, rules.TableRules(**values), settings=parts.settings
    )
    return TableShown.of(table)


def _levels(schedule: list[BlindLevel] | None) -> tuple[rules.BlindLevel, ...] | None:
    if schedule is None:
        return None
    return tuple(rules.BlindLevel(**level.model_dump()) for level in schedule)


@router.get("/{table_id}")
async def read_table(
    caller: Annotated[Principal, needs(Permission.TABLE_READ)], table_id: TableId, session: Session
) -> TableShown:
    """One table."""
    return TableShown.of(await service.visible_table(session, caller, table_id))


@router.patch("/{table_id}")
async def change_table(
    caller: Annotated[Principal, needs(Permission.TABLE_CHANGE)],
    table_id: TableId,
    body: TableChange,
    parts: PartsOf,
    session: Session,
) -> TableShown:
    """Change one's own table, while no run is active there."""
    changes = {
        name: getattr(body, name)
        for name in body.model_fields_set
        if getattr(body, name) is not None or name in _MAY_BE_TAKEN_AWAY
    }
    if "blind_schedule" in changes:
        changes["blind_schedule"] = _levels(body.blind_schedule)
    table = await service.change_table(session, caller, table_id, changes, settings=parts.settings)
    return TableShown.of(table)


@router.post("/{table_id}/archive")
async def archive_table(
    caller: Annotated[Principal, needs(Permission.TABLE_CHANGE)],
    table_id: TableId,
    session: Session,
) -> TableShown:
    """Put a table away: its seats are emptied, its runs and hands stay readable."""
    return TableShown.of(await service.archive_table(session, caller, table_id))


@router.get("/{table_id}/seats")
async def list_seats(
    caller: Annotated[Principal, needs(Permission.TABLE_READ)], table_id: TableId, session: Session
) -> SeatsShown:
    """Who sits where."""
    table = await service.visible_table(session, caller, table_id)
    taken = await service.list_seats(session, table.id)
    return SeatsShown(items=[SeatShown.of(one) for one in taken])


@router.put("/{table_id}/seats/{seat_no}")
async def take_seat(
    caller: Annotated[Principal, needs(Permission.SEAT_TAKE)],
    table_id: TableId,
    seat_no: int,
    body: SeatOrder,
    session: Session,
) -> SeatShown:
    """Seat one's own agent; to do it again changes nothing, or the agent's version."""
    taken = await service.take_seat(
        session,
        caller,
        table_id=table_id,
        seat_no=seat_no,
        agent_id=body.agent_id,
        version_id=body.version_id,
    )
    return SeatShown.of(taken)


@router.delete("/{table_id}/seats/{seat_no}", status_code=204)
async def leave_seat(
    caller: Annotated[Principal, needs(Permission.SEAT_LEAVE)],
    table_id: TableId,
    seat_no: int,
    session: Session,
) -> Response:
    """Empty a seat: one's own agent's, or any at one's own table."""
    await service.leave_seat(session, caller, table_id=table_id, seat_no=seat_no)
    return Response(status_code=204)
