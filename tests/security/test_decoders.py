"""Every decoder of what strangers send: whatever it is, an answer or its own refusal, in bounds."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pokerarena.errors import Invalid
from pokerarena.history.codec import decode_hand, unpack_actions, unpack_cards, unpack_seats
from pokerarena.history.live import decode_live
from pokerarena.ids import IdKind, parse_id
from pokerarena.protocol.answers import MalformedAnswer, decode_answer, decode_batch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["action", "amount", "note", "decision_id"]) | st.text(), inner
        )
    ),
    max_leaves=10,
)
ANYTHING = st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode())
MANY = settings(max_examples=150, deadline=None)


@MANY
@given(ANYTHING)
def test_answers_of_agents(body: bytes) -> None:
    with contextlib.suppress(MalformedAnswer):
        decode_answer(body, max_bytes=200)
    with contextlib.suppress(MalformedAnswer):
        decode_batch(body, ["a", "b"], max_bytes=400)


@MANY
@given(st.text(max_size=300))
def test_ids(text: str) -> None:
    for kind in IdKind:
        with contextlib.suppress(Invalid):
            parse_id(kind, text)


@MANY
@given(ANYTHING.map(lambda body: body.decode(errors="replace")))
def test_live_notifications(payload: str) -> None:
    # Whoever may notify may send anything; the hub drops what raises.
    with contextlib.suppress(ValueError, KeyError, TypeError):
        decode_live(payload)


@MANY
@given(st.binary(max_size=400))
def test_packed_records(data: bytes) -> None:
    for decode in (decode_hand, unpack_actions, unpack_seats, unpack_cards):
        with contextlib.suppress(ValueError):
            decode(data)
