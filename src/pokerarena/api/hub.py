"""The live hub: what this process knows of the tables that somebody watches now.

One connection listens for the worker's notifications and one short transaction a second says which
tables are watched and reads their runs' counters, however many watch. It keeps the latest only: a
slow watcher skips moments and never makes a queue grow. A live hand holds hidden cards, so nothing
of it leaves this process but through `engine.view`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import Uuid

from pokerarena import metrics
from pokerarena.db import Database
from pokerarena.errors import Unavailable
from pokerarena.history.live import LIVE_CHANNEL, LiveHand, decode_live
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger

REFRESH_S = 1.0
# Long enough that one missed refresh changes nothing, short enough that workers soon rest.
WATCH_TTL_S = 5.0
# A table whose state is polled counts as watched for so long.
TOUCH_S = 10.0
TOUCHED_TABLES_MAX = 10_000
LISTEN_CHECK_S = 10.0
LISTEN_ANSWER_S = 5.0
RECONNECT_MAX_S = 5.0

log = get_logger("api.hub")

_WATCH = text(
    "INSERT INTO live_watches (table_id, expires_at)"
    " SELECT id, now() + make_interval(secs => :ttl) FROM unnest(:ids) AS id ORDER BY id"
    " ON CONFLICT (table_id) DO UPDATE"
    " SET expires_at = greatest(live_watches.expires_at, excluded.expires_at)"
).bindparams(bindparam("ids", type_=ARRAY(Uuid())))
# The active run of each table, or else its newest.
_PULSES = text(
    "SELECT t.id AS table_id, r.id AS run_id, r.status, r.hands_done, r.hands_target,"
    " r.failure_code FROM unnest(:ids) AS t(id) CROSS JOIN LATERAL ("
    "  (SELECT * FROM runs WHERE table_id = t.id AND status IN ('queued', 'running') LIMIT 1)"
    "  UNION ALL"
    "  (SELECT * FROM runs WHERE table_id = t.id ORDER BY id DESC LIMIT 1) LIMIT 1) AS r"
).bindparams(bindparam("ids", type_=ARRAY(Uuid())))
_FORGET = text("DELETE FROM live_watches WHERE expires_at < now() - interval '1 hour'")


class Pulse(NamedTuple):
    """The counters of the run that a table is at."""

    run_id: UUID
    status: str
    hands_done: int
    hands_target: int
    failure_code: str | None


@dataclass(slots=True)
class Watched:
    """What is known of one watched table. The numbers rise with each news."""

    hand: LiveHand | None = None
    hand_seq: int = 0
    pulse: Pulse | None = None
    pulse_seq: int = 0
    touched_until: float = 0.0
    # What was rendered of the latest hand, by viewer: many watchers see with the same eyes.
    rendered: dict[Any, bytes] = field(default_factory=dict)
    watchers: set[asyncio.Event] = field(default_factory=set)

    def tell(self) -> None:
        for news in self.watchers:
            news.set()


class Subscription(NamedTuple):
    """One stream's hold on a table: what is known, and the event that says it changed."""

    watched: Watched
    news: asyncio.Event


