"""Viewer links: made for a seat, listed, revoked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import (
    AgentId,
    Page,
    RequestShape,
    Shown,
    TableId,
    TokenName,
    ViewerLinkId,
)
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.tables import viewer_links
from pokerarena.tables.models import ViewerLink

of_seat = APIRouter(
    prefix="/tables/{table_id}/seats/{seat_no}/viewer-links",
    tags=["viewer links"],
    route_class=IdempotentRoute,
)
router = APIRouter(prefix="/viewer-links", tags=["viewer links"], route_class=IdempotentRoute)

EXPIRES_IN_MAX_S = 366 * 86_400


class NewViewerLink(RequestShape):
    """A viewer link: whom it is for, and for how long."""

    name: TokenName
    expires_in_s: Annotated[int, Field(ge=1, le=EXPIRES_IN_MAX_S)]


class ViewerLinkShown(Shown):
    """A viewer link without its text, which is stored nowhere."""

    id: ViewerLinkId
    name: str
    table_id: TableId
    seat_no: int
    agent_id: AgentId
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None

    @classmethod
    def of(cls, link: ViewerLink) -> ViewerLinkShown:
        return cls.model_validate(link, from_attributes=True)


class CreatedViewerLink(ViewerLinkShown):
    """A viewer link with its text, shown this once. It goes into the Authorization header."""

    token: str


@of_seat.post("", status_code=201)
async def create_viewer_link(
    caller: Annotated[Principal, needs(Permission.VIEWER_LINKS_MANAGE)],
    table_id: TableId,
    seat_no: int,
    body: NewViewerLink,
    parts: PartsOf,
    session: Session,
) -> CreatedViewerLink:
    """Make a link that shows what the owner of this seat sees; only that owner may."""
    made = await viewer_links.create_link(
        session,
        parts.token_mac,
        caller,
        table_id=table_id,
        seat_no=seat_no,
        name=body.name,
        ttl_s=body.expires_in_s,
        settings=parts.settings,
    )
    shown = ViewerLinkShown.of(made.row)
    return CreatedViewerLink(token=made.text, **dict(shown))


@router.get("")
async def list_viewer_links(
    caller: Annotated[Principal, needs(Permission.VIEWER_LINKS_MANAGE)],
    page: Annotated[PageQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[ViewerLinkShown]:
    """One's viewer links that still work, newest first."""
    limit = page.bounded_limit(parts.settings)
    rows = await viewer_links.list_links(
        session, caller.known_id(), before=page.before_id("viewer-links"), limit=limit + 1
    )
    rows_shown, cursor = cut(rows, limit, "viewer-links", lambda link: link.id)
    return Page(items=[ViewerLinkShown.of(link) for link in rows_shown], next_cursor=cursor)


@router.delete("/{link_id}", status_code=204)
async def revoke_viewer_link(
    caller: Annotated[Principal, needs(Permission.VIEWER_LINKS_MANAGE)],
    link_id: ViewerLinkId,
    session: Session,
) -> Response:
    """Revoke a link. The next request with it is refused; an open stream ends at its next look."""
    await viewer_links.revoke_link(session, owner_id=caller.known_id(), link_id=link_id)
    return Response(status_code=204)
