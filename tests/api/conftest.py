"""An arena for a test: the real application on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog

from pokerarena.api.app import create_app
from pokerarena.db import Database
from tests.api.arena import Arena, settings_for
from tests.api.asgi import Client

# Log lines are made as always and then dropped; `capture_logs` still sees them.
structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
    logger_factory=structlog.ReturnLoggerFactory(),
)

NewArena = Callable[..., Awaitable[Arena]]


@pytest.fixture
async def new_arena(database_url: str) -> AsyncIterator[NewArena]:
    """Makes arenas with other settings; several are several processes on one database."""
    async with AsyncExitStack() as stack:

        async def make(**changes: Any) -> Arena:
            settings = settings_for(database_url, **changes)
            database = Database(settings, application_name="test")
            stack.push_async_callback(database.close)
            app = create_app(settings, database)
            await stack.enter_async_context(app.router.lifespan_context(app))
            return Arena(settings, database, Client(app))

        yield make


@pytest.fixture
async def arena(new_arena: NewArena) -> Arena:
    return await new_arena()
