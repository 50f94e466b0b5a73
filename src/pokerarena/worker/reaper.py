"""The reaper: finds runs that a dead worker left, and gives each a new job.

Owns the question which active runs nobody drives, and the maximum of recoveries in a row. It runs
beside the queue, not in it, because a queue that stalls would stall its reaper too. One reaper works
at a time, whichever worker's it is; two would be harmless.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena import metrics
from pokerarena.ids import IdKind, id_text
from pokerarena.jobs import CHECK_VERSION_TASK, PLAY_RUN_TASK, enqueue_run
from pokerarena.retrying import RetryPolicy
from pokerarena.runs import dead_letters
from pokerarena.runs.dead_letters import Held, bury_run
from pokerarena.runs.models import Run
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger
from pokerarena.worker.checks import requeue_lost_checks
from pokerarena.worker.committer import commits_name
from pokerarena.worker.tasks import CHECK_RETRIES, JOB_RETRIES

log = get_logger("worker.reaper")

# "poker" and "reap" as bytes: an arbitrary number that only this module uses.
ADVISORY_LOCK: Final = 0x706F6B65_72656170
RUNS_AT_ONCE: Final = 500
RECOVERY_DELAYS: Final = RetryPolicy(base_s=0.5, cap_s=30.0)
LONGEST_PAUSE_S: Final = max(JOB_RETRIES.cap_s, CHECK_RETRIES.cap_s, RECOVERY_DELAYS.cap_s)

# A job that has only just been fetched has not claimed its run yet: it gets one lease of time.
_LEFT_BEHIND: Final = text(
    """
    SELECT r.id, r.recoveries, r.epoch, r.claimed_by, r.job_id, j.status::text AS job_status
    FROM runs r
    LEFT JOIN procrastinate_jobs j ON j.id = r.job_id
    WHERE r.status IN ('queued', 'running')
      AND (r.lease_expires_at IS NULL OR r.lease_expires_at < clock_timestamp())
      AND j.status IS DISTINCT FROM 'todo'
      AND NOT EXISTS (
          SELECT 1 FROM procrastinate_events e
          WHERE e.job_id = j.id AND e.type = 'started'
            AND j.status IN ('doing', 'succeeded')
            AND (r.lease_expires_at IS NULL OR e.at > r.lease_expires_at)
            AND e.at > clock_timestamp() - make_interval(secs => :grace_s)
      )
    ORDER BY r.id
    LIMIT :limit
    FOR NO KEY UPDATE OF r SKIP LOCKED
    """
)
_REQUEUED: Final = text(
    "UPDATE runs SET recoveries = :recoveries, job_id = :job_id WHERE id = :run_id"
)
_GIVEN_UP: Final = text(
    """
    UPDATE runs SET status = 'failed', failure_code = 'recoveries_exhausted',
        failure_detail = :detail, finished_at = clock_timestamp(), lease_expires_at = NULL,
        claimed_by = NULL, job_id = NULL
    WHERE id = :run_id
    """
)
_FINISH_JOB: Final = text("SELECT procrastinate_finish_job_v1(:job_id, 'failed', false)")
_DROP_JOB: Final = text("SELECT procrastinate_finish_job_v1(:job_id, 'failed', true)")
# Jobs in `doing` whose worker was pruned, or has been silent for long, and that drive nothing.
_DEAD_JOBS: Final = text(
    """
    SELECT j.id FROM procrastinate_jobs j
    LEFT JOIN procrastinate_workers w ON w.id = j.worker_id
    WHERE j.status = 'doing' AND j.task_name = :task
      AND (w.id IS NULL OR w.last_heartbeat < now() - interval '90 seconds')
      AND NOT EXISTS (
          SELECT 1 FROM procrastinate_events e
          WHERE e.job_id = j.id AND e.at > now() - interval '90 seconds'
      )
    LIMIT :limit
    FOR UPDATE OF j SKIP LOCKED
    """
)
# What a clock that jumped has written: a lease longer than any, a job later than any pause of ours.
_LEASES_TOO_LONG: Final = text(
    """
    UPDATE runs SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_s)
    WHERE status = 'running'
      AND lease_expires_at > clock_timestamp() + make_interval(secs => 2 * :lease_s)
    RETURNING id
    """
)
_JOBS_TOO_LATE: Final = text(
    """
    UPDATE procrastinate_jobs SET scheduled_at = clock_timestamp()
    WHERE status = 'todo' AND scheduled_at > clock_timestamp() + make_interval(secs => :pause_s)
    RETURNING id
    """
)
# A process that was halted within a commit still holds the locks of its runs' rows, and would for as
# long as it is halted. Its lease is over: nothing of that transaction may count any more.
_HOLDERS: Final = text(
    """
    SELECT DISTINCT claimed_by FROM runs
    WHERE status = 'running' AND lease_expires_at < clock_timestamp() AND claimed_by IS NOT NULL
    LIMIT :limit
    """
)
_END_TRANSACTIONS: Final = text(
    """
    SELECT count(*) FROM pg_stat_activity a, pg_terminate_backend(a.pid) ended
    WHERE a.datname = current_database() AND a.usename = current_user
      AND a.application_name = ANY(CAST(:names AS text[]))
      AND a.xact_start < clock_timestamp() - make_interval(secs => :lease_s) AND ended
    """
)


class Reaped(NamedTuple):
    """What one round did."""

    requeued: tuple[UUID, ...]
    given_up: tuple[UUID, ...]


async def reap(session: AsyncSession, settings: Settings) -> Reaped:
    """One round, in the caller's transaction; does nothing while another reaper is at it."""
    mine = await session.scalar(
        text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK}
    )
    if not mine:
        return Reaped((), ())
    await _mend_times(session, settings)
    await _free_locks(session, settings)
    requeued: list[UUID] = []
    given_up: list[UUID] = []
    left = await session.execute(
        _LEFT_BEHIND, {"grace_s": settings.run_lease_s, "limit": RUNS_AT_ONCE}
    )
    for run in left.all():
        if run.job_status == "doing":
            await session.execute(_FINISH_JOB, {"job_id": run.job_id})
        recoveries = run.recoveries + 1
        if recoveries > settings.run_recoveries_max:
            detail = (
                f"The run was taken up {run.recoveries} times in a row without completing a hand; "
                f"the last to hold it was {run.claimed_by or 'nobody'}. "
                "Look into that worker's log before you resume it."
            )
            await bury_run(
                session,
                Held.of(await session.get_one(Run, run.id)),
                code="recoveries_exhausted",
                detail=detail,
                attempts=run.recoveries,
            )
            await session.execute(_GIVEN_UP, {"run_id": run.id, "detail": detail})
            metrics.RUNS_RECOVERED.number("given_up").add()
            log.error("run_given_up", run_id=id_text(IdKind.RUN, run.id), recoveries=run.recoveries)
            given_up.append(run.id)
            continue
        delay_s = _delay_s(recoveries)
        job_id = await enqueue_run(session, run.id, delay_s=delay_s)
        await session.execute(
            _REQUEUED, {"run_id": run.id, "recoveries": recoveries, "job_id": job_id}
        )
        metrics.RUNS_RECOVERED.number("queued_again").add()
        log.warning(
            "run_recovered",
            run_id=id_text(IdKind.RUN, run.id),
            epoch=run.epoch,
            held_by=run.claimed_by,
            recoveries=recoveries,
            delay_s=round(delay_s, 2),
        )
        requeued.append(run.id)
    # A check is made anew until it comes to a verdict: a lost job of it is no failure of anybody.
    for task, end in ((PLAY_RUN_TASK, _FINISH_JOB), (CHECK_VERSION_TASK, _DROP_JOB)):
        dead = await session.scalars(_DEAD_JOBS, {"task": task, "limit": RUNS_AT_ONCE})
        for job_id in dead.all():
            await session.execute(end, {"job_id": job_id})
    await requeue_lost_checks(session)
    await dead_letters.bury_jobs(
        session, attempts_max=JOB_RETRIES.attempts_max or 1, limit=RUNS_AT_ONCE
    )
    await dead_letters.sweep(
        session,
        jobs_keep_s=settings.queue_keep_s,
        letters_keep_s=settings.dead_letters_keep_s,
        limit=RUNS_AT_ONCE,
    )
    return Reaped(tuple(requeued), tuple(given_up))


async def _mend_times(session: AsyncSession, settings: Settings) -> None:
    """Let nothing wait for a time that only a wrong clock has named."""
    leases = await session.scalars(_LEASES_TOO_LONG, {"lease_s": settings.run_lease_s})
    jobs = await session.scalars(_JOBS_TOO_LATE, {"pause_s": 2 * LONGEST_PAUSE_S})
    too_long, too_late = len(leases.all()), len(jobs.all())
    if too_long or too_late:
        log.warning("times_mended", leases=too_long, jobs=too_late)


async def _free_locks(session: AsyncSession, settings: Settings) -> None:
    holders = (await session.scalars(_HOLDERS, {"limit": RUNS_AT_ONCE})).all()
    if not holders:
        return
    ended = await session.scalar(
        _END_TRANSACTIONS,
        {"names": [commits_name(name) for name in holders], "lease_s": settings.run_lease_s},
    )
    if ended:
        log.warning("halted_commits_ended", transactions=ended)


def _delay_s(recoveries: int) -> float:
    """None the first time; then longer and longer, and never in step with other runs.

    A run that takes its process down with it must leave the others there time to complete a hand.
    """
    if recoveries <= 1:
        return 0.0
    return RECOVERY_DELAYS.later_s(recoveries)