class LiveHub:
    """The hub of one process. Its tasks start with the first watcher."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._streams_max = settings.stream_max_per_process
        self._streams = 0
        self._counted = metrics.STREAMS_OPEN.number()
        self._tables: dict[UUID, Watched] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.closing = asyncio.Event()

    @contextmanager
    def subscribe(self, table_id: UUID) -> Iterator[Subscription]:
        """Hold on to a table's news. Raises `Unavailable` when the process has enough streams."""
        if self.closing.is_set():
            raise Unavailable("shutting_down", "This process ends in a moment; ask another one.")
        if self._streams >= self._streams_max:
            raise Unavailable(
                "too_many_streams", "This server has as many live streams as it can; try again."
            )
        news = asyncio.Event()
        self._streams += 1
        self._counted.add()
        watched = self._watch(table_id)
        watched.watchers.add(news)
        try:
            yield Subscription(watched, news)
        finally:
            watched.watchers.discard(news)
            self._streams -= 1
            self._counted.add(-1)

    def touch(self, table_id: UUID) -> Watched | None:
        """Count a table as watched for a while, and say what is known of it now."""
        if table_id not in self._tables and len(self._tables) >= TOUCHED_TABLES_MAX:
            return None
        watched = self._watch(table_id)
        watched.touched_until = time.monotonic() + TOUCH_S
        return watched

    def end_streams(self) -> None:
        """Ask every stream to end, so that the process can."""
        self.closing.set()
        for watched in self._tables.values():
            watched.tell()

    async def close(self) -> None:
        """End the streams and the hub's own tasks."""
        self.end_streams()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    def _watch(self, table_id: UUID) -> Watched:
        if not self._tasks and not self.closing.is_set():
            self._tasks = [
                asyncio.create_task(self._listen_always(), name="live-listen"),
                asyncio.create_task(self._refresh_always(), name="live-refresh"),
            ]
        watched = self._tables.get(table_id)
        if watched is None:
            watched = self._tables[table_id] = Watched()
            self._wake.set()
        return watched

    # What the worker notifies.

    async def _listen_always(self) -> None:
        failures = 0
        while True:
            try:
                await self._listen()
                failures = 0
            except (psycopg.Error, OSError, TimeoutError) as error:
                failures += 1
                log.warning("live_listen_lost", kind=type(error).__name__, failures=failures)
            except Exception:
                failures += 1
                log.exception("live_listen_failed", failures=failures)
            cap_s = min(RECONNECT_MAX_S, 0.2 * 2 ** min(failures, 5))
            await asyncio.sleep(random.uniform(0.1, cap_s))  # noqa: S311 - spreads reconnects

    async def _listen(self) -> None:
        engine = self._database.engine
        _, options = engine.dialect.create_connect_args(engine.url)
        async with await AsyncConnection.connect(
            autocommit=True,
            **{**options, "application_name": "pokerarena-api-live", "connect_timeout": 5},
        ) as connection:
            await connection.execute(f"LISTEN {LIVE_CHANNEL}")
            while True:
                async for notification in connection.notifies(timeout=LISTEN_CHECK_S):
                    self._take(notification.payload)
                # Silence may be a dead connection: only an answer proves that it lives.
                async with asyncio.timeout(LISTEN_ANSWER_S):
                    await connection.execute("SELECT 1")

    def _take(self, payload: str) -> None:
        try:
            live = decode_live(payload)
        except Exception as error:
            # Whoever may notify may send anything; what it is is not logged, for it may hold cards.
            log.warning("live_payload_unreadable", kind=type(error).__name__)
            return
        watched = self._tables.get(live.table_id)
        if watched is None:
            return
        watched.hand = live
        watched.hand_seq += 1
        watched.rendered.clear()
        watched.tell()

    # What the hub says and asks about once a second.

    async def _refresh_always(self) -> None:
        rounds = 0
        while True:
            self._wake.clear()
            self._drop_idle()
            if self._tables:
                try:
                    await self._refresh(forget=rounds % 600 == 0)
                except (SQLAlchemyError, OSError) as error:
                    log.warning("live_refresh_failed", kind=type(error).__name__)
                except Exception:
                    log.exception("live_refresh_failed")
                rounds += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S if self._tables else None):
                    await self._wake.wait()

    def _drop_idle(self) -> None:
        now = time.monotonic()
        idle = [
            table_id
            for table_id, watched in self._tables.items()
            if not watched.watchers and watched.touched_until < now
        ]
        for table_id in idle:
            del self._tables[table_id]

    async def _refresh(self, *, forget: bool) -> None:
        ids = list(self._tables)
        async with self._database.unit_of_work() as session:
            await session.execute(_WATCH, {"ids": ids, "ttl": WATCH_TTL_S})
            if forget:
                await session.execute(_FORGET)
            rows = (await session.execute(_PULSES, {"ids": ids})).all()
        for table_id, *values in rows:
            watched = self._tables.get(table_id)
            pulse = Pulse(*values)
            if watched is not None and watched.pulse != pulse:
                watched.pulse = pulse
                watched.pulse_seq += 1
                watched.tell()
