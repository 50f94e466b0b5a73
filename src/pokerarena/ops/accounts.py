"""Accounts made by whoever has the database, for the first one of an arena.

Owns: the transaction around `auth.accounts.create`. Must never print or log a password.
"""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import DBAPIError, OperationalError

from pokerarena.auth import accounts
from pokerarena.auth.models import Role
from pokerarena.auth.passwords import PasswordHasher
from pokerarena.db import Database
from pokerarena.errors import Unavailable
from pokerarena.ids import IdKind, id_text
from pokerarena.settings import Settings


def create_account(settings: Settings, *, username: str, password: str, role: Role) -> str:
    """Creates an account and returns its id."""
    return asyncio.run(_create(settings, username, password, role))


async def _create(settings: Settings, username: str, password: str, role: Role) -> str:
    database = Database(settings, application_name="pokerarena-admin")
    hasher = PasswordHasher(settings)
    try:
        async with database.unit_of_work() as session:
            user = await accounts.create(
                session, hasher, username=username, password=password, role=role, settings=settings
            )
            return id_text(IdKind.USER, user.id)
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
        hasher.close()
        await database.close()
