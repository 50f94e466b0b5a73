"""A table now: its state at one moment, and its stream of moments."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.api.access import needs
from pokerarena.api.context import Parts, PartsOf, Session
from pokerarena.api.hand_shapes import LiveHandShown
from pokerarena.api.routes.tables import SeatShown, TableShown
from pokerarena.api.run_shapes import RunShown
from pokerarena.api.shapes import Shown, TableId
from pokerarena.api.stream import EventStream
from pokerarena.api.watching import live_hand_shown, watching
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.engine.view import see
from pokerarena.errors import NotFound
from pokerarena.history import read
from pokerarena.runs.models import ACTIVE_STATUSES
from pokerarena.runs.viewers import SeenRun, current_run_id, see_run
from pokerarena.tables import service

router = APIRouter(prefix="/tables/{table_id}", tags=["tables"])


class StateShown(Shown):
    """A table now: who sits there, its run, and the hand in play or else the last one."""

    table: TableShown
    seats: list[SeatShown]
    run: RunShown | None
    hand: LiveHandShown | None


@router.get("/state")
async def read_state(
    caller: Annotated[Principal, needs(Permission.TABLE_READ)],
    table_id: TableId,
    parts: PartsOf,
    session: Session,
) -> StateShown:
    """The table as the caller may see it now. Asking again and again keeps it fresh."""
    table = await service.visible_table(session, caller, table_id)
    taken = await service.list_seats(session, table.id)
    seen = await _seen_current_run(session, caller, table.id)
    return StateShown(
        table=TableShown.of(table),
        seats=[SeatShown.of(one) for one in taken],
        run=(
            None
            if seen is None
            else RunShown.of_seen(seen, inside=caller.owns(table.owner_id) or caller.is_operator)
        ),
        hand=None if seen is None else await _latest_hand(parts, session, seen),
    )


async def _seen_current_run(
    session: AsyncSession, caller: Principal, table_id: UUID
) -> SeenRun | None:
    run_id = await current_run_id(session, table_id)
    if run_id is None:
        return None
    try:
        return await see_run(session, caller, run_id)
    except NotFound:
        return None


async def _latest_hand(parts: Parts, session: AsyncSession, seen: SeenRun) -> LiveHandShown | None:
    run = seen.run
    if run.status in ACTIVE_STATUSES:
        watched = parts.hub.touch(run.table_id)
        live = watched.hand if watched is not None else None
        if live is not None and live.run_id == run.id and live.hand_no > run.hands_done:
            return live_hand_shown(live, seen.sight)
    if run.hands_done == 0:
        return None
    last = await read.list_hands(session, run.id, run.hands_done - 1, 1)
    stored = await read.load_hand(session, last[0].id) if last else None
    if stored is None:
        return None
    return LiveHandShown.of(
        see(stored.final(), seen.sight.viewer),
        table_id=run.table_id,
        run_id=run.id,
        hand_id=stored.id,
        hand_no=stored.hand_no,
    )


# What one event of the stream is once its lines are read.
_EVENT = {
    "type": "object",
    "title": "LiveEvent",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["run", "hand", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


@router.get(
    "/live",
    status_code=200,
    response_class=EventStream,
    responses={
        200: {
            "description": "Events `run`, `hand` and `end`, as they happen.",
            "content": {EventStream.media_type: {"schema": _EVENT}},
        }
    },
)
async def watch_table(
    caller: Annotated[Principal, needs(Permission.TABLE_READ)],
    table_id: TableId,
    parts: PartsOf,
    session: Session,
) -> EventStream:
    """The table as server-sent events: `run` with counters, `hand` with the caller's view."""
    table = await service.visible_table(session, caller, table_id)
    return EventStream(
        watching(parts, caller, table.id), send_timeout_s=parts.settings.stream_send_timeout_s
    )
