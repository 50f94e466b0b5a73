"""The protocol reference is true: its example hand is replayed and its lists are complete."""

import json
import re
from pathlib import Path

from pokerarena.agents.player import FallbackReason
from pokerarena.agents.seat import judge
from pokerarena.engine.actions import Action, Kind
from pokerarena.engine.cards import parse_card
from pokerarena.engine.deal import Deal
from pokerarena.engine.rules import Rules
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see
from pokerarena.protocol.answers import decode_answer
from pokerarena.protocol.messages import (
    Answer,
    Callback,
    HandEnd,
    RunEnd,
    RunStart,
    callback_from_view,
    encode,
    hand_end_from_view,
)
from pokerarena.protocol.signing import verify

REFERENCE = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
IDS = {"run_id": "run_0193", "table_id": "tbl_0193", "hand_id": "hand_0193", "hand_no": 17}
# What the opponents of the example do, in the order of their turns.
OPPONENTS = [
    Action(Kind.CALL),
    Action(Kind.FOLD),
    Action(Kind.CHECK),
    Action(Kind.RAISE, 900),
    Action(Kind.CHECK),
    Action(Kind.BET, 1_200),
]


def blocks(kind):
    return re.findall(rf"```json {kind}\n(.*?)```", REFERENCE, re.DOTALL)


def cards(text):
    return tuple(parse_card(card) for card in text.split())


def test_the_example_hand_happens_exactly_as_it_is_told():
    holes = (cards("Ah Kh"), cards("9s 9c"), cards("Td 7d"))
    deal = Deal(holes, cards("Ad 9h 4s 2c Kd"))
    hand = start(Rules(50, 100), (1, 2, 3), (10_000,) * 3, 1, deal).hand
    questions, answers, others = blocks("callback"), blocks("answer"), iter(OPPONENTS)
    assert len(questions) == len(answers) == 5
    told = iter(zip(questions, answers, strict=True))
    while not hand.complete:
        if hand.seat_to_act == 1:
            question, answer = next(told)
            view = see(hand, Viewer.of_seats([1]))
            callback = callback_from_view(view, **IDS, action_deadline_ms=2_000)
            assert json.loads(question) == json.loads(encode(callback))
            action = judge(decode_answer(answer.encode()), hand.legal())
            assert isinstance(action, Action), action
        else:
            action = next(others)
        hand = apply(hand, action).hand
    assert list(told) == []
    assert list(others) == []
    end = hand_end_from_view(see(hand, Viewer.of_seats([1])), seat=1, **IDS)
    assert json.loads(blocks("hand_end")[0]) == json.loads(encode(end))


def test_every_field_of_every_message_is_described():
    for message in (Callback, Answer, RunStart, HandEnd, RunEnd):
        for field in message.__struct_fields__:
            assert f"`{field}`" in REFERENCE, f"{message.__name__}.{field} is not described"


def test_every_fallback_reason_is_described_in_its_order():
    described = re.findall(
        r"^\| `(\w+)` \| [^|]+\|$", REFERENCE.split("## When something")[1], re.MULTILINE
    )
    assert described == [reason.value for reason in FallbackReason]


def test_the_signature_of_the_reference_verifies():
    section = REFERENCE.split("## Signatures")[1].split("## Time")[0]
    secret = re.search(r"`(whsec_\w+)`", section)[1]
    message_id = re.search(r"`(msg_\w+)`", section)[1]
    timestamp = re.search(r"`(\d{10})`", section)[1]
    body = re.search(r'`(\{"test".*?\})`', section)[1]
    signature = re.search(r"`(v1,[^`]{20,})`", section)[1]
    verify(
        secret,
        message_id=message_id,
        timestamp=timestamp,
        signatures=signature,
        body=body.encode(),
        now_s=int(timestamp),
    )
