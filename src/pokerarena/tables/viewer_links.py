"""Viewer links: what one seat's owner sees, for whoever is given the link, until it ends.

Owns their text, their storage and their end. A link stands for a sitting (an agent in a seat, since
a moment) and dies with it: when the seat is left or the agent archived, when its owner's account is
closed, when it expires or is revoked. Its text is shown once and stored as a MAC. What a link shows
is decided where it is for everybody (`runs.viewers`, `engine.view`); this module must never log or
store a link's text, and never tells an unknown link from a dead one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.models import Agent
from pokerarena.auth import accounts, audit, tokens
from pokerarena.auth.audit import Event
from pokerarena.auth.models import User
from pokerarena.auth.permissions import LinkedSeat, Principal, TokenKind
from pokerarena.auth.tokens import LAST_USED_GRAIN, TokenMac
from pokerarena.errors import Forbidden, Invalid, NotFound, QuotaExceeded, Unauthenticated
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.settings import Settings
from pokerarena.tables.models import Seat, Table, ViewerLink
from pokerarena.tables.service import check_seat_no, visible_table

PREFIX: Final = "pkv_"


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link that was just made; `text` is shown once."""

    row: ViewerLink
    text: str


async def create_link(
    session: AsyncSession,
    mac: TokenMac,
    principal: Principal,
    *,
    table_id: UUID,
    seat_no: int,
    name: str,
    ttl_s: int,
    settings: Settings,
) -> NewLink:
    """Make a link to a seat in which the principal's own agent sits."""
    if not 1 <= ttl_s <= settings.viewer_link_max_ttl_s:
        raise Invalid(
            "expiry_out_of_range",
            f"A viewer link lives from 1 to {settings.viewer_link_max_ttl_s} seconds.",
            max_expires_in_s=settings.viewer_link_max_ttl_s,
        )
    seat = await _own_seat(session, principal, table_id, seat_no)
    owner_id = principal.known_id()
    await accounts.lock(session, owner_id)
    await session.execute(
        delete(ViewerLink).where(
            ViewerLink.owner_id == owner_id, ViewerLink.expires_at < func.now()
        )
    )
    alive = await session.scalar(
        select(func.count()).select_from(_alive().where(ViewerLink.owner_id == owner_id).subquery())
    )
    if (alive or 0) >= settings.viewer_links_per_user_max:
        raise QuotaExceeded(
            "too_many_viewer_links",
            f"You have {alive} viewer links, the most allowed; revoke one first.",
        )
    text = tokens.new_text(PREFIX)
    link = ViewerLink(
        id=new_id(),
        table_id=table_id,
        seat_no=seat_no,
        agent_id=seat.agent_id,
        seat_taken_at=seat.taken_at,
        owner_id=owner_id,
        name=name,
        pepper_id=mac.pepper_id,
        mac=mac.of(text),
        expires_at=func.now() + timedelta(seconds=ttl_s),
    )
    session.add(link)
    await session.flush()
    await session.refresh(link)
    _record(session, Event.VIEWER_LINK_CREATED, link)
    return NewLink(link, text)


async def _own_seat(
    session: AsyncSession, principal: Principal, table_id: UUID, seat_no: int
) -> Seat:
    check_seat_no(await visible_table(session, principal, table_id), seat_no)
    found = (
        await session.execute(
            select(Seat, Agent.owner_id)
            .join(Agent, Agent.id == Seat.agent_id)
            .where(Seat.table_id == table_id, Seat.seat_no == seat_no)
        )
    ).one_or_none()
    if found is None:
        raise NotFound("taken seat")
    seat, owner_id = found
    if not principal.owns(owner_id):
        raise Forbidden("not_seat_owner", "Only the owner of the agent in this seat may do this.")
    return seat


async def list_links(
    session: AsyncSession, owner_id: UUID, *, before: UUID | None, limit: int
) -> list[ViewerLink]:
    """The user's links that still work, newest first."""
    query = (
        _alive().where(ViewerLink.owner_id == owner_id).order_by(ViewerLink.id.desc()).limit(limit)
    )
    if before is not None:
        query = query.where(ViewerLink.id < before)
    return list(await session.scalars(query))


