"""What describes the program itself: health, the API's and the protocol's documents."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.resources import as_file, files
from typing import Annotated, Any, Literal

from alembic.script import ScriptDirectory
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.reference import STYLE_POLICY, reference_page
from pokerarena.api.shapes import Shown
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.errors import Unavailable
from pokerarena.protocol.schema import answer_schema, json_schema

router = APIRouter(tags=["program"])


class Health(Shown):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Shown):
    """The process can serve: the database answers, its schema is the program's or a later one."""

    status: Literal["ready"] = "ready"
    schema_revision: str


class ProtocolSchemas(Shown):
    """JSON Schemas of the agent protocol."""

    messages: dict[str, Any]
    answer: dict[str, Any]


@cache
def program_revisions() -> tuple[str, ...]:
    """The schema revisions that this program knows, the one it is written for first."""
    with as_file(files("pokerarena").joinpath("migrations")) as directory:
        return tuple([one.revision for one in ScriptDirectory(str(directory)).walk_revisions()])


@router.get("/healthz")
async def healthz(_: Annotated[Principal, needs(Permission.PROGRAM_READ)]) -> Health:
    """Whether the process lives; it asks nobody else."""
    return Health()


@router.get("/readyz")
async def readyz(
    _: Annotated[Principal, needs(Permission.PROGRAM_READ)], session: Session, parts: PartsOf
) -> Readiness:
    """Whether the process can serve requests now, and goes on to."""
    if parts.leaving.is_set():
        raise Unavailable("shutting_down", "This process ends in a moment; ask another one.")
    try:
        present = await session.scalar(text("SELECT version_num FROM alembic_version"))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42P01":
            raise
        present = None
    needed, *before = program_revisions()
    # A revision that is not known is of a later release, and this one runs on its schema: were it
    # not ready, a migration would take every process out at once.
    if present is None or present in before:
        raise Unavailable(
            "schema_not_migrated",
            f"The schema is at {present}, the program needs {needed}: run 'pokerarena migrate'.",
        )
    return Readiness(schema_revision=present)


@router.get("/.well-known/jwks.json")
async def jwks(
    _: Annotated[Principal, needs(Permission.PROGRAM_READ)], parts: PartsOf
) -> JSONResponse:
    """The public keys of access tokens. A key is here before the first token that it signed."""
    keys = await parts.signing_keys.published(datetime.now(UTC))
    # Half the lead that a new key has: whoever keeps this so long knows each key in time.
    fresh_s = parts.settings.signing_key_publish_s // 2
    return JSONResponse(keys, headers={"Cache-Control": f"public, max-age={fresh_s}"})


@router.get("/v1/protocol/schema")
async def protocol_schema(
    _: Annotated[Principal, needs(Permission.PROGRAM_READ)],
) -> ProtocolSchemas:
    """What agents are sent and what they answer, as JSON Schema."""
    return _protocol_schemas()


@cache
def _protocol_schemas() -> ProtocolSchemas:
    return ProtocolSchemas(messages=json_schema(), answer=answer_schema())


@router.get("/openapi.json", include_in_schema=False)
async def openapi(
    _: Annotated[Principal, needs(Permission.PROGRAM_READ)], request: Request
) -> Response:
    """This API as OpenAPI 3.1."""
    body = _rendered_once(request, "openapi", lambda app: bytes(JSONResponse(app.openapi()).body))
    return Response(body, media_type="application/json")


@router.get("/docs", include_in_schema=False)
async def docs(
    _: Annotated[Principal, needs(Permission.PROGRAM_READ)], request: Request, parts: PartsOf
) -> HTMLResponse:
    """This API for reading. It loads nothing from anywhere and runs no script."""
    page = _rendered_once(request, "docs", lambda app: reference_page(app.openapi()).encode())
    return HTMLResponse(page, headers={"Content-Security-Policy": STYLE_POLICY})


def _rendered_once(request: Request, name: str, render: Callable[[FastAPI], bytes]) -> bytes:
    """A large document that never changes: whoever asks for it often must not cost its making."""
    kept: dict[str, bytes] = request.app.state.documents
    if name not in kept:
        kept[name] = bytes(render(request.app))
    return kept[name]
