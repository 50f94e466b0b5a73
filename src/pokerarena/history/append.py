"""Appending complete hands: COPY into the hands' relations, in the caller's transaction.

Owns which column gets which packed part, and the next link of each run's chain. It never commits,
never checks the fence (the caller does, in the same transaction) and never changes a hand that is
stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import AsyncCursor

from pokerarena.history.chain import next_link
from pokerarena.history.codec import pack_actions, pack_holes, pack_seats
from pokerarena.history.record import HandRecord

MAX_NOTE_CHARS: Final = 1024

_COPY_HANDS: Final = (
    "COPY hands (id, run_id, ended_at, hand_no, deal_no, epoch, level, button_seat,"
    " board, seats, actions, chain) FROM STDIN (FORMAT BINARY)"
)
_HANDS_TYPES: Final = (
    "uuid", "uuid", "timestamptz", "int4", "int4", "int4", "int2", "int2",
    "bytea", "bytea", "bytea", "bytea",
)  # fmt: skip
_COPY_CARDS: Final = "COPY hand_cards (hand_id, cards) FROM STDIN (FORMAT BINARY)"
_COPY_NOTES: Final = (
    "COPY decision_notes (hand_id, action_no, seat_no, note, failure) FROM STDIN (FORMAT BINARY)"
)


class FencedHands(NamedTuple):
    """Hands of one run, under the epoch that they are written with, after the run's last link."""

    run_id: UUID
    epoch: int
    hands: Sequence[HandRecord]
    chain_head: bytes


async def append_hands(cursor: AsyncCursor[Any], groups: Sequence[FencedHands]) -> list[bytes]:
    """Write the hands of several runs, with their hole cards and notes; each run's new last link."""
    heads = []
    cards = []
    async with cursor.copy(_COPY_HANDS) as copy:
        copy.set_types(_HANDS_TYPES)
        for run_id, epoch, hands, link in groups:
            for hand in hands:
                board = bytes(hand.board)
                seats = pack_seats(hand.seats, hand.stacks, hand.net)
                actions = pack_actions(hand.actions)
                holes = pack_holes(hand.holes)
                link = next_link(  # noqa: PLW2901 - it is what the chain is
                    link,
                    hand_id=hand.id,
                    hand_no=hand.hand_no,
                    deal_no=hand.deal_no,
                    epoch=epoch,
                    level=hand.level,
                    button_seat=hand.button_seat,
                    ended_at=hand.ended_at,
                    parts=(board, seats, actions, holes),
                )
                cards.append((hand.id, holes))
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
                        board,
                        seats,
                        actions,
                        link,
                    )
                )
            heads.append(link)
    async with cursor.copy(_COPY_CARDS) as copy:
        copy.set_types(("uuid", "bytea"))
        for row in cards:
            await copy.write_row(row)
    noted = [hand for group in groups for hand in group.hands if hand.notes]
    if not noted:
        return heads
    async with cursor.copy(_COPY_NOTES) as copy:
        copy.set_types(("uuid", "int2", "int2", "varchar", "varchar"))
        for hand in noted:
            for action_no, seat, note, failure in hand.notes:
                await copy.write_row((hand.id, action_no, seat, _text(note), _text(failure)))
    return heads


def _text(value: str | None) -> str | None:
    """Text as PostgreSQL takes it: bounded, and without the one character that it refuses."""
    return None if value is None else value.replace("\x00", "\ufffd")[:MAX_NOTE_CHARS]
