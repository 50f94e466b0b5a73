"""Accounts: creating, authenticating, disabling.

Owns usernames and who a password belongs to. It must never hold a database connection while a
password is hashed, and never tells a caller whether a username or a password was wrong.
"""

from __future__ import annotations

import re
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.auth.models import Role, User
from pokerarena.auth.passwords import PasswordHasher, check_new_password
from pokerarena.db import Database
from pokerarena.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from pokerarena.identity_settings import Registration
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.settings import Settings

_USERNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{1,38})[A-Za-z0-9]")


def check_username(username: str) -> None:
    """Raise `Invalid` for a text that cannot be a username."""
    if not _USERNAME.fullmatch(username):
        raise Invalid(
            "username_invalid",
            "A username has 3 to 40 letters, digits, dots, dashes or underscores, and begins and "
            "ends with a letter or digit.",
        )


def check_registration_open(settings: Settings) -> None:
    """Raise `Forbidden` where only an operator creates accounts."""
    if settings.registration is not Registration.OPEN:
        raise Forbidden(
            "registration_closed", "Accounts are created by an operator here: ask one for yours."
        )


async def create(
    session: AsyncSession,
    hasher: PasswordHasher,
    *,
    username: str,
    password: str,
    role: Role,
    settings: Settings,
) -> User:
    """Create an account. The session uses no connection before the password is hashed."""
    check_username(username)
    check_new_password(password, username=username, min_length=settings.password_min_length)
    password_hash = await hasher.hash(password)
    user = User(id=new_id(), username=username, password_hash=password_hash, role=role.value)
    session.add(user)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict("username_taken", "This username is taken; choose another.") from None
    await session.refresh(user)
    audit.record(session, Event.USER_CREATED, subject=id_text(IdKind.USER, user.id), role=user.role)
    return user


async def authenticate(
    database: Database, hasher: PasswordHasher, *, username: str, password: str
) -> User:
    """The user with this password; `Unauthenticated` for everything else, at the same cost.

    It opens short transactions of its own because no connection may wait for a hash.
    """
    async with database.unit_of_work() as session:
        user = await find(session, username)
    verdict = await hasher.verify(user.password_hash if user else None, password)
    if user is None or not verdict.right or user.disabled_at is not None:
        raise Unauthenticated("login_failed", "Username or password is wrong.")
    if verdict.outdated:
        stronger = await hasher.hash(password)
        async with database.unit_of_work() as session:
            await session.execute(
                update(User)
                .where(User.id == user.id, User.password_hash == user.password_hash)
                .values(password_hash=stronger)
            )
    return user


async def change_password(
    session: AsyncSession, *, user_id: UUID, old_hash: str | None, new_hash: str
) -> None:
    """Replace a password's hash, unless somebody else replaced it meanwhile.

    Without an old one it is the account's first.
    """
    changed = await session.scalar(
        update(User)
        .where(User.id == user_id, User.password_hash == old_hash)
        .values(password_hash=new_hash)
        .returning(User.id)
    )
    if changed is None:
        raise Conflict("password_changed", "The password was just changed elsewhere; log in again.")
    audit.record(session, Event.PASSWORD_CHANGED, subject=id_text(IdKind.USER, user_id))


async def lock(session: AsyncSession, user_id: UUID) -> None:
    """Let one transaction at a time count and add what belongs to this (still open) account."""
    found = await session.scalar(
        select(User.id)
        .where(User.id == user_id, User.disabled_at.is_(None))
        .with_for_update(key_share=True)
    )
    if found is None:
        raise NotFound("user")


async def get(session: AsyncSession, user_id: UUID) -> User:
    """The user, or `NotFound`."""
    user = await session.get(User, user_id)
    if user is None:
        raise NotFound("user")
    return user


async def find(session: AsyncSession, username: str) -> User | None:
    """The user of this name, however it is capitalised."""
    query = select(User).where(func.lower(User.username) == username.lower())
    found: User | None = await session.scalar(query)
    return found


async def list_users(session: AsyncSession, *, before: UUID | None, limit: int) -> list[User]:
    """All accounts, newest first."""
    query = select(User).order_by(User.id.desc()).limit(limit)
    if before is not None:
        query = query.where(User.id < before)
    return list(await session.scalars(query))


async def disable(session: AsyncSession, user_id: UUID, *, by: UUID) -> User:
    """Close an account: it cannot log in, and its tokens work no more. Its things stay."""
    user = await get(session, user_id)
    if user.id == by:
        raise Conflict("own_account", "You cannot disable your own account; ask another operator.")
    if user.disabled_at is None:
        user.disabled_at = await session.scalar(select(func.now()))
        await session.flush()
        audit.record(session, Event.USER_DISABLED, subject=id_text(IdKind.USER, user.id))
    return user
