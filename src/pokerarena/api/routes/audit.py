"""The audit chain, for operators to search."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import Page, Shown, UserId
from pokerarena.auth import audit
from pokerarena.auth.audit import SUBJECT_MAX, Event, Filter
from pokerarena.auth.models import AuditRecord
from pokerarena.auth.permissions import Permission, Principal

router = APIRouter(prefix="/audit", tags=["audit"])


class WhichRecords(PageQuery):
    """Which records; what is left out does not matter."""

    event: Event | None = None
    actor_id: UserId | None = None
    subject: Annotated[
        str | None, Field(max_length=SUBJECT_MAX, description="an id as the API spells it")
    ] = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class RecordShown(Shown):
    """One security event, with its place in the chain."""

    seq: int
    at: datetime
    event: str
    actor_id: UserId | None
    subject: str | None
    request_id: str | None
    details: dict[str, Any]
    hash: str

    @classmethod
    def of(cls, row: AuditRecord) -> RecordShown:
        return cls(
            seq=row.seq,
            at=row.at,
            event=row.event,
            actor_id=row.actor_id,
            subject=row.subject,
            request_id=row.request_id,
            details=json.loads(row.details),
            hash=row.hash.hex(),
        )


@router.get("")
async def list_audit(
    _: Annotated[Principal, needs(Permission.AUDIT_READ)],
    which: Annotated[WhichRecords, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[RecordShown]:
    """Security events, newest first. The first page of a search is recorded itself."""
    limit = which.bounded_limit(parts.settings)
    wanted = Filter(
        event=which.event.value if which.event is not None else None,
        actor_id=which.actor_id,
        subject=which.subject,
        since=which.since.astimezone(UTC) if which.since is not None else None,
        until=which.until.astimezone(UTC) if which.until is not None else None,
    )
    before_seq = which.number("audit")
    rows = await audit.search(session, wanted, before_seq=before_seq, limit=limit + 1)
    if before_seq is None:
        audit.record(session, Event.AUDIT_READ)
    rows_shown, cursor = cut(rows, limit, "audit", lambda row: row.seq)
    return Page(items=[RecordShown.of(row) for row in rows_shown], next_cursor=cursor)
