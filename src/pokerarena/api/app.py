"""The application: its parts, its routes, its envelope.

`create_app` refuses to make an application in which a route declares no permission.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from pokerarena import __version__
from pokerarena.api import problems
from pokerarena.api.access import declared_permissions
from pokerarena.api.context import Parts
from pokerarena.api.envelope import Envelope
from pokerarena.api.hub import LiveHub
from pokerarena.api.idempotency import CHANGING_METHODS, HEADER, sweep_forever
from pokerarena.api.rate_limits import RateLimits
from pokerarena.api.routes import (
    agents,
    audit,
    auth,
    dead_letters,
    egress,
    federation,
    hands,
    identities,
    live,
    program,
    runs,
    second_factor,
    sessions,
    standings,
    tables,
    tokens,
    uploads,
    users,
    viewer_links,
)
from pokerarena.auth.callers import Callers
from pokerarena.auth.federation.flow import Federation
from pokerarena.auth.passwords import PasswordHasher
from pokerarena.auth.permissions import RULES, Permission, Who
from pokerarena.auth.refusals import Refusals
from pokerarena.auth.signing_keys import SigningKeys
from pokerarena.auth.tokens import TokenMac
from pokerarena.db import Database
from pokerarena.exposition import MetricsServer
from pokerarena.sealing import open_sealer
from pokerarena.settings import Settings
from pokerarena.tables.viewer_links import ViewerLinks

TITLE = "pokerarena"
DESCRIPTION = (
    "An arena in which AI agents play No-Limit Texas Hold'em. Errors are RFC 9457 problems with a "
    "stable code; lists are pages with a cursor; times are RFC 3339 in UTC."
)
V1_ROUTERS = (
    auth.router,
    federation.router,
    users.me,
    second_factor.router,
    identities.router,
    sessions.router,
    tokens.router,
    users.router,
    audit.router,
    # Before the agents: it takes from their route what is no JSON.
    uploads.router,
    agents.router,
    standings.router,
    tables.router,
    viewer_links.of_seat,
    viewer_links.router,
    live.router,
    runs.of_table,
    runs.router,
    hands.router,
    uploads.reports,
    dead_letters.router,
    egress.of_version,
    egress.router,
)


def create_app(settings: Settings, database: Database | None = None) -> FastAPI:
    """The API over the settings' database, or over one that the caller keeps and closes."""
    own_database = database is None
    database = database or Database(settings, application_name="pokerarena-api")
    token_mac = TokenMac(settings.token_pepper_bytes(), settings.previous_token_peppers())
    sealer = open_sealer(settings)
    signing_keys = SigningKeys(database, sealer, settings)
    parts = Parts(
        settings=settings,
        database=database,
        hasher=PasswordHasher(settings),
        token_mac=token_mac,
        sealer=sealer,
        hub=LiveHub(settings, database),
        signing_keys=signing_keys,
        callers=Callers(settings, token_mac, signing_keys, ViewerLinks(token_mac)),
        refusals=Refusals(database, settings.audit_refusals_per_minute),
        rate_limits=RateLimits(settings),
        leaving=asyncio.Event(),
        federation=Federation(settings),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        exposed = MetricsServer()
        if settings.api_metrics_port is not None:
            await exposed.start(settings.metrics_host, settings.api_metrics_port)
        sweeping = asyncio.create_task(
            sweep_forever(parts.database, settings.idempotency_sweep_s), name="idempotency sweep"
        )
        try:
            yield
        finally:
            await exposed.close()
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            await parts.hub.close()
            await parts.federation.close()
            parts.hasher.close()
            if own_database:
                await parts.database.close()

    app = FastAPI(
        title=TITLE,
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        # The framework's own pages would be routes without a permission; `program` has ours.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # What is exported, and where to, is for our own settings to say, not for the framework.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    app.state.parts = parts
    # Documents of the program's own, rendered when they are first asked for.
    app.state.documents = {}
    problems.install(app)
    v1 = APIRouter(prefix="/v1")
    for router in V1_ROUTERS:
        v1.include_router(router)
    app.include_router(program.router)
    app.include_router(v1)
    app.add_middleware(Envelope, settings=settings, leaving=parts.leaving)
    declared = declared_permissions(app)
    app.openapi = lambda: _openapi(app, declared)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI, declared: dict[tuple[str, str], Permission]) -> dict[str, Any]:
    """The OpenAPI document, with each operation's permission and the shape of problems."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    components.setdefault("schemas", {})["Problem"] = _PROBLEM_SCHEMA
    for framework_shape in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(framework_shape, None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            permission = declared[method.upper(), path]
            rule = RULES[permission]
            operation["x-permission"] = permission.value
            operation["security"] = [{"token": []}]
            if method.upper() in CHANGING_METHODS and rule.who is not Who.ANYONE:
                operation.setdefault("parameters", []).append(_KEY_PARAMETER)
            if rule.who is Who.ANYONE:
                operation["security"].append({})
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "A problem",
                "content": {
                    problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                },
            }
    app.openapi_schema = document
    return document


_KEY_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Your own name for this request, such as a UUID: sent again with it, the "
    "request is done once and answered alike.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 130},
}
_PROBLEM_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. `code` is stable; further members depend on it.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["in", "field", "code", "message"],
                "properties": {
                    "in": {"type": "string"},
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
