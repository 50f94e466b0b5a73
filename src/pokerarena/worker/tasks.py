"""The queue's side of the worker: its two tasks, and how often they are tried.

A job starts a run: it is done as soon as a player process has claimed the run. From there the row
in `runs` owns it, by lease and epoch, whatever becomes of the queue. Nothing here blocks, so the
queue's heartbeat never waits for play. A check of a hosted version lasts as long as its job, and is
tried until it comes to a verdict: whatever is in its way is ours.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from procrastinate import App, BaseRetryStrategy, PsycopgConnector, RetryDecision
from procrastinate.jobs import Job

from pokerarena.db import connect_args
from pokerarena.jobs import CHECK_VERSION_TASK, CHECKS_QUEUE, PLAY_RUN_TASK, RUNS_QUEUE
from pokerarena.retrying import RetryPolicy
from pokerarena.settings import Settings
from pokerarena.worker.committer import libpq_url

JOB_RETRIES: Final = RetryPolicy(base_s=0.5, cap_s=30.0, attempts_max=8)
CHECK_RETRIES: Final = RetryPolicy(base_s=0.5, cap_s=60.0)
FULL_PAUSE_S: Final = (0.5, 3.0)
# The listener holds one connection; fetching, finishing and the heartbeat share the rest.
QUEUE_CONNECTIONS_MAX: Final = 4
# Then the queue begins anew: the pool's own tries come ever more seldom while the network is away.
QUEUE_CONNECTION_WAIT_S: Final = 10.0


class WorkerFull(Exception):
    """This worker plays as many runs as it may; the job goes back for another one."""


class CappedRetry(BaseRetryStrategy):
    """Exponential pauses with a cap and full jitter, and an end.

    When the attempts are used up the job fails, and the reaper finds the run: it counts recoveries,
    and has a maximum of its own.
    """

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When to try again; None for never."""
        if isinstance(exception, WorkerFull):
            return _in(random.uniform(*FULL_PAUSE_S))  # noqa: S311 - jitter is no secret
        pause_s = JOB_RETRIES.pause_s(job.attempts)
        return None if pause_s is None else _in(pause_s)


class PatientRetry(BaseRetryStrategy):
    """For checks: longer and longer pauses with a cap, and no end."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When to try again."""
        if isinstance(exception, WorkerFull):
            return _in(random.uniform(*FULL_PAUSE_S))  # noqa: S311 - jitter is no secret
        return _in(CHECK_RETRIES.later_s(min(job.attempts + 1, 30)))


def _in(pause_s: float) -> RetryDecision:
    return RetryDecision(retry_in={"milliseconds": int(pause_s * 1000)})


def queue_app(
    settings: Settings,
    begin: Callable[[UUID], Awaitable[None]],
    check: Callable[[UUID], Awaitable[None]],
) -> App:
    """The queue on the settings' database, with the tasks that begin a run and check a version."""
    app = App(
        connector=PsycopgConnector(
            conninfo=libpq_url(settings),
            kwargs={
                "application_name": "pokerarena queue",
                **connect_args(settings, bounded=False),
            },
            min_size=1,
            max_size=QUEUE_CONNECTIONS_MAX,
            timeout=QUEUE_CONNECTION_WAIT_S,
        )
    )

    @app.task(name=PLAY_RUN_TASK, queue=RUNS_QUEUE, retry=CappedRetry())
    async def play_run(run_id: str) -> None:
        await begin(UUID(run_id))

    @app.task(name=CHECK_VERSION_TASK, queue=CHECKS_QUEUE, retry=PatientRetry())
    async def check_version(version_id: str) -> None:
        await check(UUID(version_id))

    return app
