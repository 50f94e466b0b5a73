"""The database that is backed up: its address, its version, and PostgreSQL's own programs for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from pokerarena.errors import ConfigurationError, Unavailable
from pokerarena.ops import postgres_programs
from pokerarena.settings import Settings


def conninfo(settings: Settings) -> str:
    """The address for libpq; a role that may replicate is needed."""
    url = (
        settings.backup_database_url.get_secret_value() or settings.database_url.get_secret_value()
    )
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def connect(settings: Settings) -> psycopg.Connection[Any]:
    """A connection whose statements commit at once. Raises `Unavailable`, `ConfigurationError`."""
    try:
        connection = psycopg.connect(
            conninfo(settings),
            autocommit=True,
            connect_timeout=10,
            application_name="pokerarena backup",
        )
    except psycopg.OperationalError as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise Unavailable(
            "database_unreachable", f"The database cannot be reached ({reason})."
        ) from None
    major = connection.info.server_version // 10_000
    if major != postgres_programs.MAJOR:
        connection.close()
        raise ConfigurationError(
            f"These backups are for PostgreSQL {postgres_programs.MAJOR}, which this program "
            f"brings, and the server is {major}: back it up with pgBackRest instead "
            "(docs/backup.md)."
        )
    return connection


def program(name: str) -> Path:
    """One of PostgreSQL's own programs, run as the caller."""
    return postgres_programs.directory(user=None, copy_to=Path()) / name
