"""Appending complete hands: COPY into the hands' relations, in the caller's transaction.

Owns which column gets which packed part. It never commits, never checks the fence (the caller does,
in the same transaction) and never changes a hand that is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import AsyncCursor

from pokerarena.history.codec import pack_actions, pack_holes, pack_seats
from pokerarena.history.record import HandRecord

MAX_NOTE_CHARS: Final = 1024

_COPY_HANDS: Final = (
    "COPY hands (id, run_id, ended_at, hand_no, deal_no, epoch, level, button_seat,"
    " board, seats, actions) FROM STDIN (FORMAT BINARY)"
)
_HANDS_TYPES: Final = (
    "uuid", "uuid", "timestamptz", "int4", "int4", "int4", "int2", "int2",
    "bytea", "bytea", "bytea",
)  # fmt: skip
_COPY_CARDS: Final = "COPY hand_cards (hand_id, cards) FROM STDIN (FORMAT BINARY)"
_COPY_NOTES: Final = (
    "COPY decision_notes (hand_id, action_no, seat_no, note, failure) FROM STDIN (FORMAT BINARY)"
)


class FencedHands(NamedTuple):
    """Hands of one run, under the epoch that they are written with."""

    run_id: UUID
    epoch: int
    hands: Sequence[HandRecord]


async def append_hands(cursor: AsyncCursor[Any], groups: Sequence[FencedHands]) -> None:
    """Write the hands of several runs, with their hole cards and notes."""
    async with cursor.copy(_COPY_HANDS) as copy:
        copy.set_types(_HANDS_TYPES)
        for run_id, epoch, hands in groups:
            for hand in hands:
                await copy.write_row(
                    (
                        hand.id,
                        run_id,
                        hand.ended_at,
                        hand.hand_no,
                        hand.deal_no,
                        epoch,
                        hand.level,
                        hand.button_seat,
                        bytes(hand.board),
                        pack_seats(hand.seats, hand.stacks, hand.net),
                        pack_actions(hand.actions),
                    )
                )
    async with cursor.copy(_COPY_CARDS) as copy:
        copy.set_types(("uuid", "bytea"))
        for _, _, hands in groups:
            for hand in hands:
                await copy.write_row((hand.id, pack_holes(hand.holes)))
    noted = [hand for _, _, hands in groups for hand in hands if hand.notes]
    if not noted:
        return
    async with cursor.copy(_COPY_NOTES) as copy:
        copy.set_types(("uuid", "int2", "int2", "varchar", "varchar"))
        for hand in noted:
            for action_no, seat, note, failure in hand.notes:
                await copy.write_row((hand.id, action_no, seat, _text(note), _text(failure)))


def _text(value: str | None) -> str | None:
    """Text as PostgreSQL takes it: bounded, and without the one character that it refuses."""
    return None if value is None else value.replace("\x00", "\ufffd")[:MAX_NOTE_CHARS]
