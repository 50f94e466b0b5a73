"""What whoever has the database may do to accounts and keys.

Owns: the transaction around the services of `auth`. Must never print or log a password or a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import accounts, second_factor, sessions, signing_keys
from pokerarena.auth.models import Role
from pokerarena.auth.passwords import PasswordHasher
from pokerarena.auth.sessions import EndReason
from pokerarena.auth.signing_keys import Rotation
from pokerarena.db import Database
from pokerarena.errors import NotFound, Unavailable
from pokerarena.ids import IdKind, id_text
from pokerarena.sealing import open_sealer
from pokerarena.settings import Settings

Result = TypeVar("Result")


def create_account(settings: Settings, *, username: str, password: str, role: Role) -> str:
    """Creates an account and returns its id."""
    return asyncio.run(_create(settings, username, password, role))


def rotate_keys(settings: Settings, *, compromised: bool) -> Rotation:
    """Publishes a new signing key."""

    async def work(session: AsyncSession) -> Rotation:
        sealer = open_sealer(settings)
        return await signing_keys.rotate(session, sealer, settings, compromised=compromised)

    return asyncio.run(_in_database(settings, work))


def remove_second_factor(settings: Settings, *, username: str) -> None:
    """Takes an account's second factor away, and ends what was begun with it."""

    async def work(session: AsyncSession) -> None:
        user = await accounts.find(session, username)
        if user is None:
            raise NotFound("user")
        await second_factor.remove(session, user.id)
        await sessions.end_all(session, user.id, but=None, reason=EndReason.REVOKED)

    asyncio.run(_in_database(settings, work))


def in_database(settings: Settings, work: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """Does other rooms' work in one transaction, for commands."""
    return asyncio.run(_in_database(settings, work))


async def _create(settings: Settings, username: str, password: str, role: Role) -> str:
    hasher = PasswordHasher(settings)

    async def work(session: AsyncSession) -> str:
        user = await accounts.create(
            session, hasher, username=username, password=password, role=role, settings=settings
        )
        return id_text(IdKind.USER, user.id)

    try:
        return await _in_database(settings, work)
    finally:
        hasher.close()


async def _in_database(
    settings: Settings, work: Callable[[AsyncSession], Awaitable[Result]]
) -> Result:
    """What `work` gives, in one transaction; what the database does becomes a sentence."""
    database = Database(settings, application_name="pokerarena-admin")
    try:
        async with database.unit_of_work() as session:
            return await work(session)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unavailable(
            "database_unreachable", f"The database cannot be reached ({reason}): is it running?"
        ) from None
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "42P01":  # undefined relation
            raise Unavailable(
                "schema_missing", "The database has no schema yet: run 'pokerarena migrate up'."
            ) from None
        raise
    finally:
        await database.close()
