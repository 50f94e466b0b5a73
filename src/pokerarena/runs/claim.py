"""A worker's hold on a run: claim, renew, hand back, end.

Owns the epoch and the lease of the row in `runs`. A claim raises the epoch; every other function
here demands it, and says so when it is no longer the present one. The epoch makes two workers on
one run harmless; the lease only makes recovery quick. Takes a session and never commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import CursorResult, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, INTEGER
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.history.models import HandRow, VoidDeal
from pokerarena.jobs import enqueue_run
from pokerarena.runs.dead_letters import Held, bury_run
from pokerarena.runs.formats import RunRules
from pokerarena.runs.models import (
    ACTIVE_STATUSES,
    RevealedSeed,
    Run,
    RunSeat,
    RunSeed,
    RunStatus,
)
from pokerarena.runs.seams import VoidReason
from pokerarena.tables.models import RevealPolicy

# A claim reserves this many deals at once, so that play begins without another transaction.
FIRST_RESERVATION: Final = 4
MAX_DETAIL_CHARS: Final = 1000


@dataclass(frozen=True, slots=True)
class Claim:
    """A run under one epoch, as it stood when it was claimed."""

    run: Run
    seats: tuple[RunSeat, ...]
    seed_sealed: bytes
    epoch: int
    voided_deals: int
    resumed: bool


class Settlement(NamedTuple):
    """What became of the deals that this epoch reserved: up to where they were begun, and which
    of them came to nothing without that having been recorded."""

    last_deal: int
    unsettled: Sequence[int]
    reason: VoidReason


async def claim(
    session: AsyncSession, run_id: UUID, *, claimed_by: str, lease_s: float, max_hands_ahead: int
) -> Claim | None:
    """Take a run that nobody holds; None when there is nothing to take.

    Deals that an earlier epoch reserved and did not store become void: somebody may have seen them.
    """
    run = await session.scalar(select(Run).where(Run.id == run_id).with_for_update(key_share=True))
    if run is None or run.status not in ACTIVE_STATUSES:
        return None
    now = await session.scalar(select(func.clock_timestamp()))
    assert now is not None
    if run.lease_expires_at is not None and run.lease_expires_at > now:
        return None
    resumed = run.epoch > 0
    seats = (
        await session.scalars(
            select(RunSeat).where(RunSeat.run_id == run_id).order_by(RunSeat.seat_no)
        )
    ).all()
    seed_sealed = await session.scalar(select(RunSeed.seed_sealed).where(RunSeed.run_id == run_id))
    assert seed_sealed is not None, "a run and its seed are one transaction"
    run.epoch += 1
    lost = await _lost_deals(session, run, len(seats))
    if lost:
        await _void(session, run, lost, VoidReason.WORKER_LOST)
    run.deals_done = run.deals_reserved
    run.deals_reserved += min(FIRST_RESERVATION, max_hands_ahead)
    run.status = RunStatus.RUNNING.value
    run.started_at = run.started_at or now
    run.lease_expires_at = now + timedelta(seconds=lease_s)
    run.claimed_by = claimed_by
    await session.flush()
    return Claim(run, tuple(seats), seed_sealed, run.epoch, len(lost), resumed)


async def _lost_deals(session: AsyncSession, run: Run, seat_count: int) -> list[int]:
    reserved = range(run.deals_done + 1, run.deals_reserved + 1)
    if not reserved:
        return []
    # Of the reserved deals only the latest hands can be stored: no need to look at all of them.
    hands_per_deal = RunRules.from_json(run.rules).hands_per_deal(seat_count)
    first_hand_no = run.hands_done - len(reserved) * hands_per_deal
    stored = await session.scalars(
        select(HandRow.deal_no).where(
            HandRow.run_id == run.id,
            HandRow.hand_no > first_hand_no,
            HandRow.deal_no > run.deals_done,
        )
    )
    known_void = await session.scalars(
        select(VoidDeal.deal_no).where(VoidDeal.run_id == run.id, VoidDeal.deal_no > run.deals_done)
    )
    settled = {*stored, *known_void}
    return [deal_no for deal_no in reserved if deal_no not in settled]


async def _void(session: AsyncSession, run: Run, deals: Sequence[int], reason: VoidReason) -> None:
    await session.execute(
        insert(VoidDeal),
        [
            {"run_id": run.id, "deal_no": deal_no, "epoch": run.epoch, "reason": reason.value}
            for deal_no in deals
        ],
    )


_RENEW = text(
    """
    WITH mine AS (
        SELECT r.id FROM runs r
        JOIN unnest(:ids, :epochs) AS m(id, epoch) ON m.id = r.id AND m.epoch = r.epoch
        WHERE r.status = 'running'
        ORDER BY r.id
        FOR NO KEY UPDATE OF r SKIP LOCKED
    )
    UPDATE runs SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_s)
    FROM mine WHERE runs.id = mine.id
    RETURNING runs.id, runs.stop_requested_at IS NOT NULL
    """
).bindparams(
    bindparam("ids", type_=ARRAY(PG_UUID())),
    bindparam("epochs", type_=ARRAY(INTEGER)),
)
_STILL_MINE = text(
    """
    SELECT r.id FROM runs r
    JOIN unnest(:ids, :epochs) AS m(id, epoch) ON m.id = r.id AND m.epoch = r.epoch
    WHERE r.status = 'running'
    """
).bindparams(
    bindparam("ids", type_=ARRAY(PG_UUID())),
    bindparam("epochs", type_=ARRAY(INTEGER)),
)


class Renewal(NamedTuple):
    """What a renewal found, by run."""

    renewed: frozenset[UUID]
    lost: frozenset[UUID]
    stop_requested: frozenset[UUID]


async def renew(session: AsyncSession, epochs: Mapping[UUID, int], *, lease_s: float) -> Renewal:
    """Renew the lease of every run whose epoch is still the given one.

    A run whose row somebody has locked this moment is neither renewed nor lost.
    """
    ids = list(epochs)
    numbers = [epochs[run_id] for run_id in ids]
    rows = (
        await session.execute(_RENEW, {"ids": ids, "epochs": numbers, "lease_s": lease_s})
    ).all()
    renewed = frozenset(row[0] for row in rows)
    lost: frozenset[UUID] = frozenset()
    if len(renewed) < len(ids):
        mine = await session.scalars(_STILL_MINE, {"ids": ids, "epochs": numbers})
        lost = frozenset(ids) - frozenset(mine) - renewed
    return Renewal(renewed, lost, frozenset(row[0] for row in rows if row[1]))


async def hand_back(
    session: AsyncSession,
    run_id: UUID,
    epoch: int,
    settlement: Settlement,
    *,
    delay_s: float = 0.0,
) -> bool:
    """Give a running run back, with a new job that any worker may take, at once or after a delay.

    False when the epoch is no longer the present one.
    """
    # The run stays `running`: raising the epoch here stops whatever of this one still lives.
    if not await _end_epoch(session, run_id, epoch, settlement, {"epoch": epoch + 1}):
        return False
    job_id = await enqueue_run(session, run_id, delay_s=delay_s)
    await session.execute(update(Run).where(Run.id == run_id).values(job_id=job_id))
    return True


async def finish(
    session: AsyncSession,
    run_id: UUID,
    epoch: int,
    settlement: Settlement,
    *,
    status: RunStatus,
    seed: bytes,
) -> bool:
    """End a run as completed or stopped; False when the epoch is no longer the present one.

    A completed run whose reveal policy says so tells its seed: no card of it will ever be dealt.
    """
    values = {"status": status.value, "finished_at": func.clock_timestamp()}
    if not await _end_epoch(session, run_id, epoch, settlement, values):
        return False
    if status is RunStatus.COMPLETED:
        policy = await session.scalar(select(Run.reveal_policy).where(Run.id == run_id))
        if policy == RevealPolicy.AFTER_RUN.value:
            await session.execute(insert(RevealedSeed).values(run_id=run_id, seed=seed))
    return True


async def fail(
    session: AsyncSession,
    run_id: UUID,
    epoch: int,
    settlement: Settlement | None,
    *,
    code: str,
    detail: str,
) -> bool:
    """End a run as failed, with its reason; it can be resumed."""
    values = {
        "status": RunStatus.FAILED.value,
        "failure_code": code,
        "failure_detail": detail[:MAX_DETAIL_CHARS],
        "finished_at": func.clock_timestamp(),
    }
    run = await session.get(Run, run_id, with_for_update={"key_share": True})
    # What the end of the epoch takes away is what the letter has to tell.
    held = None if run is None else Held.of(run)
    if not await _end_epoch(session, run_id, epoch, settlement, values):
        return False
    assert held is not None
    await bury_run(session, held, code=code, detail=detail, attempts=held.recoveries + 1)
    return True


async def expire_leases(session: AsyncSession, claimed_by: str) -> int:
    """Give up the leases of a process that is known to be dead; the reaper takes it from there."""
    result = await session.execute(
        update(Run)
        .where(Run.claimed_by == claimed_by, Run.status.in_(ACTIVE_STATUSES))
        .values(lease_expires_at=func.clock_timestamp())
    )
    return cast("CursorResult[Any]", result).rowcount


async def _end_epoch(
    session: AsyncSession,
    run_id: UUID,
    epoch: int,
    settlement: Settlement | None,
    values: Mapping[str, Any],
) -> bool:
    run = await session.scalar(
        select(Run)
        .where(Run.id == run_id, Run.epoch == epoch, Run.status == RunStatus.RUNNING.value)
        .with_for_update(key_share=True)
    )
    if run is None:
        return False
    deals: dict[str, int] = {}
    if settlement is not None:
        await _void_unless_known(session, run, settlement)
        # Deals that were reserved and not begun were never shown: they can be used after all.
        deals = {"deals_done": settlement.last_deal, "deals_reserved": settlement.last_deal}
    await session.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(lease_expires_at=None, claimed_by=None, job_id=None, **deals, **values)
    )
    return True


async def _void_unless_known(session: AsyncSession, run: Run, settlement: Settlement) -> None:
    if not settlement.unsettled:
        return
    known = set(
        await session.scalars(
            select(VoidDeal.deal_no).where(
                VoidDeal.run_id == run.id, VoidDeal.deal_no.in_(settlement.unsettled)
            )
        )
    )
    deals = [deal_no for deal_no in settlement.unsettled if deal_no not in known]
    if deals:
        await _void(session, run, deals, settlement.reason)
