"""Uploads of hosted agents, and what their sandboxes said to their owners.

A version's route takes JSON or an archive. Which of the two a request brings is told by its
Content-Type, before anything of its body is read.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.routing import Match
from starlette.types import Scope

from pokerarena.agents import packages
from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.envelope import is_upload
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.routes.agents import CreatedVersion, version_fields
from pokerarena.api.shapes import AgentId, QueryShape, RunId, Shown
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.runs import hosted
from pokerarena.sandbox.archive import ArchiveLimits, read_upload


class UploadRoute(IdempotentRoute):
    """Matches requests that bring an archive; all others are left to the route of the same path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if is_upload(scope) else (Match.NONE, {})


router = APIRouter(prefix="/agents", tags=["agents"], route_class=UploadRoute)
reports = APIRouter(prefix="/runs", tags=["runs"], route_class=IdempotentRoute)


class UploadQuery(QueryShape):
    """What an upload cannot say of itself."""

    file_name: Annotated[
        str, Field(max_length=200, description="of a single file; it tells Python from a binary")
    ] = ""


class SandboxEnd(Shown):
    """How one sandbox of a run ended."""

    reason: str
    detail: str


class SandboxReport(Shown):
    """What the sandboxes of one seat used and said, when they were last closed."""

    starts: int
    cpu_ms: int
    memory_peak_bytes: int
    stray_lines: int
    ends: list[SandboxEnd]
    stderr: str


# The route of the same path in `agents` documents both kinds of body.
@router.post("/{agent_id}/versions", status_code=201, include_in_schema=False)
async def upload_version(
    caller: Annotated[Principal, needs(Permission.AGENT_CHANGE)],
    agent_id: AgentId,
    query: Annotated[UploadQuery, Query()],
    request: Request,
    parts: PartsOf,
    session: Session,
) -> CreatedVersion:
    """Upload a hosted version; it may take a seat once its check has passed."""
    body = await request.body()
    limits = ArchiveLimits(max_packed_bytes=parts.settings.upload_max_bytes)
    package = await asyncio.to_thread(read_upload, body, query.file_name, limits)
    version = await packages.add_version(
        session, caller, agent_id, package, settings=parts.settings
    )
    return CreatedVersion(signing_secret=None, **version_fields(version, inside=True))


@reports.get("/{run_id}/seats/{seat_no}/sandbox")
async def read_sandbox(
    caller: Annotated[Principal, needs(Permission.SANDBOX_READ)],
    run_id: RunId,
    seat_no: Annotated[int, Path(ge=1, le=10)],
    session: Session,
) -> SandboxReport:
    """What the sandboxes of one's own hosted agent used in a run, and the end of its stderr."""
    found: dict[str, Any] = await hosted.read_report(session, caller, run_id, seat_no)
    return SandboxReport(**found)
