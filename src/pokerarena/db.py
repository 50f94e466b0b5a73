"""The database: engine, sessions, and the unit of work.

Services take a session and never commit; the edge that made the session (a request, a task)
commits, before it answers. No session is held across an agent call or a stream.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, MetaData, Uuid, event
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase

from pokerarena.metrics import watch_pool
from pokerarena.outage import READ_ONLY
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger

log = get_logger("db")

STATEMENT_LOGGED_CHARS = 500

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The base of every mapped relation."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: DateTime(timezone=True), UUID: Uuid()}  # noqa: RUF012


def _log_slow_statements(engine: AsyncEngine, slow_ms: int) -> None:
    """Log statements that take long, with the ids bound at that point and without their values."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def _began(connection: Any, *_: Any) -> None:
        connection.info["statement_began_s"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def _ended(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        took_ms = (time.monotonic() - connection.info["statement_began_s"]) * 1000
        if took_ms >= slow_ms:
            log.warning(
                "statement_slow",
                duration_ms=round(took_ms),
                statement=" ".join(statement.split())[:STATEMENT_LOGGED_CHARS],
            )


def connect_args(settings: Settings, *, bounded: bool = True) -> dict[str, Any]:
    """What a connection is opened with; one that only waits is not `bounded` in its statements.

    Both ends notice when the other one is gone. Without that, a statement sent into a dead network
    waits for a quarter of an hour, one that only listens for ever, and the server keeps the locks
    of a client that it will not hear of again. Over a socket file none of it applies.
    """
    silence_s = settings.database_silence_s
    probes = {
        "keepalives_idle": max(1, silence_s // 2),
        "keepalives_interval": max(1, silence_s // 8),
        "keepalives_count": 4,
    }
    session = {f"tcp_{name}": value for name, value in probes.items()}
    session["tcp_user_timeout"] = silence_s * 1000
    if bounded:
        session["statement_timeout"] = settings.database_statement_timeout_ms
        session["idle_in_transaction_session_timeout"] = 60_000
    return {
        "connect_timeout": 5,
        "keepalives": 1,
        **probes,
        "tcp_user_timeout": silence_s * 1000,
        "options": " ".join(
            ["-c timezone=UTC", *(f"-c {name}={value}" for name, value in session.items())]
        ),
    }


def _leave_read_only_servers(engine: AsyncEngine) -> None:
    """Close the pool's connections to a server that takes no writes any more.

    After a failover the address leads to another server; a pool that kept its connections would
    go on asking the old one.
    """

    @event.listens_for(engine.sync_engine, "handle_error")
    def _refused(context: Any) -> None:
        if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
            context.is_disconnect = True


class Database:
    """One engine with its session factory; one per process."""

    def __init__(self, settings: Settings, *, application_name: str) -> None:
        self.engine: AsyncEngine = create_async_engine(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_pool_size,
            max_overflow=0,
            pool_timeout=settings.database_pool_wait_s,
            pool_pre_ping=True,
            # A failed statement is logged; what it carried may be a MAC, a hash or a card.
            hide_parameters=True,
            connect_args={
                "application_name": application_name,
                **connect_args(settings),
            },
        )
        watch_pool(self.engine.sync_engine.pool)
        _leave_read_only_servers(self.engine)
        _log_slow_statements(self.engine, settings.database_slow_statement_ms)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction: committed at the end, rolled back at an exception."""
        async with self._sessions() as session, session.begin():
            yield session

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session whose owner commits; what is not committed is rolled back at the end."""
        async with self._sessions() as session:
            yield session

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
