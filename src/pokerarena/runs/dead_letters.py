"""Dead letters: what cannot succeed by itself any more, kept until a person decides.

Owns writing them (in the transaction that gives up), listing, and the two ways out: retry and
discard. A run has at most one open letter; giving up again adds to it. It never holds a payload, only
a reference to one, and never commits.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.errors import Conflict, NotFound
from pokerarena.ids import new_id
from pokerarena.runs.models import DeadLetter, DeadLetterState, Run
from pokerarena.telemetry import get_logger

log = get_logger("runs.dead_letters")

MAX_DETAIL_CHARS: Final = 1000
# Failures of ours that no retry of the machine will mend; the others are for the run's owner to mend.
BURIED_CODES: Final = frozenset(
    {"recoveries_exhausted", "infrastructure", "internal_error", "store_refused"}
)


class Subject(StrEnum):
    """What a letter is about."""

    RUN = "run"
    JOB = "job"


class Held(NamedTuple):
    """A run as it was held when it failed."""

    run_id: UUID
    epoch: int
    request_id: str | None
    claimed_by: str | None
    job_id: int | None
    recoveries: int

    @classmethod
    def of(cls, run: Run) -> Held:
        return cls(run.id, run.epoch, run.request_id, run.claimed_by, run.job_id, run.recoveries)


async def bury_run(
    session: AsyncSession, held: Held, *, code: str, detail: str, attempts: int
) -> None:
    """Called where a run fails, in the same transaction; other failures than ours leave no letter."""
    if code not in BURIED_CODES:
        return
    values = {
        "code": code,
        "detail": detail[:MAX_DETAIL_CHARS],
        "attempts": attempts,
        "epoch": held.epoch,
        "request_id": held.request_id,
        "claimed_by": held.claimed_by,
        "job_id": held.job_id,
    }
    await session.execute(
        insert(DeadLetter)
        .values(id=new_id(), subject=Subject.RUN.value, run_id=held.run_id, **values)
        .on_conflict_do_update(
            index_elements=["run_id"],
            index_where=text("state = 'open'"),
            set_={**values, "last_failed_at": func.now()},
        )
    )
    log.error("dead_letter", subject="run", run_id=str(held.run_id), code=code, attempts=attempts)


async def count_open(session: AsyncSession) -> int:
    """How many wait for a person: the number to alert on."""
    query = select(func.count()).select_from(DeadLetter)
    found = await session.scalar(query.where(DeadLetter.state == DeadLetterState.OPEN.value))
    return found or 0


async def list_letters(
    session: AsyncSession, *, state: DeadLetterState | None, before: UUID | None, limit: int
) -> list[DeadLetter]:
    """Newest first; of one state, or of all."""
    query = select(DeadLetter).order_by(DeadLetter.id.desc()).limit(limit)
    if state is not None:
        query = query.where(DeadLetter.state == state.value)
    if before is not None:
        query = query.where(DeadLetter.id < before)
    return list(await session.scalars(query))


async def get_letter(session: AsyncSession, letter_id: UUID) -> DeadLetter:
    """One letter. Raises `NotFound`."""
    letter = await session.get(DeadLetter, letter_id)
    if letter is None:
        raise NotFound("dead letter")
    return letter


async def retry(session: AsyncSession, letter_id: UUID, *, by: UUID | None) -> DeadLetter:
    """Let it be tried again from where it stands.

    Raises `NotFound`, and `Conflict` (``dead_letter_closed``, ``dead_letter_not_retryable``, or
    whatever keeps the run from being resumed).
    """
    from pokerarena.runs.service import resume_run

    letter = await _open_letter(session, letter_id)
    if letter.run_id is None:
        raise Conflict(
            "dead_letter_not_retryable",
            "This job belongs to no run that could be resumed; discard the letter.",
        )
    # First, because whoever resumes a run closes its letters too, and knows no name.
    await close_letters_of(session, letter.run_id, by=by)
    await resume_run(session, letter.run_id)
    await session.refresh(letter)
    return letter


async def discard(session: AsyncSession, letter_id: UUID, *, by: UUID | None) -> DeadLetter:
    """Let it be; what it is about stays failed. Raises as `retry` does."""
    letter = await _open_letter(session, letter_id)
    await session.execute(
        update(DeadLetter)
        .where(DeadLetter.id == letter_id)
        .values(state=DeadLetterState.DISCARDED.value, closed_at=func.now(), closed_by=by)
    )
    await session.refresh(letter)
    return letter


async def close_letters_of(session: AsyncSession, run_id: UUID, *, by: UUID | None = None) -> None:
    """The run is tried again, by whatever way."""
    await session.execute(
        update(DeadLetter)
        .where(DeadLetter.run_id == run_id, DeadLetter.state == DeadLetterState.OPEN.value)
        .values(state=DeadLetterState.RETRIED.value, closed_at=func.now(), closed_by=by)
    )


async def _open_letter(session: AsyncSession, letter_id: UUID) -> DeadLetter:
    letter = await session.scalar(
        select(DeadLetter).where(DeadLetter.id == letter_id).with_for_update()
    )
    if letter is None:
        raise NotFound("dead letter")
    if letter.state != DeadLetterState.OPEN.value:
        raise Conflict("dead_letter_closed", f"This letter is {letter.state} already.")
    return letter


_BURY_JOBS: Final = text(
    """
    INSERT INTO dead_letters (id, subject, run_id, job_id, code, detail, attempts, state, epoch)
    SELECT gen_random_uuid(), 'job', r.id, j.id, 'attempts_exhausted',
           'The job ' || j.task_name || ' failed as often as it may; '
           || 'the log of the worker names the reason under its job id.',
           j.attempts, 'open', coalesce(r.epoch, 0)
    FROM procrastinate_jobs j
    LEFT JOIN runs r ON r.id::text = j.args->>'run_id'
    WHERE j.status = 'failed' AND j.attempts >= :attempts_max
      AND (r.id IS NULL OR r.status NOT IN ('queued', 'running'))
      AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.job_id = j.id)
      AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.run_id = r.id AND d.state = 'open')
    ORDER BY j.id LIMIT :limit
    ON CONFLICT DO NOTHING
    RETURNING job_id
    """
)
_SWEEP_JOBS: Final = text(
    """
    DELETE FROM procrastinate_jobs WHERE id IN (
        SELECT j.id FROM procrastinate_jobs j
        WHERE j.status IN ('failed', 'succeeded', 'cancelled', 'aborted')
          AND NOT EXISTS (
              SELECT 1 FROM procrastinate_events e
              WHERE e.job_id = j.id AND e.at > now() - make_interval(secs => :keep_s)
          )
        ORDER BY j.id LIMIT :limit FOR UPDATE SKIP LOCKED
    ) RETURNING id
    """
)
_SWEEP_LETTERS: Final = text(
    """
    DELETE FROM dead_letters WHERE id IN (
        SELECT id FROM dead_letters
        WHERE state <> 'open' AND closed_at < now() - make_interval(secs => :keep_s)
        LIMIT :limit
    ) RETURNING id
    """
)


async def bury_jobs(session: AsyncSession, *, attempts_max: int, limit: int) -> list[int]:
    """Letters for jobs that failed for good and whose run nobody else will take up."""
    values: dict[str, Any] = {"attempts_max": attempts_max, "limit": limit}
    buried = list((await session.scalars(_BURY_JOBS, values)).all())
    for job_id in buried:
        log.error("dead_letter", subject="job", job_id=job_id)
    return buried


async def sweep(
    session: AsyncSession, *, jobs_keep_s: float, letters_keep_s: float, limit: int
) -> tuple[int, int]:
    """Delete ended jobs and closed letters that are old enough: how many of each."""
    jobs = await session.scalars(_SWEEP_JOBS, {"keep_s": jobs_keep_s, "limit": limit})
    letters = await session.scalars(_SWEEP_LETTERS, {"keep_s": letters_keep_s, "limit": limit})
    return len(jobs.all()), len(letters.all())
