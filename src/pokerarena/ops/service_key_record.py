"""The audit's record of what was done with a service's key, where there is a database to record in.

Keys of services are files, and are made where no database needs to be. Must never: undo or fail what
was done to a key because it could not be recorded.
"""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy.exc import SQLAlchemyError

from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.db import Database
from pokerarena.errors import ConfigurationError
from pokerarena.service_identity.keys import ServiceName
from pokerarena.settings import Settings, load_settings


def note(step: str, *, service: ServiceName, kid: str, retired: str = "") -> None:
    """Record a step in a key's life, or say on stderr that it is recorded nowhere."""
    try:
        asyncio.run(_record(load_settings(), step, service, kid, retired))
    except (ConfigurationError, SQLAlchemyError, OSError) as error:
        why = error.message if isinstance(error, ConfigurationError) else type(error).__name__
        print(f"pokerarena: not recorded in the audit ({why})", file=sys.stderr)


async def _record(
    settings: Settings, step: str, service: ServiceName, kid: str, retired: str
) -> None:
    database = Database(
        settings.model_copy(update={"database_pool_size": 1}), application_name="pokerarena-admin"
    )
    try:
        async with database.unit_of_work() as session:
            audit.record(
                session,
                Event.SERVICE_KEY_CHANGED,
                step=step,
                service=service.value,
                kid=kid,
                retired=retired,
            )
    finally:
        await database.close()
