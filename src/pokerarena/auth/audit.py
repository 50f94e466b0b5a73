"""The audit chain: what happened to accounts, tokens, keys and rights, so that it can be proved.

Owns the events, how they are appended, searched, and checked. `record` queues an event on the
session; it is appended when the session's transaction commits, and vanishes when that does not:
the head of the chain is locked for the commit alone, after every other lock, so that appending
neither deadlocks nor waits for a slow request. Sequence number, time and hash are the database's
(`audit_append`), which is the only way to write a record.

It must never be given a secret, a password or what somebody typed as one: an event names things by
id. It must never be called on the hot path of play.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, select, text
from sqlalchemy import event as orm_events
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from structlog.contextvars import get_contextvars

from pokerarena.auth.models import AuditHead, AuditRecord
from pokerarena.auth.permissions import Principal
from pokerarena.telemetry import get_logger

PENDING: Final = "pokerarena.audit.pending"
GENESIS: Final = bytes(32)
SUBJECT_MAX: Final = 100
DETAIL_TEXT_MAX: Final = 200
VERIFY_BATCH: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

log = get_logger("auth")
_encode = msgspec.json.Encoder(order="sorted").encode

Detail = str | int | bool


class Event(StrEnum):
    """Everything that is recorded; the value is stable."""

    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    ATTEMPTS_THROTTLED = "attempts.throttled"
    SESSION_ENDED = "session.ended"
    SESSIONS_ENDED = "sessions.ended"
    SESSION_REUSE_DETECTED = "session.reuse_detected"
    SECOND_FACTOR_ENROLLED = "second_factor.enrolled"
    SECOND_FACTOR_REMOVED = "second_factor.removed"
    SECOND_FACTOR_FAILED = "second_factor.failed"
    RECOVERY_CODES_RENEWED = "recovery_codes.renewed"
    RECOVERY_CODE_USED = "recovery_code.used"
    PASSWORD_CHANGED = "password.changed"  # noqa: S105  # pragma: allowlist secret
    IDENTITY_LINKED = "identity.linked"
    IDENTITY_UNLINKED = "identity.unlinked"
    IDENTITY_REFUSED = "identity.refused"
    USER_CREATED = "user.created"
    USER_DISABLED = "user.disabled"
    TOKEN_CREATED = "token.created"  # noqa: S105 - the name of an event
    TOKEN_ROTATED = "token.rotated"  # noqa: S105 - the name of an event
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - the name of an event
    TOKEN_REFUSED = "token.refused"  # noqa: S105 - the name of an event
    VIEWER_LINK_CREATED = "viewer_link.created"
    VIEWER_LINK_REVOKED = "viewer_link.revoked"
    MASTER_KEY_ROTATED = "master_key.rotated"
    SIGNING_KEY_ROTATED = "signing_key.rotated"
    SERVICE_KEY_CHANGED = "service_key.changed"  # pragma: allowlist secret
    PERMISSION_REFUSED = "permission.refused"
    # Not there, or not to be known of by whoever asked: told apart neither to them nor here.
    ACCESS_NOT_FOUND = "access.not_found"
    TABLE_EXPOSURE_CHANGED = "table.exposure_changed"
    AGENT_EXPOSURE_CHANGED = "agent.exposure_changed"
    VERSION_SUSPENDED = "version.suspended"
    VERSION_REINSTATED = "version.reinstated"
    VERSION_UPLOADED = "version.uploaded"
    SEAT_TAKEN = "seat.taken"
    SEAT_LEFT = "seat.left"
    PRIVATE_RUN_READ = "private_run.read"
    AUDIT_READ = "audit.read"
    EGRESS_RULE_ADDED = "egress.rule_added"
    EGRESS_RULE_REMOVED = "egress.rule_removed"
    EGRESS_APPROVED = "egress.approved"
    EGRESS_DENIED = "egress.denied"


_actor: ContextVar[Principal] = ContextVar("pokerarena_audit_actor", default=Principal.ANONYMOUS)


def act_as(principal: Principal) -> None:
    """Whatever this request records from now on was done by this principal."""
    _actor.set(principal)


def actor() -> Principal:
    """Who acts; nobody in particular where nobody has logged in, or on the command line."""
    return _actor.get()


def record(
    session: AsyncSession,
    event: Event,
    *,
    principal: Principal | None = None,
    actor_id: UUID | None = None,
    credential_id: UUID | None = None,
    subject: str | None = None,
    **details: Detail,
) -> None:
    """Append one event to the chain when the session's transaction commits.

    Without a `principal` or an `actor_id` it was done by whoever acts in this request.
    `subject` is the id of the thing as the API spells it (``tok_…``); `details` are short and flat.
    Inside a savepoint it is refused: what a savepoint undoes would stay recorded.
    """
    if session.in_nested_transaction():
        raise RuntimeError("audit.record inside a savepoint; record after it")
    if principal is None and actor_id is None:
        principal = actor()
    if principal is not None:
        actor_id = principal.user_id
        credential_id = principal.token_id or principal.session_id
    _pend(
        session,
        _APPEND,
        {
            "event": event.value,
            "actor_id": actor_id,
            "credential_id": credential_id,
            "subject": subject[:SUBJECT_MAX] if subject else None,
            "request_id": get_contextvars().get("request_id"),
            "details": canonical_details(details),
        },
    )


def record_judgement(
    session: AsyncSession, event: Event, *, subject: str, **details: Detail
) -> None:
    """The same for what the arena decided by itself, which the worker's role may append: nobody
    acted, and the database takes no events so but those of versions suspended and reinstated."""
    values = {
        "event": event.value,
        "subject": subject[:SUBJECT_MAX],
        "details": canonical_details(details),
    }
    _pend(session, _APPEND_JUDGEMENT, values)


def _pend(session: AsyncSession, statement: TextClause, values: dict[str, Any]) -> None:
    session.info.setdefault(PENDING, []).append((statement, values))


def canonical_details(details: dict[str, Detail]) -> str:
    """The one JSON text of some details: sorted, without spaces, texts bounded."""
    return _encode(
        {
            name: value[:DETAIL_TEXT_MAX] if isinstance(value, str) else value
            for name, value in details.items()
        }
    ).decode()


_APPEND = text(
    "SELECT seq, hash FROM audit_append(:event, :actor_id, :credential_id, :subject, :request_id, "
    ":details)"
)
_APPEND_JUDGEMENT = text("SELECT seq, hash FROM audit_append_judgement(:event, :subject, :details)")


@orm_events.listens_for(Session, "before_commit")
def _append(session: Session) -> None:
    if session.in_nested_transaction():
        return
    for statement, values in session.info.pop(PENDING, ()):
        seq, link = session.execute(statement, values).one()
        # Logs leave this machine: each line is a witness of the chain that nobody here can change.
        log.info("audit", event_name=values["event"], seq=seq, hash=link.hex())


@orm_events.listens_for(Session, "after_transaction_end")
def _forget(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(PENDING, None)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are asked for; what is None does not matter."""

    event: str | None = None
    actor_id: UUID | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def search(
    session: AsyncSession, wanted: Filter, *, before_seq: int | None, limit: int
) -> list[AuditRecord]:
    """The records that fit, newest first."""
    query = select(AuditRecord).order_by(AuditRecord.seq.desc()).limit(limit)
    if before_seq is not None:
        query = query.where(AuditRecord.seq < before_seq)
    if wanted.event is not None:
        query = query.where(AuditRecord.event == wanted.event)
    if wanted.actor_id is not None:
        query = query.where(AuditRecord.actor_id == wanted.actor_id)
    if wanted.subject is not None:
        query = query.where(AuditRecord.subject == wanted.subject)
    if wanted.since is not None:
        query = query.where(AuditRecord.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(AuditRecord.at < wanted.until)
    return list(await session.scalars(query))


@dataclass(frozen=True, slots=True)
class Break:
    """Where the chain does not hold, and what is wrong there."""

    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found; `head` is the pair to keep somewhere else."""

    records: int
    head_seq: int
    head_hash: bytes
    broken: Break | None


async def verify(
    session: AsyncSession, *, anchor_seq: int | None = None, anchor_hash: bytes | None = None
) -> Verdict:
    """Walk the whole chain, with an independent computation of every hash.

    An anchor is the head of an earlier time, kept outside the database: with it a chain that was
    rewritten from that record on, or cut off before it, is found as well.
    """
    head = await session.get_one(AuditHead, True)
    head_seq, head_hash = head.seq, head.hash
    count, previous = 0, GENESIS
    anchor_met = anchor_seq is None
    broken: Break | None = None
    async for row in _walk(session, head_seq):
        count += 1
        broken = _break_at(row, count, previous)
        if broken is None and row.seq == anchor_seq:
            anchor_met = True
            if row.hash != anchor_hash:
                broken = Break(row.seq, "is not the record of the anchor")
        if broken is not None:
            break
        previous = row.hash
    if broken is None and (count, previous) != (head_seq, head_hash):
        broken = Break(count + 1, "is missing: the chain ends before its head")
    if broken is None and not anchor_met:
        broken = Break(anchor_seq or 0, "is missing: the anchor lies beyond the head")
    return Verdict(count, head_seq, head_hash, broken)


async def _walk(session: AsyncSession, last_seq: int) -> AsyncIterator[AuditRecord]:
    """Every record up to the head that was read first; what is appended meanwhile is not asked."""
    after = None
    while True:
        query = select(AuditRecord).where(AuditRecord.seq <= last_seq)
        if after is not None:
            query = query.where(AuditRecord.seq > after)
        rows = list(await session.scalars(query.order_by(AuditRecord.seq).limit(VERIFY_BATCH)))
        for row in rows:
            yield row
        if len(rows) < VERIFY_BATCH:
            return
        after = rows[-1].seq
        session.expunge_all()


def _break_at(row: AuditRecord, expected_seq: int, previous: bytes) -> Break | None:
    if row.seq != expected_seq:
        return Break(expected_seq, "is missing")
    if row.previous != previous:
        return Break(row.seq, "does not follow the record before it")
    if chain_hash(previous, row) != row.hash:
        return Break(row.seq, "was changed")
    return None


def chain_hash(previous: bytes, row: AuditRecord) -> bytes:
    """The hash of a record as documented: SHA-256 of the hash before and eight bounded fields."""
    digest = hashlib.sha256(previous)
    for field in _fields(row):
        digest.update(field)
    return digest.digest()


def _fields(row: AuditRecord) -> Iterator[bytes]:
    values: tuple[Any, ...] = (
        row.seq,
        (row.at - _EPOCH) // _MICROSECOND,
        row.event,
        row.actor_id,
        row.credential_id,
        row.subject,
        row.request_id,
        row.details,
    )
    for value in values:
        if value is None:
            yield struct.pack(">i", -1)
        else:
            encoded = str(value).encode()
            yield struct.pack(">i", len(encoded)) + encoded
