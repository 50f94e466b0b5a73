"""Packed records: how a hand becomes bytes and back.

Owns the layout of every packed column. The layout is stored and read by the SQL view
``hand_actions`` too, so it never changes; a new layout would be a new column. Pure: no SQL, no
clock. All numbers are big-endian.

- An action is 10 bytes: ``kind << 4 | seat``, ``fallback code << 4 | street``, elapsed milliseconds
  (2, saturated), street total (6; 0 for a fold or a check).
- A seat is 14 bytes: seat number, flags, stack before the hand (6), net (6, signed).
- A card is one byte, 0 to 51.
- A whole hand in one piece (`encode_hand`, for the live stream) is a header and these parts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from pokerarena.agents.player import FallbackReason
from pokerarena.engine.actions import Kind
from pokerarena.engine.cards import DECK_SIZE
from pokerarena.history.record import ActionRecord, Cards, HandRecord, Holding

ACTION_BYTES: Final = 10
SEAT_BYTES: Final = 14
MAX_ELAPSED_MS: Final = 0xFFFF
MAX_PACKED_CHIPS: Final = (1 << 47) - 1

_HAND_VERSION: Final = 1
_ACTION: Final = struct.Struct(">BBHHI")
_SEAT: Final = struct.Struct(">BBHIhI")
_HEADER: Final = struct.Struct(">B16sIIHBBBHQ")

_KINDS: Final = tuple(Kind)
_FALLBACK_CODES: Final[dict[FallbackReason | None, int]] = {
    None: 0,
    **{reason: reason.code for reason in FallbackReason},
}
_FALLBACKS: Final[dict[int, FallbackReason | None]] = {
    code: reason for reason, code in _FALLBACK_CODES.items()
}
_WITHOUT_TOTAL: Final = (Kind.FOLD, Kind.CHECK)


class DamagedRecord(ValueError):
    """Stored bytes that no version of this program has written."""


class SeatRecord(NamedTuple):
    """One seat of a packed hand. No flag has a meaning yet: the byte is 0."""

    seat: int
    flags: int
    stack: int
    net: int


def pack_actions(actions: Iterable[ActionRecord]) -> bytes:
    """The packed actions of a hand, in order."""
    packed = bytearray()
    pack = _ACTION.pack
    for seat, street, kind, street_total, elapsed_ms, fallback in actions:
        total = street_total or 0
        if total > MAX_PACKED_CHIPS:
            raise ValueError(f"{total} chips do not fit into a packed action")
        packed += pack(
            kind << 4 | seat,
            _FALLBACK_CODES[fallback] << 4 | street,
            min(elapsed_ms, MAX_ELAPSED_MS),
            total >> 32,
            total & 0xFFFFFFFF,
        )
    return bytes(packed)


def unpack_actions(packed: bytes) -> tuple[ActionRecord, ...]:
    """The inverse of `pack_actions`. Raises `DamagedRecord`."""
    if len(packed) % ACTION_BYTES:
        raise DamagedRecord(f"packed actions of {len(packed)} bytes end within an action")
    actions = []
    try:
        for who, how, elapsed_ms, high, low in _ACTION.iter_unpack(packed):
            kind = _KINDS[who >> 4]
            total = None if kind in _WITHOUT_TOTAL else high << 32 | low
            actions.append(
                ActionRecord(who & 15, how & 15, kind, total, elapsed_ms, _FALLBACKS[how >> 4])
            )
    except (IndexError, KeyError):
        raise DamagedRecord("a packed action has an unknown kind or fallback reason") from None
    return tuple(actions)


def pack_seats(
    seats: Sequence[int], stacks: Sequence[int], net: Sequence[int], flags: int = 0
) -> bytes:
    """The packed seats of a hand, in the order of `seats`."""
    packed = bytearray()
    for seat, stack, change in zip(seats, stacks, net, strict=True):
        if stack > MAX_PACKED_CHIPS or abs(change) > MAX_PACKED_CHIPS:
            raise ValueError(f"{max(stack, abs(change))} chips do not fit into a packed seat")
        packed += _SEAT.pack(
            seat, flags, stack >> 32, stack & 0xFFFFFFFF, change >> 32, change & 0xFFFFFFFF
        )
    return bytes(packed)


def unpack_seats(packed: bytes) -> tuple[SeatRecord, ...]:
    """The inverse of `pack_seats`. Raises `DamagedRecord`."""
    if len(packed) % SEAT_BYTES:
        raise DamagedRecord(f"packed seats of {len(packed)} bytes end within a seat")
    return tuple(
        [
            SeatRecord(seat, flags, stack_high << 32 | stack_low, net_high << 32 | net_low)
            for seat, flags, stack_high, stack_low, net_high, net_low in _SEAT.iter_unpack(packed)
        ]
    )


def pack_holes(holes: Iterable[Holding]) -> bytes:
    """The hole cards of a hand by position, two bytes a seat."""
    return bytes([card for holding in holes for card in holding])


def unpack_holes(packed: bytes) -> tuple[Holding, ...]:
    """The inverse of `pack_holes`. Raises `DamagedRecord`."""
    cards = unpack_cards(packed)
    if len(cards) % 2:
        raise DamagedRecord(f"{len(cards)} hole cards are not two for each seat")
    return tuple(zip(cards[::2], cards[1::2], strict=True))


def unpack_cards(packed: bytes) -> Cards:
    """The cards of a board, or of any row of cards. Raises `DamagedRecord`."""
    if packed and max(packed) >= DECK_SIZE:
        raise DamagedRecord("a packed card is none of the 52")
    return tuple(packed)


def encode_hand(hand: HandRecord) -> bytes:
    """A whole hand, hole cards included, in one piece; without its notes."""
    return b"".join(
        (
            _HEADER.pack(
                _HAND_VERSION,
                hand.id.bytes,
                hand.hand_no,
                hand.deal_no,
                hand.level,
                hand.button_seat,
                len(hand.seats),
                len(hand.board),
                len(hand.actions),
                int(hand.ended_at.timestamp() * 1000),
            ),
            pack_seats(hand.seats, hand.stacks, hand.net),
            bytes(hand.board),
            pack_holes(hand.holes),
            pack_actions(hand.actions),
        )
    )


def decode_hand(data: bytes) -> HandRecord:
    """The inverse of `encode_hand`. Raises `DamagedRecord`."""
    if len(data) < _HEADER.size or data[0] != _HAND_VERSION:
        raise DamagedRecord("not a packed hand of a version that this program reads")
    (
        _,
        hand_id,
        hand_no,
        deal_no,
        level,
        button_seat,
        seat_count,
        board_count,
        action_count,
        at,
    ) = _HEADER.unpack_from(data)
    lengths = (seat_count * SEAT_BYTES, board_count, seat_count * 2, action_count * ACTION_BYTES)
    if len(data) != _HEADER.size + sum(lengths):
        raise DamagedRecord(f"a packed hand of {len(data)} bytes is not as long as it says")
    parts = []
    begin = _HEADER.size
    for length in lengths:
        parts.append(data[begin : begin + length])
        begin += length
    seats = unpack_seats(parts[0])
    return HandRecord(
        id=UUID(bytes=hand_id),
        hand_no=hand_no,
        deal_no=deal_no,
        level=level,
        ended_at=datetime.fromtimestamp(at / 1000, UTC),
        button_seat=button_seat,
        seats=tuple([seat.seat for seat in seats]),
        stacks=tuple([seat.stack for seat in seats]),
        net=tuple([seat.net for seat in seats]),
        board=unpack_cards(parts[1]),
        holes=unpack_holes(parts[2]),
        actions=unpack_actions(parts[3]),
    )
