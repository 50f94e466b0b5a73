"""The SDK's view: legal amounts, and what `act` may return."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena_sdk import Action, BadAction, View
from pokerarena_sdk.practice import positions, practise
from pokerarena_sdk.view import answer_of, mistakes

POSITIONS = dict(positions())


@given(
    name=st.sampled_from(sorted(POSITIONS)),
    chips=st.integers(-(10**9), 10**9),
    share=st.floats(-2, 9),
)
def test_raise_helpers_are_legal_in_every_position_for_every_amount(name, chips, share):
    view = View(POSITIONS[name])
    for action in (
        view.raise_to(chips),
        view.raise_pot(share),
        view.all_in(),
        view.check_or_fold(),
        view.check_or_call(),
    ):
        answer = answer_of(action, view.decision_id)
        assert mistakes(view, answer) is None, (name, answer)


def test_half_a_pot_counts_the_pot_after_the_call():
    view = View(POSITIONS["flop facing a bet"])
    assert view.raise_pot(0.5) == Action("raise", 200 + (400 + 200) // 2)


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        ("call", {"action": "call"}),
        (("raise", 300), {"action": "raise", "amount": 300}),
        ({"action": "fold", "amount": None}, {"action": "fold"}),
        (Action("check").with_note("why"), {"action": "check", "note": "why"}),
    ],
)
def test_act_may_return_an_action_in_four_forms(returned, answer):
    assert answer_of(returned, "d1") == answer | {"decision_id": "d1"}


@pytest.mark.parametrize(
    "returned", [None, 7, "shove", ("raise", "300"), ("raise", True), ("raise",), {"action": "bet"}]
)
def test_anything_else_is_refused_with_a_sentence(returned):
    with pytest.raises(BadAction, match=r"act|chips"):
        answer_of(returned, None)


@given(st.text(max_size=3000))
def test_a_note_is_cut_to_what_the_arena_takes(note):
    kept = Action("fold").with_note(note).note
    assert len(kept.encode()) <= 1024
    assert "\0" not in kept


def test_practice_explains_mistakes_and_counts_them(capsys):
    assert practise(lambda view: view.check_or_call()) == 0
    assert practise(lambda view: "check") > 0
    assert "check is not possible here" in capsys.readouterr().out


def test_practice_positions_are_complete_callbacks():
    import msgspec

    from pokerarena.protocol.messages import Callback

    for _, callback in positions():
        decoded = msgspec.json.decode(json.dumps(callback).encode(), type=Callback)
        assert sum(decoded.bets.values()) <= decoded.pot
