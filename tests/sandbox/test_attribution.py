"""Lines and questions: any mixture of late, missing and foreign ids ends where it should."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.protocol.messages import Answer
from pokerarena.sandbox.attribution import Attribution, Ignored, Settled


def line(action="fold", **fields):
    return json.dumps({"action": action} | fields).encode()


@pytest.fixture
def attribution():
    return Attribution(1_000)


def test_an_id_finds_its_question_wherever_it_stands(attribution):
    asked = ["a", "b", "c"]
    assert attribution.read(line(decision_id="b"), asked) == Settled("b", Answer("fold", None, "b"))


def test_without_an_id_one_question_is_enough_and_two_are_too_many(attribution):
    assert attribution.read(line(), ["a"]) == Settled("a", Answer("fold"))
    settled = attribution.read(line(), ["a", "b"])
    assert settled.decision_id == "a"
    assert settled.reply.reason is FallbackReason.MALFORMED


def test_a_late_answer_is_dropped_with_and_without_its_id(attribution):
    attribution.give_up("a")
    assert attribution.read(line(decision_id="a"), ["b"]) is Ignored.LATE
    assert attribution.read(line(), ["b"]) == Settled("b", Answer("fold"))
    attribution.give_up("b")
    assert attribution.read(line(), ["c"]) is Ignored.LATE
    assert attribution.read(line(), ["c"]) == Settled("c", Answer("fold"))


def test_a_late_line_that_is_no_answer_is_late_all_the_same(attribution):
    attribution.give_up("a")
    assert attribution.read(b"garbage", ["b"]) is Ignored.LATE
    assert isinstance(attribution.read(b"garbage", ["b"]).reply, Failure)


def test_a_new_process_owes_nothing(attribution):
    attribution.give_up("a")
    attribution.forget()
    assert attribution.read(line(), ["b"]) == Settled("b", Answer("fold"))


def test_nothing_asked_and_foreign_ids_are_stray(attribution):
    assert attribution.read(line(), []) is Ignored.STRAY
    assert attribution.read(b"hello", []) is Ignored.STRAY
    assert attribution.read(line(decision_id="x"), ["a"]) is Ignored.STRAY


def test_an_error_of_the_sdk_is_told_in_its_words(attribution):
    said = json.dumps({"decision_id": "b", "error": "act raised KeyError: 'x'"}).encode()
    settled = attribution.read(said, ["a", "b"])
    assert settled == Settled("b", Failure(FallbackReason.MALFORMED, "act raised KeyError: 'x'"))


@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda ids, action: line(action, decision_id=ids),
            st.sampled_from(["a", "b", "c", None, 7, ""]),
            st.sampled_from(["fold", "shove", "raise"]),
        ),
    ),
    asked=st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
    late=st.lists(st.sampled_from(["x", "y"]), max_size=3),
)
def test_whatever_comes_settles_a_question_in_flight_or_none(data, asked, late):
    attribution = Attribution(1_000)
    for decision_id in late:
        attribution.give_up(decision_id)
    found = attribution.read(data, asked)
    if isinstance(found, Settled):
        assert found.decision_id in asked
        if isinstance(found.reply, Answer) and found.reply.decision_id is not None:
            assert found.reply.decision_id == found.decision_id
