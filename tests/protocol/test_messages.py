"""Messages say what the design promises, fit their schema, and give no card away."""

import json
import re

import jsonschema
import msgspec
import pytest

from pokerarena.engine.cards import cards_text
from pokerarena.engine.view import Viewer, see
from pokerarena.protocol.messages import (
    Callback,
    LineupSeat,
    Message,
    RunEnd,
    RunStart,
    callback_from_view,
    encode,
    hand_end_from_view,
)
from pokerarena.protocol.schema import answer_schema, json_schema
from tests.protocol.hands import callback_of, moments, new_hand

IDS = {"run_id": "run_1", "table_id": "tbl_1", "hand_id": "hand_1", "hand_no": 1}
HANDS = 10_000
# The schema is slow, and a leak would not show there.
HANDS_VALIDATED = 300
CARDS = re.compile(rb'"([2-9TJQKA][cdhs])"')


def cards_in(message: bytes) -> set[str]:
    return {card.decode() for card in CARDS.findall(message)}


@pytest.fixture(scope="module")
def sent():
    return jsonschema.Draft202012Validator(json_schema())


def every_callback(hands=HANDS):
    for number in range(hands):
        for hand in moments(number):
            if not hand.complete:
                yield hand, callback_of(hand)


def test_a_callback_has_exactly_the_fields_of_the_design():
    _, callback = next(every_callback())
    assert set(json.loads(encode(callback))) == {
        "type",
        "protocol_version",
        "decision_id",
        "run_id",
        "table_id",
        "hand_id",
        "hand_no",
        "seat",
        "button_seat",
        "small_blind",
        "big_blind",
        "ante",
        "street",
        "hole_cards",
        "board",
        "pot",
        "to_call",
        "min_raise_to",
        "max_raise_to",
        "stacks",
        "bets",
        "folded",
        "all_in",
        "legal_actions",
        "history",
        "action_deadline_ms",
    }


def test_every_callback_of_random_hands_fits_the_schema_and_the_state_of_the_hand(sent):
    seen = 0
    for hand, callback in every_callback(60):
        message = json.loads(encode(callback))
        sent.validate(message)
        seat = str(hand.seat_to_act)
        assert message["seat"] == hand.seat_to_act
        assert sum(message["stacks"].values()) + message["pot"] == sum(hand.starting_stacks)
        assert message["to_call"] <= message["stacks"][seat]
        raises = "bet" in message["legal_actions"] or "raise" in message["legal_actions"]
        assert raises == (message["min_raise_to"] is not None)
        if raises:
            assert message["max_raise_to"] == message["bets"][seat] + message["stacks"][seat]
        assert ("check" in message["legal_actions"]) == (message["to_call"] == 0)
        assert len(message["history"]) == len(hand.history)
        seen += 1
    assert seen > 300


def test_no_callback_contains_a_card_that_its_seat_may_not_know():
    for hand, callback in every_callback():
        position = hand.seats.index(hand.seat_to_act)
        allowed = {*cards_text(hand._deal.holes[position]), *cards_text(hand.board)}
        assert cards_in(encode(callback)) == allowed


def test_decisions_of_a_hand_have_different_names_and_repeat_exactly():
    for number in range(50):
        names = [callback_of(hand).decision_id for hand in moments(number) if not hand.complete]
        again = [callback_of(hand).decision_id for hand in moments(number) if not hand.complete]
        assert len(set(names)) == len(names)
        assert names == again


def test_hand_end_shows_a_seat_its_own_cards_and_tabled_ones_only(sent):
    tabled = hidden = 0
    for number in range(HANDS):
        *_, hand = moments(number)
        for seat, holes in zip(hand.seats, hand._deal.holes, strict=True):
            end = hand_end_from_view(see(hand, Viewer.of_seats([seat])), seat=seat, **IDS)
            text = encode(end)
            message = json.loads(text)
            if number < HANDS_VALIDATED:
                sent.validate(message)
            shown = [
                cards
                for other, cards in zip(hand.seats, hand._deal.holes, strict=True)
                if other == seat or other in hand.tabled
            ]
            allowed = {*cards_text(hand.board), *(c for two in shown for c in cards_text(two))}
            assert cards_in(text) == allowed
            assert message["hole_cards"] == list(cards_text(holes))
            assert sum(message["net"].values()) == 0
            assert sum(pot["chips"] for pot in message["pots"]) == hand.pot
            tabled += bool(hand.tabled)
            hidden += not hand.tabled
    assert tabled
    assert hidden


def test_a_view_of_another_seat_or_of_a_complete_hand_makes_no_callback():
    hand = new_hand(1)
    other = next(seat for seat in hand.seats if seat != hand.seat_to_act)
    with pytest.raises(KeyError):
        callback_from_view(see(hand, Viewer.of_seats([other])), **IDS, action_deadline_ms=1)
    *_, complete = moments(1)
    with pytest.raises(ValueError, match="nobody to ask"):
        callback_from_view(see(complete, Viewer.EVERYTHING), **IDS, action_deadline_ms=1)
    with pytest.raises(ValueError, match="no result"):
        hand_end_from_view(see(hand, Viewer.SPECTATOR), seat=1, **IDS)


def test_run_messages_fit_the_schema(sent):
    start = RunStart(
        run_id="run_1",
        table_id="tbl_1",
        seat=1,
        lineup=(LineupSeat(1, "me"), LineupSeat(2, "you")),
        format="reset",
        planned_hands=100,
        small_blind=50,
        big_blind=100,
        ante=0,
        ante_kind="each",
        starting_stack=10_000,
        time_limit_ms=2_000,
        time_bank_ms=0,
    )
    end = RunEnd(
        run_id="run_1", table_id="tbl_1", seat=1, status="completed", hands_played=100, net=-5
    )
    for message in (start, end):
        sent.validate(json.loads(encode(message)))


def test_messages_survive_the_wire_and_say_what_they_are():
    for _, callback in every_callback(10):
        again = msgspec.json.decode(encode(callback), type=Message)
        assert isinstance(again, Callback)
        assert again == callback


def test_the_schema_refuses_what_the_arena_never_sends(sent):
    _, callback = next(every_callback())
    message = json.loads(encode(callback))
    for field, wrong in [
        ("type", "question"),
        ("protocol_version", 2),
        ("street", "showdown"),
        ("hole_cards", ["As"]),
        ("hole_cards", ["As", "1x"]),
        ("pot", -1),
        ("legal_actions", ["all_in"]),
    ]:
        assert not sent.is_valid(message | {field: wrong}), (field, wrong)


def test_the_answer_schema_agrees_with_the_reader_on_plain_cases():
    validator = jsonschema.Draft202012Validator(answer_schema())
    assert validator.is_valid({"action": "raise", "amount": 300, "mood": "fine"})
    for wrong in ({}, {"action": "dance"}, {"action": "bet", "amount": "1"}, [], "call"):
        assert not validator.is_valid(wrong)


def test_the_schema_itself_is_valid():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.Draft202012Validator.check_schema(answer_schema())
