"""What must hold of every run in the database, and the findings where it does not.

Owns the checks: hands gapless and chained, chips conserved, the rules replayed to the same end, each
hand started from where the last one left, totals and counters equal to the sums, every deal used
once. One run is read in one snapshot, a page at a time: memory does not grow with its length. It
must never write, and never put a card into a finding.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.db import Database
from pokerarena.engine.actions import IllegalAction
from pokerarena.history.archives import archive_of
from pokerarena.history.chain import first_link, next_link
from pokerarena.history.models import HandCards, HandRow
from pokerarena.history.read import StoredHand, stored
from pokerarena.ids import IdKind, id_text
from pokerarena.runs.formats import (
    HandSetup,
    Position,
    RunRules,
    first_position,
    next_unit,
    settle,
)
from pokerarena.runs.models import ACTIVE_STATUSES, Run, RunSeat
from pokerarena.runs.totals import SeatTotals, add_unit

PAGE_HANDS: Final = 500
PAGE_RUNS: Final = 200
FINDINGS_OF_RUN_MAX: Final = 50


class Finding(NamedTuple):
    """Something that does not hold."""

    run_id: UUID
    hand_no: int | None
    what: str

    def line(self) -> str:
        """One line for people and for `grep`."""
        where = "" if self.hand_no is None else f" hand {self.hand_no}"
        return f"{id_text(IdKind.RUN, self.run_id)}{where}: {self.what}"


class Checked(NamedTuple):
    """One run, as it was found."""

    run_id: UUID
    hands: int
    findings: tuple[Finding, ...]
    archived: bool = False


async def check_all(database: Database) -> AsyncIterator[Checked]:
    """Every run, oldest first, each in a snapshot of its own."""
    after = UUID(int=0)
    while True:
        async with database.session() as session:
            query = select(Run.id).where(Run.id > after).order_by(Run.id).limit(PAGE_RUNS)
            page = (await session.scalars(query)).all()
        for run_id in page:
            checked = await check_run(database, run_id)
            if checked is not None:
                yield checked
        if len(page) < PAGE_RUNS:
            return
        after = page[-1]


async def check_run(database: Database, run_id: UUID) -> Checked | None:
    """One run; None when there is no such run."""
    async with database.session() as session:
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        run = await session.get(Run, run_id)
        if run is None:
            return None
        query = select(RunSeat).where(RunSeat.run_id == run_id).order_by(RunSeat.seat_no)
        check = _RunCheck(run, (await session.scalars(query)).all())
        if await archive_of(session, run) is not None:
            await _check_archived(session, check)
            return Checked(run_id, 0, tuple(check.findings), archived=True)
        async for row, cards in _rows(session, run_id):
            check.take(row, cards)
        check.end()
        await _check_deals(session, check)
        return Checked(run_id, check.hands, tuple(check.findings))


async def _rows(session: AsyncSession, run_id: UUID) -> AsyncIterator[tuple[HandRow, bytes | None]]:
    after = 0
    while True:
        page = (
            await session.execute(
                select(HandRow, HandCards.cards)
                .outerjoin(HandCards, HandCards.hand_id == HandRow.id)
                .where(HandRow.run_id == run_id, HandRow.hand_no > after)
                .order_by(HandRow.hand_no)
                .limit(PAGE_HANDS)
            )
        ).all()
        for row, cards in page:
            yield row, cards
        if len(page) < PAGE_HANDS:
            return
        after = page[-1][0].hand_no
        # What was checked need not be remembered.
        session.expunge_all()


@dataclass(slots=True)
class _Played:
    """The hands of the deal that is being checked."""

    setups: Sequence[HandSetup] = ()
    hands: list[StoredHand] = field(default_factory=list)


class _RunCheck:
    """Takes a run's hands one by one, and remembers only where the run stands."""

    def __init__(self, run: Run, seats: Sequence[RunSeat]) -> None:
        self.run = run
        self.seats = seats
        self.hands = 0
        self.findings: list[Finding] = []
        self.rules = RunRules.from_json(run.rules)
        self._position = first_position(self.rules, [seat.seat_no for seat in seats])
        self._totals = {seat.seat_no: SeatTotals() for seat in seats}
        self._link = first_link(run.id, run.seed_sha256)
        self._unit = _Played()
        self._epoch = 0
        # After a gap nobody knows where a hand should have started from, nor what the sums are.
        self._known = True

    def say(self, what: str, hand_no: int | None = None) -> None:
        if len(self.findings) < FINDINGS_OF_RUN_MAX:
            self.findings.append(Finding(self.run.id, hand_no, what))
        elif len(self.findings) == FINDINGS_OF_RUN_MAX:
            self.findings.append(Finding(self.run.id, None, "and more; the rest is not listed"))

    def take(self, row: HandRow, cards: bytes | None) -> None:
        self.hands += 1
        if row.hand_no != self.hands:
            self.say(f"the hands before it end at {self.hands - 1}", row.hand_no)
            self.hands = row.hand_no
            self._known = False
        if row.epoch < self._epoch:
            self.say(f"written under epoch {row.epoch}, after epoch {self._epoch}", row.hand_no)
        self._epoch = max(self._epoch, row.epoch)
        self._check_link(row, cards)
        if cards is None:
            self.say("has no hole cards", row.hand_no)
            self._known = False
            return
        try:
            hand = stored(row, self.run.rules, self.run.table_id, cards)
            self._check_hand(hand)
        except (ValueError, IndexError, IllegalAction) as error:
            # The sentence of the rules may name cards, its kind does not.
            self.say(f"cannot be replayed ({type(error).__name__})", row.hand_no)
            self._known = False
            return
        if self._known:
            self._follow(hand)

    def _check_link(self, row: HandRow, cards: bytes | None) -> None:
        link = next_link(
            self._link,
            hand_id=row.id,
            hand_no=row.hand_no,
            deal_no=row.deal_no,
            epoch=row.epoch,
            level=row.level,
            button_seat=row.button_seat,
            ended_at=row.ended_at,
            parts=(row.board, row.seats, row.actions, cards or b""),
        )
        if row.chain is None:
            self.say("has no link in the chain", row.hand_no)
        elif row.chain != link:
            self.say("does not follow in the chain: it or the one before was changed", row.hand_no)
        # From here the chain is taken as it is stored, so that one break is one finding.
        self._link = row.chain or link

    def _check_hand(self, hand: StoredHand) -> None:
        if sum(hand.net) != 0:
            self.say(
                f"does not conserve chips: the seats' nets sum to {sum(hand.net)}", hand.hand_no
            )
        final = hand.final()
        if not final.complete:
            self.say("is not complete", hand.hand_no)
        elif final.net() != hand.net:
            self.say("ends otherwise when it is replayed", hand.hand_no)
        if final.board != hand.board:
            self.say("has another board when it is replayed", hand.hand_no)

    def _follow(self, hand: StoredHand) -> None:
        if not self._unit.hands:
            self._unit.setups = next_unit(self.rules, self._position, hand.hand_no)
            if not self._unit.setups:
                self.say("was played after the game was over", hand.hand_no)
                self._known = False
                return
        setup = self._unit.setups[len(self._unit.hands)]
        played = (hand.seats, hand.stacks, hand.button_seat, hand.level)
        if played != (setup.seats, setup.stacks, setup.button_seat, setup.level):
            self.say("does not start from where the one before left", hand.hand_no)
            self._known = False
            return
        self._unit.hands.append(hand)
        self._position = settle(self.rules, self._position, setup, hand.net)
        if len(self._unit.hands) == len(self._unit.setups):
            self._totals = add_unit(
                self._totals,
                [one.record for one in self._unit.hands],
                self._unit.setups[0].rebuys,
                dict.fromkeys(self._totals, 0),
            )
            if len({one.deal_no for one in self._unit.hands}) != 1:
                self.say("is not of the same deal as the rest of its unit", hand.hand_no)
            self._unit = _Played()

    def end(self) -> None:
        run = self.run
        if self.hands != run.hands_done:
            self.say(f"counts {run.hands_done} hands, and the last one stored is {self.hands}")
        head = run.chain_head
        if (head if head is not None else first_link(run.id, run.seed_sha256)) != self._link:
            self.say("the chain does not end with the last hand stored")
        if self._unit.hands:
            self.say("only a part of the deal is stored", self._unit.hands[0].hand_no)
        if not self._known or self.hands != run.hands_done:
            return
        if Position.from_json(run.position) != self._position:
            self.say("the next hand would not start from where the last one left")
        for seat in self.seats:
            kept = SeatTotals(
                seat.net,
                seat.units,
                seat.unit_sum,
                seat.unit_sum_squares,
                seat.hands,
                seat.decisions,
                seat.rebuys,
                0,
                seat.fallbacks,
            )
            for name, value, summed in zip(
                SeatTotals._fields, kept, self._totals[seat.seat_no], strict=True
            ):
                if value != summed:
                    self.say(f"seat {seat.seat_no}: {name} is {value}, the hands sum to {summed}")