async def revoke_link(session: AsyncSession, *, owner_id: UUID, link_id: UUID) -> None:
    """Revoke one link of the user; to do it again changes nothing."""
    link = await session.get(ViewerLink, link_id, with_for_update=True)
    if link is None or link.owner_id != owner_id:
        raise NotFound("viewer link")
    if link.revoked_at is None:
        link.revoked_at = await session.scalar(select(func.now()))
        await session.flush()
        _record(session, Event.VIEWER_LINK_REVOKED, link)


class ViewerLinks:
    """Authenticates links for one process; implements `auth.callers.SeatLinks`."""

    def __init__(self, mac: TokenMac) -> None:
        self._mac = mac

    def looks_like_one(self, bearer_text: str) -> bool:
        return bearer_text.startswith(PREFIX)

    async def principal(self, session: AsyncSession, bearer_text: str) -> Principal:
        """Whom the link stands for: its seat. `Unauthenticated` for any other text."""
        if not tokens.is_well_formed(bearer_text, PREFIX):
            raise _invalid()
        principal = await _principal(session, ViewerLink.mac.in_(self._mac.candidates(bearer_text)))
        if self._mac.has_previous:
            await session.execute(
                update(ViewerLink)
                .where(
                    ViewerLink.id == principal.token_id,
                    ViewerLink.pepper_id != self._mac.pepper_id,
                )
                .values(mac=self._mac.of(bearer_text), pepper_id=self._mac.pepper_id)
            )
        return principal

    async def again(self, session: AsyncSession, link_id: UUID) -> Principal:
        """The link's principal as of now, for a stream."""
        return await _principal(session, ViewerLink.id == link_id)


async def _principal(session: AsyncSession, which: ColumnElement[bool]) -> Principal:
    link = await session.scalar(_alive().where(which))
    if link is None:
        raise _invalid()
    stale = ViewerLink.last_used_at.is_(None) | (
        ViewerLink.last_used_at < func.now() - LAST_USED_GRAIN
    )
    await session.execute(
        update(ViewerLink)
        .where(ViewerLink.id == link.id, stale)
        .values(last_used_at=func.now())
        .execution_options(synchronize_session=False)
    )
    return Principal(
        token_id=link.id,
        token_kind=TokenKind.LINK,
        seat=LinkedSeat(link.table_id, link.seat_no, link.agent_id, link.owner_id),
    )


def _alive() -> Select[ViewerLink]:
    """Links whose sitting still lasts: each way in which a link can die is a condition here."""
    return (
        select(ViewerLink)
        .join(
            Seat,
            (Seat.table_id == ViewerLink.table_id)
            & (Seat.seat_no == ViewerLink.seat_no)
            & (Seat.agent_id == ViewerLink.agent_id)
            & (Seat.taken_at == ViewerLink.seat_taken_at),
        )
        .join(Table, Table.id == ViewerLink.table_id)
        .join(Agent, (Agent.id == Seat.agent_id) & (Agent.owner_id == ViewerLink.owner_id))
        .join(User, User.id == ViewerLink.owner_id)
        .where(
            ViewerLink.revoked_at.is_(None),
            ViewerLink.expires_at > func.now(),
            Table.archived_at.is_(None),
            Agent.archived_at.is_(None),
            User.disabled_at.is_(None),
        )
    )


def _invalid() -> Unauthenticated:
    """The one answer to a link that is unknown, damaged, expired, revoked, or its seat's no more."""
    return Unauthenticated(
        "viewer_link_invalid", "This viewer link is not valid (any more): ask for a new one."
    )


def _record(session: AsyncSession, event: Event, link: ViewerLink) -> None:
    audit.record(
        session,
        event,
        subject=id_text(IdKind.VIEWER_LINK, link.id),
        table=id_text(IdKind.TABLE, link.table_id),
        seat_no=link.seat_no,
        agent=id_text(IdKind.AGENT, link.agent_id),
    )
