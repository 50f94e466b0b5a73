"""Moves the schema: up, down, and the question whether it is where the program expects it.

Owns: the order of revisions (through Alembic), one migration at a time across all hosts (an
advisory lock), and the timeouts that keep a migration from queueing behind live traffic.
Must never: hold the lock without a limit, or change anything when asked to check.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import OperationalError

from pokerarena.errors import Unavailable
from pokerarena.migrations import include_name
from pokerarena.ops import database_roles
from pokerarena.ops.database_roles import NO_PASSWORDS
from pokerarena.ops.privileges import DatabaseRole

# "poker" and "schema" as bytes: an arbitrary number that only this module uses.
ADVISORY_LOCK: Final = 0x706F6B65_7273636D
LOCK_TIMEOUT_MS: Final = 5_000
STATEMENT_TIMEOUT_MS: Final = 300_000
QUEUE_FOR_TURN_MS: Final = 120_000


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Where the schema is, and where this program wants it."""

    current: str | None
    head: str
    # At a revision that this program does not know: a later release has migrated it.
    newer: bool = False

    @property
    def up_to_date(self) -> bool:
        return self.current == self.head


def upgrade(
    url: str,
    revision: str = "head",
    *,
    passwords: Mapping[DatabaseRole, str] = NO_PASSWORDS,
) -> SchemaState:
    """Brings the schema up to `revision`, and the roles and privileges to what is declared.

    Nothing to do is no error, and neither is a schema of a later release: it is left as it is, for
    this release runs on it.
    """
    with _turn(url) as (connection, config):
        state = _state(connection, config)
        if state.newer:
            return state
        command.upgrade(config, revision)
        connection.commit()
        state = _state(connection, config)
        if state.up_to_date:
            # What is declared are the privileges of the newest schema.
            database_roles.ensure(connection, passwords)
        return state


def downgrade(url: str, revision: str = "-1") -> SchemaState:
    """Takes the schema down to `revision` (one step by default). What that drops is lost."""
    with _turn(url) as (connection, config):
        command.downgrade(config, revision)
        return _state(connection, config)


def check(url: str) -> SchemaState:
    """Says where the schema is; changes nothing and waits for nobody."""
    with connection(url) as connected:
        return _state(connected, config_of(connected))


def drift(url: str) -> list[Any]:
    """How the mapped models differ from the schema, as Alembic's operations; empty when equal."""
    import pokerarena
    from pokerarena.db import Base

    for room in pkgutil.iter_modules(pokerarena.__path__, "pokerarena."):
        if room.ispkg and importlib.util.find_spec(f"{room.name}.models") is not None:
            importlib.import_module(f"{room.name}.models")
    with connection(url) as connected:
        context = MigrationContext.configure(
            connected,
            opts={"compare_type": True, "include_name": include_name},
        )
        return list(compare_metadata(context, Base.metadata))


@contextmanager
def _turn(url: str) -> Iterator[tuple[Connection, Config]]:
    """A connection that holds the one migration turn of this database."""
    with connection(url) as connected:
        _set(connected, "statement_timeout", QUEUE_FOR_TURN_MS)
        try:
            connected.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        except OperationalError:
            raise Unavailable(
                "migration_running",
                "Another migration of this database is still running: wait for it, then try again.",
            ) from None
        _set(connected, "statement_timeout", STATEMENT_TIMEOUT_MS)
        _set(connected, "lock_timeout", LOCK_TIMEOUT_MS)
        # Settings and lock belong to the session; each revision then opens its own transaction.
        connected.commit()
        # Closing the connection (there is no pool) gives the turn back, also after an exception.
        yield connected, config_of(connected)


@contextmanager
def connection(url: str) -> Iterator[Connection]:
    """A connection of a migration's own. Raises `Unavailable`."""
    engine = create_engine(
        url,
        poolclass=pool.NullPool,
        connect_args={"connect_timeout": 10, "application_name": "pokerarena migrate"},
    )
    try:
        connection = engine.connect()
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unavailable(
            "database_unreachable",
            f"The database cannot be reached ({reason}): check that it runs, "
            "and POKERARENA_DATABASE_URL.",
        ) from None
    try:
        yield connection
    finally:
        connection.close()
        engine.dispose()


def config_of(connection: Connection) -> Config:
    """Alembic's configuration for this connection."""
    config = Config()
    config.set_main_option("script_location", "pokerarena:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _state(connection: Connection, config: Config) -> SchemaState:
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    if head is None:
        raise RuntimeError("the program ships no schema revision")
    current = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    known = current is None or current in {one.revision for one in script.walk_revisions()}
    return SchemaState(current=current, head=head, newer=not known)


def _set(connection: Connection, setting: str, value_ms: int) -> None:
    connection.execute(
        text("SELECT set_config(:name, :value, false)"), {"name": setting, "value": str(value_ms)}
    )
