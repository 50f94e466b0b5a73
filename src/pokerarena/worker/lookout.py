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
from pokerarena.jobs import PLAY_RUN_TASK
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger
from pokerarena.worker.processes import PlayerProcesses

log = get_logger("worker.lookout")

JOB_STATUSES: Final = ("todo", "doing", "failed")
RUN_STATUSES: Final = ("queued", "running")

_JOBS: Final = text(
    "SELECT status::text, count(*) FROM procrastinate_jobs"
    " WHERE task_name = :task AND status IN ('todo', 'doing', 'failed') GROUP BY status"
)
# A job that full workers send back again and again has waited since it was made.
_OLDEST_JOB: Final = text(
    "SELECT extract(epoch FROM clock_timestamp() - min(e.at))"
    " FROM procrastinate_jobs j JOIN procrastinate_events e"
    " ON e.job_id = j.id AND e.type = 'deferred'"
    " WHERE j.task_name = :task AND j.status = 'todo'"
)
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
    jobs = dict.fromkeys(JOB_STATUSES, 0)
    for status, count in await session.execute(_JOBS, {"task": PLAY_RUN_TASK}):
        jobs[status] = count
    oldest_s = await session.scalar(_OLDEST_JOB, {"task": PLAY_RUN_TASK})
    runs = dict.fromkeys(RUN_STATUSES, (0, 0.0))
    unattended = 0
    for status, count, age_s, left in await session.execute(_RUNS):
        runs[status] = (count, float(age_s or 0))
        unattended += left
    covered = await covered_until(session)
    for status, count in jobs.items():
        metrics.QUEUE_JOBS.number(status).set(count)
    metrics.QUEUE_OLDEST_SECONDS.number().set(float(oldest_s or 0))
    for status, (count, age_s) in runs.items():
        metrics.RUNS_ACTIVE.number(status).set(count)
        metrics.RUNS_OLDEST_SECONDS.number(status).set(age_s)
    metrics.RUNS_UNATTENDED.number().set(unattended)
    metrics.HISTORY_COVERED_UNTIL.number().set(covered.timestamp() if covered else 0.0)
    metrics.ARENA_LOOKED_AT.number().set(time.time())
