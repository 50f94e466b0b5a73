"""What keeps the runs of a player process alive while they are played.

Owns the renewal of leases, the word to stop, and the live view of watched tables. Each service
survives the loss of its connection. None of them plays, and none of them stores a hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from sqlalchemy.exc import DBAPIError

from pokerarena.db import Database, connect_args
from pokerarena.history.live import encode_live, publish, watched_tables
from pokerarena.ids import IdKind, id_text
from pokerarena.retrying import RetryPolicy
from pokerarena.runs import claim as claims
from pokerarena.runs.claim import Claim
from pokerarena.runs.seams import Control, Halt, Moment
from pokerarena.runs.service import CONTROL_CHANNEL
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger
from pokerarena.worker.committer import GroupCommitter, libpq_url
from pokerarena.worker.runlog import FenceLost, RunLog

log = get_logger("worker.upkeep")

WATCH_INTERVAL_S: Final = 1.0
SERVICE_RETRIES: Final = RetryPolicy(base_s=0.5, cap_s=2.0)


class Playing:
    """One run that this process has claimed."""

    def __init__(self, claim: Claim, run_log: RunLog) -> None:
        self.claim = claim
        self.log = run_log
        self.control = Control()
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.last_shown: Moment | None = None


class Upkeep:
    """The services of one player process, over the runs that it plays."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        committer: GroupCommitter,
        playing: Mapping[UUID, Playing],
        *,
        name: str,
        also: Mapping[str, Callable[[], Awaitable[None]]],
    ) -> None:
        """`also` are services of others that a lost connection must not end either."""
        self._also = also
        self._settings = settings
        self._database = database
        self._committer = committer
        self._playing = playing
        self._name = name

    async def serve(self) -> None:
        """Keep leases, commits, control and live views going until cancelled."""
        async with asyncio.TaskGroup() as services:
            services.create_task(self._committer.run(), name="committer")
            services.create_task(self._pass_on_stops(), name="stops")
            services.create_task(self._forever(self._renew_leases), name="leases")
            services.create_task(self._forever(self._listen), name="control")
            services.create_task(self._forever(self._show), name="live")
            for name, service in self._also.items():
                services.create_task(self._forever(service), name=name)

    async def _forever(self, service: Callable[[], Awaitable[None]]) -> None:
        """A service that a lost connection interrupts, and does not end."""
        failures = 0
        while True:
            began_s = time.monotonic()
            try:
                await service()
            except (DBAPIError, psycopg.Error, OSError, TimeoutError) as error:
                log.warning(
                    "service_interrupted", service=service.__name__, why=type(error).__name__
                )
                lasted_s = time.monotonic() - began_s
                failures = 0 if lasted_s > SERVICE_RETRIES.cap_s else failures + 1
                await asyncio.sleep(SERVICE_RETRIES.pause_s(failures) or 0)

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.run_lease_renew_s)
            held = {run_id: playing.claim.epoch for run_id, playing in self._playing.items()}
            if not held:
                continue
            began_s = time.monotonic()
            async with self._database.unit_of_work() as session:
                renewal = await claims.renew(session, held, lease_s=self._settings.run_lease_s)
            for run_id in renewal.renewed:
                if (playing := self._holding(run_id, held)) is not None:
                    playing.log.renewed(began_s + self._settings.run_lease_s)
            for run_id in renewal.stop_requested:
                self._stop(run_id)
            for run_id in renewal.lost:
                if (playing := self._holding(run_id, held)) is not None:
                    log.warning(
                        "fence_lost", run_id=id_text(IdKind.RUN, run_id), epoch=held[run_id]
                    )
                    playing.log.end(FenceLost())

    def _holding(self, run_id: UUID, held: dict[UUID, int]) -> Playing | None:
        """The run, if it is still played under the epoch that was asked about."""
        playing = self._playing.get(run_id)
        return playing if playing is not None and playing.claim.epoch == held[run_id] else None

    async def _pass_on_stops(self) -> None:
        while True:
            run_log = await self._committer.stop_wanted.get()
            self._stop(run_log.run_id)

    def _stop(self, run_id: UUID) -> None:
        playing = self._playing.get(run_id)
        if playing is not None:
            playing.control.ask(Halt.STOP)

    async def _listen(self) -> None:
        connection = await AsyncConnection.connect(
            libpq_url(self._settings),
            autocommit=True,
            application_name=f"pokerarena control {self._name}",
            **connect_args(self._settings, bounded=False),
        )
        async with connection:
            await connection.execute(f"LISTEN {CONTROL_CHANNEL}")
            async for notification in connection.notifies():
                try:
                    self._stop(UUID(notification.payload))
                except ValueError:
                    log.warning("control_unreadable", payload=notification.payload[:80])

    async def _show(self) -> None:
        """Publish the tables that somebody watches, and find out once a second which they are."""
        next_look_s = 0.0
        while True:
            await asyncio.sleep(1 / self._settings.live_updates_per_s)
            if not self._playing:
                continue
            now_s = time.monotonic()
            if now_s >= next_look_s:
                next_look_s = now_s + WATCH_INTERVAL_S
                await self._look_who_watches()
            payloads = []
            for playing in list(self._playing.values()):
                moment = playing.log.moment
                if moment is None or moment is playing.last_shown:
                    continue
                playing.last_shown = moment
                run = playing.claim.run
                payload = encode_live(run.table_id, run.id, moment, datetime.now(UTC))
                if payload is not None:
                    payloads.append(payload)
            if payloads:
                async with self._database.unit_of_work() as session:
                    await publish(session, payloads)

    async def _look_who_watches(self) -> None:
        tables = [playing.claim.run.table_id for playing in self._playing.values()]
        async with self._database.session() as session:
            watched = await watched_tables(session, tables)
        for playing in self._playing.values():
            playing.log.watched = playing.claim.run.table_id in watched
            if not playing.log.watched:
                playing.log.moment = None
