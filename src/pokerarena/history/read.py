"""Reading complete hands back.

Owns the queries and the unpacking. Lists never load hole cards; whoever shows a hand loads it with
them and goes through `engine.view`, the one door of redaction. It never writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import Transition
from pokerarena.history.codec import unpack_actions, unpack_cards, unpack_holes, unpack_seats
from pokerarena.history.models import DecisionNote, HandCards, HandRow
from pokerarena.history.partitions import likely_runs
from pokerarena.history.record import ActionRecord, HandRecord
from pokerarena.runs.formats import RunRules
from pokerarena.runs.models import Run

StoredAction = ActionRecord


class HoleCardsNotLoaded(RuntimeError):
    """A hand of a list was asked to replay; load it by its id first."""


@dataclass(frozen=True, slots=True)
class StoredHand:
    """A complete hand. Tuples are by position, in the order of `seats`."""

    run_id: UUID
    table_id: UUID
    rules: Rules
    record: HandRecord
    holes_loaded: bool

    @property
    def id(self) -> UUID:
        return self.record.id

    @property
    def hand_no(self) -> int:
        return self.record.hand_no

    @property
    def deal_no(self) -> int:
        return self.record.deal_no

    @property
    def level(self) -> int:
        return self.record.level

    @property
    def ended_at(self) -> datetime:
        return self.record.ended_at

    @property
    def seats(self) -> tuple[int, ...]:
        return self.record.seats

    @property
    def stacks(self) -> tuple[int, ...]:
        """Chips before the hand."""
        return self.record.stacks

    @property
    def net(self) -> tuple[int, ...]:
        return self.record.net

    @property
    def button_seat(self) -> int:
        return self.record.button_seat

    @property
    def board(self) -> tuple[int, ...]:
        return self.record.board

    @property
    def actions(self) -> tuple[StoredAction, ...]:
        return self.record.actions

    def replay(self) -> Iterator[Transition]:
        """Every step of the hand by the rules; show them through `engine.view` only."""
        if not self.holes_loaded:
            raise HoleCardsNotLoaded("this hand was read without its hole cards")
        return self.record.replay(self.rules)

    def final(self) -> Hand:
        """The hand at its end; show it through `engine.view.see` only."""
        if not self.holes_loaded:
            raise HoleCardsNotLoaded("this hand was read without its hole cards")
        return self.record.last_hand(self.rules)


async def list_hands(
    session: AsyncSession, run_id: UUID, after_hand_no: int, limit: int
) -> list[StoredHand]:
    """The hands of a run in order, after the given number; without hole cards."""
    query = _hands().where(HandRow.run_id == run_id, HandRow.hand_no > after_hand_no)
    rows = await session.execute(query.order_by(HandRow.hand_no).limit(limit))
    return [stored(row, rules, table_id, None) for row, rules, table_id in rows]


async def load_hand(session: AsyncSession, hand_id: UUID) -> StoredHand | None:
    """One hand with its hole cards."""
    wanted = _hands_with_cards().where(HandRow.id == hand_id)
    # Only a run that was resumed after long has its hands in a partition that is far away.
    near = wanted.where(HandRow.run_id.between(*likely_runs(hand_id)))
    found = (await session.execute(near)).one_or_none()
    if found is None:
        found = (await session.execute(wanted)).one_or_none()
    return None if found is None else stored(found[0], found[1], found[2], found[3])


async def load_hands(
    session: AsyncSession, run_id: UUID, after_hand_no: int, limit: int
) -> list[StoredHand]:
    """The hands of a run in order, with hole cards: for exports by those who may see them all."""
    query = _hands_with_cards().where(HandRow.run_id == run_id, HandRow.hand_no > after_hand_no)
    rows = await session.execute(query.order_by(HandRow.hand_no).limit(limit))
    return [stored(row, rules, table_id, cards) for row, rules, table_id, cards in rows]


async def notes(session: AsyncSession, hand_id: UUID, seats: Iterable[int]) -> list[DecisionNote]:
    """The notes and failures of these seats' decisions, and of no other seat."""
    found = await session.scalars(
        select(DecisionNote)
        .where(DecisionNote.hand_id == hand_id, DecisionNote.seat_no.in_(list(seats)))
        .order_by(DecisionNote.action_no)
    )
    return list(found)


def _hands() -> Select[tuple[HandRow, dict[str, Any], UUID]]:
    return select(HandRow, Run.rules, Run.table_id).join(Run, Run.id == HandRow.run_id)


def _hands_with_cards() -> Select[tuple[HandRow, dict[str, Any], UUID, bytes]]:
    return (
        select(HandRow, Run.rules, Run.table_id, HandCards.cards)
        .join(Run, Run.id == HandRow.run_id)
        .join(HandCards, HandCards.hand_id == HandRow.id)
    )


def stored(row: HandRow, rules: dict[str, Any], table_id: UUID, cards: bytes | None) -> StoredHand:
    """A hand as its row holds it. Raises `DamagedRecord`."""
    seats = unpack_seats(row.seats)
    record = HandRecord(
        id=row.id,
        hand_no=row.hand_no,
        deal_no=row.deal_no,
        level=row.level,
        ended_at=row.ended_at,
        button_seat=row.button_seat,
        seats=tuple([seat.seat for seat in seats]),
        stacks=tuple([seat.stack for seat in seats]),
        net=tuple([seat.net for seat in seats]),
        board=unpack_cards(row.board),
        holes=() if cards is None else unpack_holes(cards),
        actions=unpack_actions(row.actions),
    )
    stakes = RunRules.from_json(rules).at_level(row.level)
    return StoredHand(row.run_id, table_id, stakes, record, cards is not None)
