"""Answers are read strictly, within bounds, and every mistake gets a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena.protocol.answers import MalformedAnswer, decode_answer, decode_batch
from pokerarena.protocol.messages import ACTION_NAMES, MAX_AMOUNT, Answer


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"action":"call"}', Answer("call")),
        (b' {"action": "raise", "amount": 300} \n', Answer("raise", 300)),
        (b'{"action":"fold","amount":null}', Answer("fold")),
        (b'{"action":"check","amount":17}', Answer("check", 17)),
        (b'{"action":"bet","amount":-5}', Answer("bet", -5)),
        (
            b'{"action":"call","thoughts":{"a":[1.5,true]},"thoughts":1}',
            Answer("call"),
        ),
        (b'{"\\u0061ction":"call"}', Answer("call")),
        (b'{"action":"call","note":"\\"action\\" \xc3\xa9"}', Answer("call", note='"action" é')),
        (b'{"action":"call","x":{"action":1,"action":2}}', Answer("call")),
        (b'{"action":"call","decision_id":"d-1"}', Answer("call", decision_id="d-1")),
    ],
)
def test_a_well_formed_answer_is_read_and_unknown_fields_are_ignored(body, answer):
    assert decode_answer(body) == answer


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the answer is empty"),
        (b"  \n", "the answer is empty"),
        (b"call", "not JSON"),
        (b"<html>", "not JSON"),
        (b'{"action":"call"', "not JSON"),
        (b'{"action":"call"} {}', "not JSON"),
        (b"\xef\xbb\xbf" + b'{"action":"call"}', "not JSON"),
        (b'"call"', "must be a JSON object"),
        (b'[{"action":"call"}]', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "has no action"),
        (b'{"action":null}', "action must be one of"),
        (b'{"action":2}', "action must be one of"),
        (b'{"action":"all_in"}', 'got "all_in"'),
        (b'{"action":"CALL"}', "lower case, please"),
        (b'{"action":"bet"}', "a bet needs an amount"),
        (b'{"action":"raise","amount":null}', "a raise needs an amount"),
        (b'{"action":"bet","amount":100.0}', r"whole number of chips.*got 100\.0"),
        (b'{"action":"bet","amount":1e2}', "got 1e2"),
        (b'{"action":"bet","amount":true}', "got true"),
        (b'{"action":"bet","amount":"100"}', 'got "100"'),
        (b'{"action":"bet","amount":NaN}', "not JSON"),
        (b'{"action":"bet","amount":Infinity}', "not JSON"),
        (b'{"action":"bet","amount":9007199254740992}', "got 9007199254740992"),
        (b'{"action":"bet","amount":1' + b"0" * 6000 + b"}", "got 1000000"),
        (b'{"action":"call","amount":1,"amount":2}', '"amount" stands twice'),
        (b'{"action":"call","\\u0061ction":"fold"}', '"action" stands twice'),
        (b'{"action":"call","x":' + b"[" * 8000 + b"]" * 8000 + b"}", "nested too deeply"),
        (b'{"action":"call","note":"\xff"}', "not UTF-8 at byte 25"),
        (b'{"action":"call","x":"\xff"}', "not UTF-8"),
        (b'{"action":"call","note":"\\ud800"}', "not JSON"),
        (b'{"action":"call","note":7}', "note must be a string"),
        (b'{"action":"call","note":"' + b"n" * 1025 + b'"}', "longer than 1024 bytes"),
        ('{"action":"call","note":"' + "é" * 513 + '"}', "longer than 1024 bytes"),
        (b'{"action":"call","note":"a\\u0000"}', "NUL"),
        (b'{"action":"call","decision_id":"' + b"d" * 129 + b'"}', "decision_id must be"),
        (b'{"action":"call","x":"' + b"x" * 20_000 + b'"}', "at most 16384 are allowed"),
    ],
)
def test_a_malformed_answer_is_refused_with_a_sentence_about_it(body, says):
    if isinstance(body, str):
        body = body.encode()
    with pytest.raises(MalformedAnswer, match=says) as refused:
        decode_answer(body)
    assert len(str(refused.value)) < 250


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_answer_or_malformed_and_nothing_else(body):
    try:
        read = decode_answer(body)
    except MalformedAnswer as error:
        read = error
    assert isinstance(read, Answer | MalformedAnswer)
    assert str(read)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "action": st.sampled_from(ACTION_NAMES) | json_values,
            "amount": st.integers(-10, MAX_AMOUNT) | json_values,
            "decision_id": st.text(max_size=130) | json_values,
            "note": st.text(max_size=30) | json_values,
            "other": json_values,
        },
    )
)
def test_an_answer_is_accepted_exactly_when_its_fields_keep_the_promises(value):
    amount = value.get("amount")
    note, decision_id = value.get("note"), value.get("decision_id")
    wanted = (
        value.get("action") in ACTION_NAMES
        and (amount is None or (type(amount) is int and abs(amount) <= MAX_AMOUNT))
        and not (value["action"] in ("bet", "raise") and amount is None)
        and (note is None or (isinstance(note, str) and "\0" not in note))
        and (decision_id is None or (isinstance(decision_id, str) and len(decision_id) <= 128))
    )
    try:
        body = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, UnicodeEncodeError):
        return
    try:
        answer = decode_answer(body)
    except MalformedAnswer:
        assert not wanted
    else:
        assert wanted
        assert (answer.action, answer.amount) == (value["action"], amount)


class TestBatch:
    def test_answers_are_matched_by_decision_id_in_any_order(self):
        body = b'[{"action":"call","decision_id":"b"},{"action":"fold","decision_id":"a"}]'
        answers = decode_batch(body, ["a", "b"])
        assert answers["a"].action == "fold"
        assert answers["b"].action == "call"

    def test_one_bad_answer_spoils_no_other(self):
        body = b'[{"action":"dance","decision_id":"a"},{"action":"call","decision_id":"b"}]'
        answers = decode_batch(body, ["a", "b"])
        assert isinstance(answers["a"], MalformedAnswer)
        assert "dance" in str(answers["a"])
        assert answers["b"].action == "call"

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (b"[]", 'no answer to decision_id "a"'),
            (b'[{"action":"call"}]', "has no decision_id"),
            (b'[{"action":"call","decision_id":"z"}]', 'nobody asked for decision_id "z"'),
            (
                b'[{"action":"call","decision_id":"a"},{"action":"call","decision_id":"a"}]',
                "two answers",
            ),
        ],
    )
    def test_a_missing_or_repeated_answer_is_malformed(self, body, says):
        answers = decode_batch(body, ["a", "b"])
        assert isinstance(answers["a"], MalformedAnswer)
        assert says in str(answers["a"])
        assert set(answers) == {"a", "b"}

    @pytest.mark.parametrize("body", [b"", b"{}", b"[", b"[1,2,3]", b"[" * 9000, b" " * 20_000])
    def test_what_is_no_array_of_answers_is_refused_as_a_whole(self, body):
        with pytest.raises(MalformedAnswer):
            decode_batch(body, ["a", "b"])
