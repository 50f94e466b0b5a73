"""An arena for a test: the real application on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import structlog

from pokerarena.api.app import create_app
from pokerarena.db import Database
from pokerarena.ops.privileges import DatabaseRole
from tests.api.arena import Arena, settings_for
from tests.api.asgi import Client
from tests.database_server import as_role

# Log lines are made as always and then dropped; `capture_logs` still sees them.
structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
    logger_factory=structlog.ReturnLoggerFactory(),
)


@pytest.fixture
async def arena(database_url: str) -> AsyncIterator[Arena]:
    # The application has the rights that it has in production; the test's own hands have more.
    served = settings_for(as_role(database_url, DatabaseRole.API))
    database = Database(settings_for(database_url), application_name="test")
    app = create_app(served)
    async with app.router.lifespan_context(app):
        yield Arena(served, database, Client(app))
    await database.close()
