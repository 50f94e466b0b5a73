"""The sessions of one's logins: which there are, and how they end."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import Page, QueryShape, SessionId, Shown
from pokerarena.auth import sessions
from pokerarena.auth.models import Client, LoginSession
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.auth.sessions import EndReason

router = APIRouter(prefix="/sessions", tags=["sessions"], route_class=IdempotentRoute)


class SessionShown(Shown):
    """A login that goes on."""

    id: SessionId
    client: Client
    device: str
    second_factor: bool
    current: bool
    created_at: datetime
    refreshed_at: datetime
    idle_expires_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: LoginSession, caller: Principal) -> SessionShown:
        return cls(
            id=row.id,
            client=Client(row.client),
            device=row.device,
            second_factor=row.second_factor,
            current=row.id == caller.session_id,
            created_at=row.created_at,
            refreshed_at=row.refreshed_at,
            idle_expires_at=row.idle_expires_at,
            expires_at=row.expires_at,
        )


class WhichSessions(QueryShape):
    """Whether the session that asks goes on."""

    keep_current: bool = False


@router.get("")
async def list_sessions(
    caller: Annotated[Principal, needs(Permission.SESSIONS_MANAGE)],
    page: Annotated[PageQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[SessionShown]:
    """One's sessions that go on, newest first."""
    limit = page.bounded_limit(parts.settings)
    rows = await sessions.list_live(
        session, caller.known_id(), before=page.before_id("sessions"), limit=limit + 1
    )
    rows_shown, cursor = cut(rows, limit, "sessions", lambda row: row.id)
    return Page(items=[SessionShown.of(row, caller) for row in rows_shown], next_cursor=cursor)


@router.delete("", status_code=204)
async def end_sessions(
    caller: Annotated[Principal, needs(Permission.SESSIONS_MANAGE)],
    which: Annotated[WhichSessions, Query()],
    parts: PartsOf,
    session: Session,
) -> Response:
    """End all of one's sessions, or all others."""
    await sessions.end_all(
        session,
        caller.known_id(),
        but=caller.session_id if which.keep_current else None,
        reason=EndReason.REVOKED,
    )
    parts.callers.forget_once_committed(session)
    return Response(status_code=204)


@router.delete("/{session_id}", status_code=204)
async def end_session(
    caller: Annotated[Principal, needs(Permission.SESSIONS_MANAGE)],
    session_id: SessionId,
    parts: PartsOf,
    session: Session,
) -> Response:
    """End one session: neither its access token nor its refresh token stands for anybody."""
    await sessions.end(
        session, user_id=caller.known_id(), session_id=session_id, reason=EndReason.REVOKED
    )
    parts.callers.forget_once_committed(session)
    return Response(status_code=204)
