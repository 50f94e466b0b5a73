"""The queue application: Procrastinate on our PostgreSQL.

Enqueuing goes over the caller's own connection, so that a run and its job are one transaction.
This module must never import a domain room; tasks are named here and implemented in `worker`.
"""

from __future__ import annotations

from uuid import UUID

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import JobDeferrer
from sqlalchemy.ext.asyncio import AsyncSession

PLAY_RUN_TASK = "runs.play"
RUNS_QUEUE = "runs"
CHECK_VERSION_TASK = "agents.check"
# Served only by workers that have an agent-host.
CHECKS_QUEUE = "checks"

# Only ever used with an explicit connection: it is never opened, and holds no pool of its own.
_enqueuer = App(connector=PsycopgConnector())


async def enqueue_run(
    session: AsyncSession, run_id: UUID, *, priority: int = 0, delay_s: float = 0.0
) -> int:
    """Add the job that starts a run, in the session's transaction; returns the job's id."""
    raw = await (await session.connection()).get_raw_connection()
    deferrer = _enqueuer.configure_task(
        PLAY_RUN_TASK,
        allow_unknown=True,
        queue=RUNS_QUEUE,
        priority=priority,
        connection=raw.driver_connection,
        schedule_in={"seconds": delay_s} if delay_s > 0 else None,
    )
    return await _defer(deferrer, run_id=str(run_id))


async def enqueue_check(
    session: AsyncSession, version_id: UUID, *, queue: str = CHECKS_QUEUE
) -> int:
    """Add the job that checks a version, in the session's transaction; the job's id."""
    raw = await (await session.connection()).get_raw_connection()
    deferrer = _enqueuer.configure_task(
        CHECK_VERSION_TASK,
        allow_unknown=True,
        queue=queue,
        connection=raw.driver_connection,
    )
    return await _defer(deferrer, version_id=str(version_id))


async def _defer(deferrer: JobDeferrer, **arguments: str) -> int:
    """Enqueue; what the database refuses is raised as its own error, not as one of the queue's."""
    try:
        return await deferrer.defer_async(**arguments)
    except ConnectorException as error:
        raise (error.__cause__ or error) from None
