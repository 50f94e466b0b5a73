"""An arena for a test: the real application on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog

from pokerarena.api.app import create_app
from pokerarena.db import Database
from pokerarena.ops.privileges import DatabaseRole
from tests.api.arena import Arena, settings_for
from tests.api.asgi import Client
from tests.auth.hostile_provider import HostileProvider
from tests.database_server import as_role

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
            # The application has the rights that it has in production; the test's hands have more.
            settings = settings_for(as_role(database_url, DatabaseRole.API), **changes)
            database = Database(settings_for(database_url), application_name="test")
            stack.push_async_callback(database.close)
            app = create_app(settings)
            await stack.enter_async_context(app.router.lifespan_context(app))
            return Arena(settings, database, Client(app))

        yield make


@pytest.fixture
async def arena(new_arena: NewArena) -> Arena:
    return await new_arena()


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """An identity provider that says what the test wants it to say."""
    with HostileProvider() as provider:
        yield provider
