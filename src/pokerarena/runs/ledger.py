"""Storing what was played: hands, voids, totals and counters of several runs in one transaction.

Owns the order of that transaction: lock the rows of the runs, check every epoch, write. A run whose
epoch is no longer its own gets nothing written; the others are not disturbed. Storing the same
batch twice stores it once, so that a caller may repeat it when it does not know whether its commit
arrived. It never commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection, AsyncCursor
from psycopg.types.json import Jsonb

from pokerarena.history.append import FencedHands, append_hands
from pokerarena.history.chain import first_link
from pokerarena.runs.seams import PlayedUnit, VoidReason

_LOCK: Final = """
SELECT id, epoch, status, hands_done, stop_requested_at IS NOT NULL, chain_head, seed_sha256
FROM runs WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
"""
_LOOK: Final = "SELECT 1 FROM runs WHERE id = %s AND epoch = %s AND status = 'running'"
_PROGRESS: Final = """
UPDATE runs SET
    hands_done = greatest(runs.hands_done, p.hands_done),
    deals_done = greatest(runs.deals_done, p.deals_done),
    deals_reserved = greatest(runs.deals_reserved, p.reserve_to),
    position = coalesce(p.position, runs.position),
    chain_head = coalesce(p.chain_head, runs.chain_head),
    recoveries = CASE WHEN p.position IS NULL THEN runs.recoveries ELSE 0 END,
    lease_expires_at = clock_timestamp() + make_interval(secs => %s)
FROM unnest(%s::uuid[], %s::int[], %s::int[], %s::int[], %s::jsonb[], %s::bytea[])
    AS p(id, hands_done, deals_done, reserve_to, position, chain_head)
WHERE runs.id = p.id
"""
_TOTALS: Final = """
UPDATE run_seats SET
    net = t.net, units = t.units, unit_sum = t.unit_sum, unit_sum_squares = t.unit_sum_squares,
    hands = t.hands, decisions = t.decisions, rebuys = t.rebuys, time_bank_ms = t.time_bank_ms,
    fallbacks = t.fallbacks
FROM unnest(%s::uuid[], %s::int[], %s::bigint[], %s::int[], %s::float8[], %s::float8[], %s::int[],
            %s::bigint[], %s::int[], %s::int[], %s::jsonb[])
    AS t(run_id, seat_no, net, units, unit_sum, unit_sum_squares, hands, decisions, rebuys,
         time_bank_ms, fallbacks)
WHERE run_seats.run_id = t.run_id AND run_seats.seat_no = t.seat_no
"""
_VOIDS: Final = """
INSERT INTO void_deals (run_id, deal_no, epoch, reason)
SELECT * FROM unnest(%s::uuid[], %s::int[], %s::int[], %s::text[])
ON CONFLICT (run_id, deal_no) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one run has to store now, under its epoch.

    Every deal up to `deals_done` is settled once this batch is stored; `reserve_to` is the number
    of the last deal that may be begun before the next batch.
    """

    run_id: UUID
    epoch: int
    units: Sequence[PlayedUnit]
    voids: Sequence[tuple[int, VoidReason]]
    deals_done: int
    reserve_to: int

    @property
    def hands(self) -> int:
        return sum([len(unit.hands) for unit in self.units])


class _Mine(NamedTuple):
    """A batch whose epoch holds: what of it is new, and the link that it goes on from."""

    batch: Batch
    units: Sequence[PlayedUnit]
    link: bytes


class Verdict(NamedTuple):
    """What became of each batch, by run: stored (and whether its stop is wanted), fenced off, or
    left for the next time because somebody else had locked the run's row."""

    stored: Mapping[UUID, bool]
    fenced: frozenset[UUID]
    busy: frozenset[UUID]


async def store(
    connection: AsyncConnection[Any], batches: Sequence[Batch], *, lease_s: float
) -> Verdict:
    """Write every batch whose epoch holds, and renew the leases of their runs."""
    wanted = {batch.run_id: batch for batch in batches}
    async with connection.cursor() as cursor:
        await cursor.execute(_LOCK, (list(wanted),))
        locked = {row[0]: row[1:] for row in await cursor.fetchall()}
        mine: list[_Mine] = []
        stored: dict[UUID, bool] = {}
        fenced = set()
        for run_id, (
            epoch,
            status,
            hands_done,
            stop_requested,
            head,
            seed_sha256,
        ) in locked.items():
            batch = wanted[run_id]
            if epoch != batch.epoch or status != "running":
                fenced.add(run_id)
                continue
            link = head if head is not None else first_link(run_id, seed_sha256)
            mine.append(_Mine(batch, _new_units(batch, hands_done), link))
            stored[run_id] = stop_requested
        missing = [run_id for run_id in wanted if run_id not in locked]
        busy: frozenset[UUID] = frozenset()
        if missing:
            busy = await _still_held(cursor, [wanted[run_id] for run_id in missing])
            fenced.update(run_id for run_id in missing if run_id not in busy)
        if mine:
            await _write(cursor, mine, lease_s)
    return Verdict(stored, frozenset(fenced), busy)


def _new_units(batch: Batch, hands_done: int) -> Sequence[PlayedUnit]:
    """The units that an earlier try has not stored already."""
    units = [unit for unit in batch.units if unit.hands[0].hand_no > hands_done]
    if units and units[0].hands[0].hand_no != hands_done + 1:
        raise RuntimeError(
            f"run {batch.run_id} has {hands_done} hands, "
            f"and the next to store is {units[0].hands[0].hand_no}"
        )
    return units


async def _still_held(cursor: AsyncCursor[Any], batches: Sequence[Batch]) -> frozenset[UUID]:
    held = set()
    for batch in batches:
        await cursor.execute(_LOOK, (batch.run_id, batch.epoch))
        if await cursor.fetchone() is not None:
            held.add(batch.run_id)
    return frozenset(held)


async def _write(
    cursor: AsyncCursor[Any],
    mine: Sequence[_Mine],
    lease_s: float,
) -> None:
    progressed = [one for one in mine if one.units]
    heads: dict[UUID, bytes] = {}
    if progressed:
        links = await append_hands(
            cursor,
            [
                FencedHands(
                    batch.run_id, batch.epoch, [hand for unit in units for hand in unit.hands], link
                )
                for batch, units, link in progressed
            ],
        )
        heads = {one.batch.run_id: link for one, link in zip(progressed, links, strict=True)}
    await cursor.execute(
        _PROGRESS,
        (
            lease_s,
            [one.batch.run_id for one in mine],
            [one.units[-1].hands[-1].hand_no if one.units else 0 for one in mine],
            [one.batch.deals_done for one in mine],
            [one.batch.reserve_to for one in mine],
            [Jsonb(one.units[-1].position.to_json()) if one.units else None for one in mine],
            [heads.get(one.batch.run_id) for one in mine],
        ),
    )
    if progressed:
        await cursor.execute(_TOTALS, _totals_columns(progressed))
    voids = [
        (one.batch.run_id, deal_no, one.batch.epoch, reason.value)
        for one in mine
        for deal_no, reason in one.batch.voids
    ]
    if voids:
        await cursor.execute(_VOIDS, [list(column) for column in zip(*voids, strict=True)])


def _totals_columns(
    progressed: Sequence[_Mine],
) -> list[list[Any]]:
    rows = [
        (batch.run_id, seat, *totals[:-1], Jsonb(dict(totals.fallbacks)))
        for batch, units, _ in progressed
        for seat, totals in units[-1].totals.items()
    ]
    return [list(column) for column in zip(*rows, strict=True)]
