"""Packed records come back as they were, and damage is noticed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena.agents.player import FallbackReason
from pokerarena.engine.actions import Kind
from pokerarena.history import codec
from pokerarena.history.record import ActionRecord, HandRecord
from pokerarena.ids import new_id

CHIPS = st.integers(0, 10**13)


@st.composite
def actions(draw: st.DrawFn) -> ActionRecord:
    kind = draw(st.sampled_from(Kind))
    return ActionRecord(
        draw(st.integers(1, 10)),
        draw(st.integers(0, 3)),
        kind,
        None if kind in (Kind.FOLD, Kind.CHECK) else draw(CHIPS),
        draw(st.integers(0, 65_535)),
        draw(st.none() | st.sampled_from(FallbackReason)),
    )


@st.composite
def hands(draw: st.DrawFn) -> HandRecord:
    seats = tuple(sorted(draw(st.sets(st.integers(1, 10), min_size=2, max_size=10))))
    cards = draw(st.permutations(range(52)))
    return HandRecord(
        id=new_id(),
        hand_no=draw(st.integers(1, 2**31 - 1)),
        deal_no=draw(st.integers(1, 2**31 - 1)),
        level=draw(st.integers(0, 2**15 - 1)),
        ended_at=datetime(2026, 11, 27, 12, 0, 0, 123_000, tzinfo=UTC),
        button_seat=draw(st.sampled_from(seats)),
        seats=seats,
        stacks=tuple(draw(st.lists(CHIPS, min_size=len(seats), max_size=len(seats)))),
        net=tuple(
            draw(st.lists(st.integers(-(10**13), 10**13), min_size=len(seats), max_size=len(seats)))
        ),
        board=tuple(cards[: draw(st.sampled_from([0, 3, 4, 5]))]),
        holes=tuple((cards[10 + 2 * n], cards[11 + 2 * n]) for n in range(len(seats))),
        actions=tuple(draw(st.lists(actions(), max_size=40))),
    )


@given(st.lists(actions(), max_size=60))
def test_actions_come_back(before: list[ActionRecord]) -> None:
    packed = codec.pack_actions(before)
    assert len(packed) == codec.ACTION_BYTES * len(before)
    assert codec.unpack_actions(packed) == tuple(before)


@given(hands())
def test_a_whole_hand_comes_back(before: HandRecord) -> None:
    assert codec.decode_hand(codec.encode_hand(before)) == before


@given(hands())
def test_seats_and_cards_come_back(hand: HandRecord) -> None:
    seats = codec.unpack_seats(codec.pack_seats(hand.seats, hand.stacks, hand.net))
    assert [(seat.seat, seat.stack, seat.net) for seat in seats] == list(
        zip(hand.seats, hand.stacks, hand.net, strict=True)
    )
    assert codec.unpack_holes(codec.pack_holes(hand.holes)) == hand.holes
    assert codec.unpack_cards(bytes(hand.board)) == hand.board


@given(hands(), st.data())
def test_a_hand_of_another_length_is_refused(hand: HandRecord, data: st.DataObject) -> None:
    packed = codec.encode_hand(hand)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(codec.DamagedRecord):
        codec.decode_hand(packed[:cut])
    with pytest.raises(codec.DamagedRecord):
        codec.decode_hand(packed + b"\0")


@pytest.mark.parametrize(
    ("unpack", "packed"),
    [
        (codec.unpack_actions, bytes(9)),
        (codec.unpack_actions, b"\x51" + bytes(9)),
        (codec.unpack_actions, b"\x01\xd0" + bytes(8)),
        (codec.unpack_seats, bytes(13)),
        (codec.unpack_cards, b"\x34"),
        (codec.unpack_holes, b"\x01\x02\x03"),
        (codec.decode_hand, b"\x02" + bytes(60)),
    ],
)
def test_bytes_that_nobody_wrote_are_refused(unpack: object, packed: bytes) -> None:
    with pytest.raises(codec.DamagedRecord):
        unpack(packed)  # type: ignore[operator]


def test_a_long_think_is_stored_as_the_longest_time_there_is() -> None:
    packed = codec.pack_actions([ActionRecord(1, 0, Kind.FOLD, None, 3_600_000)])
    assert codec.unpack_actions(packed)[0].elapsed_ms == codec.MAX_ELAPSED_MS


def test_chips_that_do_not_fit_are_an_error_and_never_cut() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        codec.pack_actions([ActionRecord(1, 0, Kind.BET, codec.MAX_PACKED_CHIPS + 1)])
    with pytest.raises(ValueError, match="do not fit"):
        codec.pack_seats([1], [1], [-codec.MAX_PACKED_CHIPS - 1])
