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
                "connect_timeout": 5,
                "options": f"-c statement_timeout={settings.database_statement_timeout_ms}"
                " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC",
            },
        )
        watch_pool(self.engine.sync_engine.pool)
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
