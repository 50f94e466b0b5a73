"""Logging in: the order in which an attempt is counted, judged, and becomes a session.

Every refusal of a wrong name, a wrong password or a closed account is the same answer after the
same work. This module must never hold a connection while a password is hashed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import accounts, audit, second_factor, sessions, throttle
from pokerarena.auth.audit import Event
from pokerarena.auth.models import Client, LoginSession, User
from pokerarena.auth.passwords import PasswordHasher
from pokerarena.auth.sessions import Refreshed
from pokerarena.auth.tokens import TokenMac
from pokerarena.db import Database
from pokerarena.errors import Forbidden, Unauthenticated
from pokerarena.ids import IdKind, id_text
from pokerarena.sealing import Sealer
from pokerarena.settings import Settings

WRONG_CODE: Final = "second_factor_wrong"


@dataclass(frozen=True, slots=True)
class Door:
    """What judging an attempt takes."""

    settings: Settings
    database: Database
    hasher: PasswordHasher
    token_mac: TokenMac
    sealer: Sealer


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody says at the door, and from where."""

    username: str
    password: str
    code: str | None
    address: str


async def log_in(door: Door, said: Credentials, *, client: Client, device: str) -> Refreshed:
    """The session of a login; `Unauthenticated` or `Throttled` for everything else."""
    settings, database = door.settings, door.database
    attempt = throttle.attempt_of(
        door.token_mac, settings, account=said.username, address=said.address
    )
    await throttle.begin(database, attempt, window_s=settings.login_window_s)
    try:
        user = await accounts.authenticate(
            database, door.hasher, username=said.username, password=said.password
        )
    except Unauthenticated:
        await _note_failure(database, said)
        raise
    try:
        return await _begin(door, said, user, attempt, client=client, device=device)
    except Unauthenticated as refused:
        if refused.code == WRONG_CODE:
            await note_wrong_code(door, user.id, address=said.address)
        raise


async def _begin(
    door: Door,
    said: Credentials,
    user: User,
    attempt: throttle.Attempt,
    *,
    client: Client,
    device: str,
) -> Refreshed:
    settings, database = door.settings, door.database
    async with database.unit_of_work() as session:
        shown = await show_second_factor(door, session, user.id, code=said.code)
        begun = await sessions.begin(
            session,
            door.token_mac,
            user=user,
            client=client,
            device=device,
            second_factor=shown,
            settings=settings,
        )
        await throttle.succeeded(session, attempt)
    return begun


async def _note_failure(database: Database, said: Credentials) -> None:
    """Record a failed login, with the same steps whether the account exists or not.

    What was typed as a username is not recorded where there is none: it may be a password. The
    bound on attempts bounds these records, too.
    """
    async with database.unit_of_work() as session:
        user = await accounts.find(session, said.username)
        subject = id_text(IdKind.USER, user.id) if user is not None else None
        audit.record(session, Event.LOGIN_FAILED, subject=subject, address=said.address)


async def show_second_factor(
    door: Door, session: AsyncSession, user_id: UUID, *, code: str | None
) -> bool:
    """Whether the account has a second factor; its code, which is used up, was right then.

    Raises `Unauthenticated`: ``second_factor_required`` without a code, ``second_factor_wrong``.
    """
    if not await second_factor.is_required(session, user_id):
        return False
    if code is None:
        raise Unauthenticated(
            "second_factor_required", "This account has a second factor: send its 'code'."
        )
    right = await second_factor.accept(
        session, door.sealer, door.token_mac, user_id=user_id, code=code, moment=time.time()
    )
    if not right:
        raise Unauthenticated(
            WRONG_CODE, "This code is not right, or was used before: wait for the next one."
        )
    return True


async def note_wrong_code(door: Door, user_id: UUID, *, address: str) -> None:
    """Record that a code of this account's second factor was wrong."""
    async with door.database.unit_of_work() as session:
        audit.record(
            session,
            Event.SECOND_FACTOR_FAILED,
            subject=id_text(IdKind.USER, user_id),
            address=address,
        )


async def check_own_password(
    door: Door, *, user_id: UUID, session_id: UUID | None, password: str | None, address: str
) -> str | None:
    """The hash of one's own password, where this is it; `Forbidden` where it is not.

    Counted like a login, under another name: whoever took over a session must not guess here. An
    account without a password shows instead that its login was just now; there is no hash then.
    """
    async with door.database.unit_of_work() as session:
        stored_hash = (await accounts.get(session, user_id)).password_hash
        if stored_hash is None:
            await _check_fresh(session, session_id, door.settings.login_fresh_s)
            return None
    if password is None:
        raise _wrong_password()
    attempt = throttle.attempt_of(
        door.token_mac, door.settings, account=f"own:{user_id.hex}", address=address
    )
    await throttle.begin(door.database, attempt, window_s=door.settings.login_window_s)
    verdict = await door.hasher.verify(stored_hash, password)
    if not verdict.right:
        raise _wrong_password()
    async with door.database.unit_of_work() as session:
        await throttle.succeeded(session, attempt)
    return stored_hash


async def _check_fresh(session: AsyncSession, session_id: UUID | None, fresh_s: int) -> None:
    begun = await session.scalar(
        select(LoginSession.id).where(
            LoginSession.id == session_id,
            LoginSession.created_at > func.now() - timedelta(seconds=fresh_s),
        )
    )
    if begun is None:
        raise Forbidden(
            "login_not_fresh",
            f"Log in again, then do this within {fresh_s} seconds.",
            fresh_s=fresh_s,
        )


def _wrong_password() -> Forbidden:
    return Forbidden("password_wrong", "current_password is not your present password.")


async def count_code(door: Door, user_id: UUID, *, address: str) -> throttle.Attempt:
    """Count an attempt at the codes of an account; raises `Throttled` for one too many."""
    attempt = throttle.attempt_of(
        door.token_mac, door.settings, account=f"code:{user_id.hex}", address=address
    )
    await throttle.begin(door.database, attempt, window_s=door.settings.login_window_s)
    return attempt


async def check_own_code(door: Door, *, user_id: UUID, code: str, address: str) -> None:
    """Use up a code of one's own second factor; `Forbidden` where it is not right."""
    attempt = await count_code(door, user_id, address=address)
    async with door.database.unit_of_work() as session:
        right = await second_factor.accept(
            session, door.sealer, door.token_mac, user_id=user_id, code=code, moment=time.time()
        )
        if not right:
            raise second_factor.wrong_code()
        await throttle.succeeded(session, attempt)
