"""What a worker tells Prometheus: its players' counts, and how the whole arena stands.

Owns the questions to the database about queue and runs. Every worker asks the same and gets the
same answers, so that they are known for as long as one worker lives; rules take the maximum.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, NoReturn

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena import metrics
from pokerarena.db import Database
from pokerarena.exposition import MetricsServer
from pokerarena.history.partitions import covered_until
from pokerarena.jobs import CHECKS_QUEUE, RUNS_QUEUE
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger
from pokerarena.worker.processes import PlayerProcesses

log = get_logger("worker.lookout")

QUEUES: Final = (RUNS_QUEUE, CHECKS_QUEUE)
JOB_STATUSES: Final = ("todo", "doing", "failed")
RUN_STATUSES: Final = ("queued", "running")

_JOBS: Final = text(
    "SELECT queue_name, status::text, count(*) FROM procrastinate_jobs"
    " WHERE queue_name = ANY(:queues) AND status IN ('todo', 'doing', 'failed') GROUP BY 1, 2"
)
# A job that full workers send back again and again has waited since it was made.
_OLDEST_JOB: Final = text(
    "SELECT j.queue_name, extract(epoch FROM clock_timestamp() - min(e.at))"
    " FROM procrastinate_jobs j JOIN procrastinate_events e"
    " ON e.job_id = j.id AND e.type = 'deferred'"
    " WHERE j.queue_name = ANY(:queues) AND j.status = 'todo' GROUP BY 1"
)
_DEAD_LETTERS: Final = text("SELECT count(*) FROM dead_letters WHERE state = 'open'")
_RUNS: Final = text(
    "SELECT status, count(*),"
    " extract(epoch FROM clock_timestamp() - min(coalesce(started_at, created_at))),"
    " count(*) FILTER (WHERE status = 'running' AND lease_expires_at < clock_timestamp())"
    " FROM runs WHERE status IN ('queued', 'running') GROUP BY status"
)


class Lookout:
    """Serves a worker's metrics, and keeps those of the arena fresh."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        players: PlayerProcesses,
        counted: metrics.Aggregate,
    ) -> None:
        self._settings = settings
        self._database = database
        self._players = players
        self._server = MetricsServer(counted)

    async def serve(self, port: int) -> NoReturn:
        """Listen and look until cancelled."""
        try:
            await self._server.start(self._settings.metrics_host, port)
        except OSError as error:
            # A worker that nobody can watch still plays.
            log.error("metrics_not_listening", port=port, why=error.strerror)
        try:
            while True:
                metrics.PLAYERS.number().set(self._players.living)
                await self._look()
                await asyncio.sleep(self._settings.metrics_interval_s)
        finally:
            await self._server.close()

    async def _look(self) -> None:
        try:
            async with self._database.session() as session:
                await look(session)
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            log.warning("lookout_interrupted", why=type(error).__name__)


async def look(session: AsyncSession) -> None:
    """Ask the database once, and set the arena's gauges."""
    jobs = {(queue, status): 0 for queue in QUEUES for status in JOB_STATUSES}
    for queue, status, count in await session.execute(_JOBS, {"queues": list(QUEUES)}):
        jobs[queue, status] = count
    oldest_s = dict.fromkeys(QUEUES, 0.0)
    for queue, waited_s in await session.execute(_OLDEST_JOB, {"queues": list(QUEUES)}):
        oldest_s[queue] = float(waited_s)
    dead_letters = await session.scalar(_DEAD_LETTERS)
    runs = dict.fromkeys(RUN_STATUSES, (0, 0.0))
    unattended = 0
    for status, count, age_s, left in await session.execute(_RUNS):
        runs[status] = (count, float(age_s or 0))
        unattended += left
    covered = await covered_until(session)
    for (queue, status), count in jobs.items():
        metrics.QUEUE_JOBS.number(queue, status).set(count)
    for queue, waited_s in oldest_s.items():
        metrics.QUEUE_OLDEST_SECONDS.number(queue).set(waited_s)
    metrics.DEAD_LETTERS.number().set(dead_letters or 0)
    for status, (count, age_s) in runs.items():
        metrics.RUNS_ACTIVE.number(status).set(count)
        metrics.RUNS_OLDEST_SECONDS.number(status).set(age_s)
    metrics.RUNS_UNATTENDED.number().set(unattended)
    metrics.HISTORY_COVERED_UNTIL.number().set(covered.timestamp() if covered else 0.0)
    metrics.ARENA_LOOKED_AT.number().set(time.time())
