"""Whether an error says that the database cannot serve now, and which kind of trouble it is.

Owns the one judgement that everybody shares: the API, which answers 503, and the worker, which
keeps what it has and tries again. An error that is not an outage is a defect, or the caller's own.
It never retries and never logs.
"""

from __future__ import annotations

from enum import StrEnum

import psycopg
from psycopg_pool import PoolTimeout
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as EngineTimeout

READ_ONLY = "25006"
DISK_FULL = "53100"
# Deadlock, serialization, lock and statement timeouts: the database lives, and was too busy.
CONTENTION = frozenset({"40001", "40P01", "55P03", "57014"})


class Outage(StrEnum):
    """What is the matter; nothing was changed, and the same may succeed later."""

    AWAY = "away"
    READ_ONLY = "read_only"
    FULL = "full"
    CONTENTION = "contention"
    POOL = "pool"


def outage(error: BaseException) -> Outage | None:
    """The trouble that an error of SQLAlchemy, psycopg or the network tells of; None for others."""
    if isinstance(error, PoolTimeout | EngineTimeout):
        return Outage.POOL
    invalidated = False
    driver: BaseException | None = error
    if isinstance(error, DBAPIError):
        invalidated, driver = error.connection_invalidated, error.orig
    sqlstate = driver.sqlstate if isinstance(driver, psycopg.Error) else None
    if sqlstate == READ_ONLY:
        return Outage.READ_ONLY
    if sqlstate == DISK_FULL:
        return Outage.FULL
    if sqlstate in CONTENTION:
        return Outage.CONTENTION
    # A full disk may be told while connecting, too: by a code of its own or by none.
    away = isinstance(
        driver, psycopg.OperationalError | psycopg.InterfaceError | OSError | TimeoutError
    )
    return Outage.AWAY if away or invalidated else None