async def _check_archived(session: AsyncSession, check: _RunCheck) -> None:
    """What is left of a run whose hands are elsewhere; the archive has its own check."""
    run = check.run
    if await session.scalar(select(HandRow.id).where(HandRow.run_id == run.id).limit(1)):
        check.say("was archived, and has hands here")
    if (run.chain_head is None) != (run.hands_done == 0):
        check.say("was archived, and the end of its chain is not known")
    if total := sum(seat.net for seat in check.seats):
        check.say(f"does not conserve chips: the seats' totals sum to {total}")


_USED_TWICE: Final = text(
    """
    SELECT deal_no, count(*) FROM hands WHERE run_id = :run_id
    GROUP BY deal_no HAVING count(*) <> :hands_per_deal ORDER BY deal_no LIMIT 10
    """
)
_PLAYED_AND_VOID: Final = text(
    """
    SELECT h.deal_no FROM hands h JOIN void_deals v USING (run_id, deal_no)
    WHERE h.run_id = :run_id ORDER BY h.deal_no LIMIT 10
    """
)
_NEVER_RESERVED: Final = text(
    """
    SELECT deal_no FROM (
        SELECT deal_no FROM hands WHERE run_id = :run_id
        UNION SELECT deal_no FROM void_deals WHERE run_id = :run_id
    ) used WHERE deal_no < 1 OR deal_no > :reserved ORDER BY deal_no LIMIT 10
    """
)
_UNACCOUNTED: Final = text(
    """
    SELECT generate_series(1, :settled) AS deal_no
    EXCEPT SELECT deal_no FROM hands WHERE run_id = :run_id
    EXCEPT SELECT deal_no FROM void_deals WHERE run_id = :run_id
    ORDER BY deal_no LIMIT 10
    """
)


async def _check_deals(session: AsyncSession, check: _RunCheck) -> None:
    """Every deal is stored or void, and none is both, twice, or from nowhere."""
    run = check.run
    reserved = run.deals_reserved
    # While a run is on, what is reserved beyond `deals_done` may be in play.
    settled = run.deals_done if run.status in ACTIVE_STATUSES else reserved
    per_deal = check.rules.hands_per_deal(len(check.seats))
    questions: tuple[tuple[Any, dict[str, Any], str], ...] = (
        (_USED_TWICE, {"hands_per_deal": per_deal}, f"has not {per_deal} stored hands"),
        (_PLAYED_AND_VOID, {}, "is both stored and void"),
        (_NEVER_RESERVED, {"reserved": reserved}, "was never reserved"),
        (_UNACCOUNTED, {"settled": settled}, "is neither stored nor void"),
    )
    for query, values, what in questions:
        for deal_no in await session.scalars(query, {"run_id": run.id, **values}):
            check.say(f"deal {deal_no} {what}")
