"""Requests that may be sent again: ``Idempotency-Key`` on every route that changes something.

Owns the key, the fingerprint and the kept answer. The record is written in the transaction of what
the request changed, so a crash leaves both or neither; while that transaction is open an advisory
lock tells a duplicate that it is in progress. Only what succeeded is kept: a refusal changed
nothing, and is judged anew. It must never answer before the caller's permission is checked, and
never keep an answer unsealed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from fastapi import Request, Response
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.api.bodies import StrictRoute
from pokerarena.api.context import Parts
from pokerarena.api.models import IdempotencyRecord
from pokerarena.auth.permissions import Principal
from pokerarena.db import Database
from pokerarena.errors import Conflict, Invalid
from pokerarena.telemetry import get_logger

HEADER: Final = "Idempotency-Key"
REPLAYED_HEADER: Final = "Idempotency-Replayed"
CHANGING_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SEAL_PURPOSE: Final = "idempotency-answer"
SWEEP_BATCH: Final = 5_000
_KEPT_HEADERS: Final = ("content-type", "location")
# The draft's form is a quoted string; a bare one means the same.
_KEY: Final = re.compile(r'"([!#-~]{1,128})"|([!#-~]{1,128})')

log = get_logger("api.idempotency")


class KeptAnswer(msgspec.Struct, frozen=True):
    """What is sealed: enough to give the same answer again."""

    headers: dict[str, str]
    body: bytes


class Replayed(Exception):
    """The request was done before: this is its answer."""

    def __init__(self, response: Response) -> None:
        super().__init__("replayed")
        self.response = response


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that is done for the first time, and whose answer is to be kept."""

    session: AsyncSession
    parts: Parts
    user_id: UUID
    key_sha256: bytes
    fingerprint: bytes

    async def keep(self, response: Response) -> None:
        """Write the answer into the transaction of what the request changed."""
        if response.status_code >= 400:
            return
        settings = self.parts.settings
        answer = KeptAnswer(
            {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers},
            bytes(response.body),
        )
        sealed = None
        if len(answer.body) <= settings.idempotency_answer_max_bytes:
            sealed = await self.parts.sealer.seal(
                msgspec.msgpack.encode(answer),
                purpose=SEAL_PURPOSE,
                owner=_owner(self.user_id, self.key_sha256),
            )
        values = {
            "fingerprint": self.fingerprint,
            "status": response.status_code,
            "answer_sealed": sealed,
            "created_at": func.now(),
            "expires_at": func.now()
            + func.make_interval(0, 0, 0, 0, 0, 0, settings.idempotency_ttl_s),
        }
        # What is in the way has expired: a living record would have been replayed.
        await self.session.execute(
            insert(IdempotencyRecord)
            .values(user_id=self.user_id, key_sha256=self.key_sha256, **values)
            .on_conflict_do_update(index_elements=["user_id", "key_sha256"], set_=values)
        )


async def begin(
    request: Request, parts: Parts, session: AsyncSession, principal: Principal
) -> Pending | None:
    """Called once the caller may make this request. None when there is nothing to keep.

    Raises `Replayed` with the answer of the first time, `Conflict` (``idempotency_in_progress``,
    ``idempotency_answer_not_kept``) and `Invalid` (``idempotency_key_invalid``,
    ``idempotency_key_reused``). Requests of nobody in particular have nobody to keep a key for.
    """
    given = request.headers.get(HEADER)
    if given is None or request.method not in CHANGING_METHODS or principal.user_id is None:
        return None
    found = _KEY.fullmatch(given.strip())
    if found is None:
        raise Invalid(
            "idempotency_key_invalid",
            f"{HEADER} is 1 to 128 visible ASCII characters, best a new UUID for each request.",
        )
    user_id = principal.user_id
    key_sha256 = hashlib.sha256((found[1] or found[2]).encode()).digest()
    owner = _owner(user_id, key_sha256)
    lock = int.from_bytes(hashlib.sha256(owner).digest()[:8], signed=True)
    if not await session.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": lock}):
        raise Conflict(
            "idempotency_in_progress",
            "The first request with this key is still in progress; send this one again shortly.",
        )
    fingerprint = await _fingerprint(request)
    mac = parts.token_mac
    record = await session.scalar(
        select(IdempotencyRecord).where(
            IdempotencyRecord.user_id == user_id,
            IdempotencyRecord.key_sha256 == key_sha256,
            IdempotencyRecord.expires_at > func.now(),
        )
    )
    if record is None:
        return Pending(session, parts, user_id, key_sha256, mac.of(fingerprint))
    if record.fingerprint not in mac.candidates(fingerprint):
        raise Invalid(
            "idempotency_key_reused",
            "This key was used for another request; make a new key for each request.",
        )
    if record.answer_sealed is None:
        raise Conflict(
            "idempotency_answer_not_kept",
            "This request was done before, and its answer was too large to keep; "
            "read what it changed instead.",
        )
    opened = await parts.sealer.open(record.answer_sealed, purpose=SEAL_PURPOSE, owner=owner)
    answer = msgspec.msgpack.decode(opened, type=KeptAnswer)
    raise Replayed(
        Response(answer.body, record.status, {**answer.headers, REPLAYED_HEADER: "true"})
    )


class IdempotentRoute(StrictRoute):
    """A route whose changes are made once for each key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except Replayed as replayed:
                return replayed.response
            pending: Pending | None = getattr(request.state, "idempotency", None)
            if pending is not None:
                # The request's transaction is still open here: it ends before the answer is sent.
                await pending.keep(response)
            return response

        return answer


async def sweep(database: Database) -> int:
    """Delete what has expired, a batch a transaction; how many records that were."""
    swept = 0
    while True:
        async with database.unit_of_work() as session:
            gone = await session.execute(_SWEEP, {"batch": SWEEP_BATCH})
            count = len(gone.all())
        swept += count
        if count < SWEEP_BATCH:
            return swept


async def sweep_forever(database: Database, interval_s: float) -> None:
    """Sweep now and then until cancelled; a lost database is tried again at the next turn."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            swept = await sweep(database)
        except (DBAPIError, PoolTimeout, OSError) as error:
            log.warning("idempotency_sweep_failed", why=type(error).__name__)
            continue
        if swept:
            log.info("idempotency_swept", records=swept)


_SWEEP = text(
    """
    DELETE FROM idempotency_records r USING (
        SELECT user_id, key_sha256 FROM idempotency_records
        WHERE expires_at <= now() ORDER BY expires_at LIMIT :batch FOR UPDATE SKIP LOCKED
    ) AS old
    WHERE r.user_id = old.user_id AND r.key_sha256 = old.key_sha256
    RETURNING 1
    """
)


def _owner(user_id: UUID, key_sha256: bytes) -> bytes:
    return user_id.bytes + key_sha256


async def _fingerprint(request: Request) -> str:
    """What makes it the same request: where it goes, and each byte of its body.

    Stored as a MAC only: a body may hold a password, which its bare hash would let one guess.
    """
    digest = hashlib.sha256()
    for part in (
        request.method.encode(),
        request.url.path.encode(),
        request.url.query.encode(),
        await request.body(),
    ):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return f"request {digest.hexdigest()}"
