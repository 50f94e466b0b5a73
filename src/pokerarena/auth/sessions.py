"""Sessions: begun by a login, kept by a rotating refresh token, ended by many things at once.

A refresh token is ``pkr_``, 22 characters that name its family (the session), 30 that are new with
each refresh, and 6 of their CRC-32. Only MACs under the pepper are stored. A token of the family
that is not the present one was used before: whoever sends it is a thief or was robbed, and the
session ends. This module must never log or store a token's text.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import accounts, audit
from pokerarena.auth.audit import Event
from pokerarena.auth.models import Client, LoginSession, User
from pokerarena.auth.tokens import TokenMac, is_well_formed, new_text
from pokerarena.db import Database
from pokerarena.errors import Conflict, NotFound, Unauthenticated
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.settings import Settings

PREFIX: Final = "pkr_"
FAMILY_CHARACTERS: Final = 22
ROTATING_CHARACTERS: Final = 30
# What an account may have of live sessions; the oldest ends when another begins.
SESSIONS_PER_USER_MAX = 50

_FAMILY_END: Final = len(PREFIX) + FAMILY_CHARACTERS


class EndReason(StrEnum):
    """Why a session ended before its time."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    # pragma: allowlist nextline secret
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a reason
    REUSE = "reuse"
    IDENTITY_UNLINKED = "identity_unlinked"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A session with the refresh token that counts from now on; its text is shown once."""

    row: LoginSession
    user: User
    refresh_text: str


def is_refresh_token(text: str) -> bool:
    """Whether a text can be a refresh token at all."""
    return is_well_formed(text, PREFIX, random=FAMILY_CHARACTERS + ROTATING_CHARACTERS)


async def begin(
    session: AsyncSession,
    mac: TokenMac,
    *,
    user: User,
    client: Client,
    device: str,
    second_factor: bool,
    settings: Settings,
    through: str = "password",
) -> Refreshed:
    """Begin the session of a login. The user's dead ones go; the oldest end.

    `through` is the id of the identity that logged in, where it was not a password.
    """
    await accounts.lock(session, user.id)
    mine = LoginSession.user_id == user.id
    await session.execute(
        delete(LoginSession).where(
            mine,
            LoginSession.ended_at.is_not(None) | (LoginSession.idle_expires_at <= func.now()),
        )
    )
    surplus = (
        select(LoginSession.id)
        .where(mine)
        .order_by(LoginSession.id.desc())
        .offset(SESSIONS_PER_USER_MAX - 1)
    )
    await session.execute(delete(LoginSession).where(LoginSession.id.in_(surplus)))
    text = new_text(PREFIX, random=FAMILY_CHARACTERS + ROTATING_CHARACTERS)
    row = LoginSession(
        id=new_id(),
        user_id=user.id,
        client=client.value,
        device=device,
        second_factor=second_factor,
        pepper_id=mac.pepper_id,
        family_mac=mac.of(text[:_FAMILY_END]),
        refresh_mac=mac.of(text),
        idle_expires_at=func.now() + timedelta(seconds=settings.session_idle_s),
        expires_at=func.now() + timedelta(seconds=settings.session_max_s),
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    audit.record(
        session,
        Event.LOGIN_SUCCEEDED,
        actor_id=user.id,
        credential_id=row.id,
        subject=id_text(IdKind.SESSION, row.id),
        client=client.value,
        second_factor=second_factor,
        through=through,
    )
    return Refreshed(row, user, text)


async def refresh(
    database: Database, mac: TokenMac, *, text: str, client: Client, settings: Settings
) -> Refreshed:
    """Exchange a refresh token for the next one.

    It has a transaction of its own, because the end of a family must stay also where the caller
    is refused. The row's lock makes one winner of two that come at once.
    """
    if not is_refresh_token(text):
        raise _invalid()
    async with database.unit_of_work() as session:
        outcome = await _refresh(session, mac, text, client, settings)
    if isinstance(outcome, Refreshed):
        return outcome
    raise outcome


async def _refresh(
    session: AsyncSession, mac: TokenMac, text: str, client: Client, settings: Settings
) -> Refreshed | Unauthenticated | Conflict:
    found = (
        await session.execute(
            select(LoginSession, User)
            .join(User, User.id == LoginSession.user_id)
            .where(LoginSession.family_mac.in_(mac.candidates(text[:_FAMILY_END])))
            .with_for_update(of=LoginSession)
        )
    ).one_or_none()
    if found is None:
        return _invalid()
    row, user = found
    # Not the transaction's time: it began before the lock was ours, perhaps before another refresh.
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    if row.ended_at is not None or row.idle_expires_at <= now or user.disabled_at is not None:
        return _invalid()
    if row.client != client.value:
        # A cookie in a program's hands, or a program's token in a browser: neither was given so.
        return _invalid()
    given = mac.of(text, row.pepper_id)
    if not hmac.compare_digest(given, row.refresh_mac):
        young = now - row.refreshed_at < timedelta(seconds=settings.refresh_grace_s)
        if young and row.previous_mac is not None and hmac.compare_digest(given, row.previous_mac):
            return Conflict(
                "refresh_superseded",
                "Another refresh with this token came first; use the token that it got.",
            )
        row.ended_at, row.end_reason = now, EndReason.REUSE.value
        await session.flush()
        audit.record(
            session,
            Event.SESSION_REUSE_DETECTED,
            subject=id_text(IdKind.SESSION, row.id),
            owner=id_text(IdKind.USER, user.id),
        )
        return _invalid()
    next_text = new_text(PREFIX, fixed=text[len(PREFIX) : _FAMILY_END], random=ROTATING_CHARACTERS)
    # All three under the present pepper: a session outlives its pepper by being refreshed.
    row.previous_mac, row.refresh_mac = mac.of(text), mac.of(next_text)
    row.family_mac, row.pepper_id = mac.of(text[:_FAMILY_END]), mac.pepper_id
    row.refreshed_at = now
    row.idle_expires_at = min(row.expires_at, now + timedelta(seconds=settings.session_idle_s))
    await session.flush()
    return Refreshed(row, user, next_text)


async def list_live(
    session: AsyncSession, user_id: UUID, *, before: UUID | None, limit: int
) -> list[LoginSession]:
    """The user's sessions that go on, newest first."""
    query = (
        select(LoginSession)
        .where(
            LoginSession.user_id == user_id,
            LoginSession.ended_at.is_(None),
            LoginSession.idle_expires_at > func.now(),
        )
        .order_by(LoginSession.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(LoginSession.id < before)
    return list(await session.scalars(query))


async def end(session: AsyncSession, *, user_id: UUID, session_id: UUID, reason: EndReason) -> None:
    """End one session of the user; to do it again changes nothing."""
    found = await session.scalar(
        select(LoginSession.id).where(
            LoginSession.id == session_id, LoginSession.user_id == user_id
        )
    )
    if found is None:
        raise NotFound("session")
    await session.execute(
        update(LoginSession)
        .where(LoginSession.id == session_id, LoginSession.ended_at.is_(None))
        .values(ended_at=func.now(), end_reason=reason.value)
    )
    audit.record(
        session,
        Event.SESSION_ENDED,
        subject=id_text(IdKind.SESSION, session_id),
        reason=reason.value,
    )


async def end_all(
    session: AsyncSession, user_id: UUID, *, but: UUID | None, reason: EndReason
) -> None:
    """End every session of the user, except the one that asks for it."""
    change = update(LoginSession).where(
        LoginSession.user_id == user_id, LoginSession.ended_at.is_(None)
    )
    if but is not None:
        change = change.where(LoginSession.id != but)
    await session.execute(change.values(ended_at=func.now(), end_reason=reason.value))
    audit.record(
        session,
        Event.SESSIONS_ENDED,
        subject=id_text(IdKind.USER, user_id),
        reason=reason.value,
    )


async def prove_second_factor(session: AsyncSession, session_id: UUID) -> None:
    """Remember that a session, begun without one, has shown a second factor since."""
    await session.execute(
        update(LoginSession).where(LoginSession.id == session_id).values(second_factor=True)
    )


def _invalid() -> Unauthenticated:
    return Unauthenticated("refresh_invalid", "This session is over: log in again.")
