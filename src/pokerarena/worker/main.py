"""The worker: the queue's loop, the reaper, and the player processes, in one parent process.

Owns start, signals and the order of the end. It never plays itself: its event loop belongs to the
queue's heartbeat and to the reaper. The first SIGTERM or SIGINT drains, the second one ends at once.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final, NoReturn
from uuid import UUID

import psycopg
from procrastinate.exceptions import ProcrastinateException
from psycopg_pool import PoolTimeout
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from pokerarena.db import Database
from pokerarena.errors import ArenaError, Unavailable
from pokerarena.history.partitions import ensure_partitions
from pokerarena.ids import IdKind, id_text
from pokerarena.jobs import CHECKS_QUEUE, RUNS_QUEUE
from pokerarena.metrics import Aggregate
from pokerarena.outage import outage
from pokerarena.retrying import RetryPolicy
from pokerarena.runs.claim import expire_leases
from pokerarena.runs.models import Run
from pokerarena.sealing import open_sealer
from pokerarena.settings import Settings
from pokerarena.telemetry import configure_logging, get_logger
from pokerarena.worker.lookout import Lookout
from pokerarena.worker.processes import PLAYER_MODULE, PlayerProcesses
from pokerarena.worker.reaper import reap
from pokerarena.worker.tasks import queue_app

log = get_logger("worker.main")

JOBS_AT_ONCE: Final = 32
POLL_S: Final = 2.0
QUEUE_RETRIES: Final = RetryPolicy(base_s=0.1, cap_s=5.0)
# Jobs only hand a run over; one that does not end by then waits for a dead process.
QUEUE_STOP_S: Final = 5.0
DATABASE_CONNECTIONS: Final = 2
# Taken up so often in a row without a complete hand, a run may be what ends the processes.
SUSPECT_RECOVERIES: Final = 2
PARTITIONS_EVERY_S: Final = 3600.0
PARTITIONS_AGAIN_S: Final = 60.0
EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1


def run_worker(
    settings: Settings, processes: int, *, player_command: Sequence[str] = PLAYER_MODULE
) -> int:
    """Work until a signal comes; the exit code."""
    configure_logging(settings.log_level, settings.log_format, role="worker")
    # A key that is missing or wrong is found before a player process needs it.
    open_sealer(settings)
    return asyncio.run(Worker(settings, processes, player_command).run())


class Worker:
    """One worker from start to end."""

    def __init__(self, settings: Settings, processes: int, player_command: Sequence[str]) -> None:
        self._settings = settings
        self._database = Database(
            settings.model_copy(update={"database_pool_size": DATABASE_CONNECTIONS}),
            application_name="pokerarena worker",
        )
        self._counted = Aggregate()
        self._players = PlayerProcesses(
            settings,
            processes,
            on_death=self._player_died,
            command=player_command,
            counted=self._counted,
        )
        self._queue = queue_app(settings, self._begin, self._players.check)
        self._stopping = asyncio.Event()
        self._reap_now = asyncio.Event()
        self._dead_players: list[str] = []

    async def run(self) -> int:
        """Start, work, drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            await self._check_database()
            await self._players.start()
        except ArenaError as error:
            print(f"pokerarena worker: {error.message}", file=sys.stderr)
            return EXIT_FAILED
        log.info("worker_ready")
        queue = asyncio.create_task(self._serve_queue(), name="queue")
        reaper = asyncio.create_task(self._serve_reaper(), name="reaper")
        lookout = asyncio.create_task(self._serve_metrics(), name="metrics")
        partitions = asyncio.create_task(self._serve_partitions(), name="partitions")
        stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
        await asyncio.wait((queue, reaper, stopping), return_when=asyncio.FIRST_COMPLETED)
        failed = not stopping.done()
        if failed:
            log.error("worker_service_ended", queue=queue.done(), reaper=reaper.done())
        # The order matters: no new runs first, then the hands in progress, then the lease.
        services = (queue, reaper, stopping, lookout, partitions)
        for task in services:
            task.cancel()
        await asyncio.wait(services, timeout=QUEUE_STOP_S)
        in_time = await self._players.drain(self._settings.worker_drain_s)
        if not in_time:
            log.error("drain_incomplete", why="player processes were killed at the deadline")
            await self._expire_dead()
        await self._database.close()
        log.info("worker_stopped", drained=in_time)
        return EXIT_FAILED if failed or not in_time else EXIT_DONE

    def _stop(self) -> None:
        if self._stopping.is_set():
            log.warning("worker_killed", why="a second signal came while draining")
            # The player processes are tethered to this one, and end with it.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGKILL)
        log.info("worker_draining", within_s=self._settings.worker_drain_s)
        self._stopping.set()

    async def _check_database(self) -> None:
        """A database that is away for a moment is awaited; one that is wrong ends the worker."""
        give_up_s = time.monotonic() + self._settings.database_start_wait_s
        failures = 0
        while True:
            try:
                async with self._database.session() as session:
                    await session.execute(text("SELECT 1 FROM runs LIMIT 0"))
                return
            except SQLAlchemyError as error:
                if (
                    outage(error) is None
                    or time.monotonic() >= give_up_s
                    or self._stopping.is_set()
                ):
                    self._refuse_database(error)
                failures += 1
                log.warning("database_awaited", why=type(error).__name__)
                await asyncio.sleep(QUEUE_RETRIES.pause_s(failures) or 0)

    def _refuse_database(self, error: SQLAlchemyError) -> NoReturn:
        reason = str(getattr(error, "orig", error)).strip().split("\n", 1)[0]
        raise Unavailable(
            "database_not_ready",
            f"the database cannot be used ({reason}); check POKERARENA_DATABASE_URL, "
            "and that 'pokerarena migrate' has run",
        ) from None

    async def _begin(self, run_id: UUID) -> None:
        async with self._database.session() as session:
            recoveries = await session.scalar(select(Run.recoveries).where(Run.id == run_id))
        if (recoveries or 0) >= SUSPECT_RECOVERIES:
            log.warning(
                "run_played_alone", run_id=id_text(IdKind.RUN, run_id), recoveries=recoveries
            )
            claimed = await self._players.begin_alone(run_id)
        else:
            claimed = await self._players.begin(run_id)
        log.info("job_done", run_id=id_text(IdKind.RUN, run_id), claimed=claimed)

    def _queues(self) -> list[str]:
        """A worker without an agent-host leaves checks to those that have one."""
        return [RUNS_QUEUE, CHECKS_QUEUE] if self._settings.agent_hosts else [RUNS_QUEUE]

    def _player_died(self, name: str) -> None:
        self._dead_players.append(name)
        self._reap_now.set()

    async def _serve_queue(self) -> None:
        """The queue's loop, again after every loss of the database; play goes on meanwhile."""
        failures = 0
        while True:
            try:
                async with self._queue.open_async():
                    await self._queue.run_worker_async(
                        queues=self._queues(),
                        name="pokerarena",
                        concurrency=JOBS_AT_ONCE,
                        fetch_job_polling_interval=POLL_S,
                        install_signal_handlers=False,
                        delete_jobs="successful",
                        shutdown_graceful_timeout=QUEUE_STOP_S,
                    )
                failures = 0
            except (ProcrastinateException, psycopg.Error, PoolTimeout, OSError) as error:
                log.warning("queue_interrupted", why=f"{type(error).__name__}: {error}"[:300])
            failures += 1
            await asyncio.sleep(QUEUE_RETRIES.later_s(failures))

    async def _serve_reaper(self) -> None:
        while True:
            try:
                await self._expire_dead()
                async with self._database.unit_of_work() as session:
                    await reap(session, self._settings)
            except (SQLAlchemyError, psycopg.Error, ProcrastinateException, OSError) as error:
                log.warning("reaper_interrupted", why=f"{type(error).__name__}: {error}"[:300])
            self._reap_now.clear()
            # Spread over the workers, so that they do not all ask at once.
            pause_s = self._settings.reaper_interval_s * random.uniform(0.75, 1.25)  # noqa: S311
            try:
                async with asyncio.timeout(pause_s):
                    await self._reap_now.wait()
            except TimeoutError:
                continue

    async def _serve_partitions(self) -> None:
        """Make room for the coming months; where that fails, hands go to the default partition."""
        while True:
            pause_s = PARTITIONS_EVERY_S
            try:
                async with self._database.unit_of_work() as session:
                    made = await ensure_partitions(session, self._settings.history_months_ahead)
                if made:
                    log.info("partitions_made", count=made)
            except (SQLAlchemyError, psycopg.Error, OSError) as error:
                log.warning("partitions_not_made", why=f"{type(error).__name__}: {error}"[:300])
                pause_s = PARTITIONS_AGAIN_S
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311

    async def _serve_metrics(self) -> None:
        port = self._settings.worker_metrics_port
        if port is not None:
            await Lookout(self._settings, self._database, self._players, self._counted).serve(port)

    async def _expire_dead(self) -> None:
        """Give up the leases of player processes that are known to be dead."""
        while self._dead_players:
            async with self._database.unit_of_work() as session:
                await expire_leases(session, self._dead_players[0])
            self._dead_players.pop(0)
