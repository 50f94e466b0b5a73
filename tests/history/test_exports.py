"""Exports: PokerKit reads our PHH to the same end, and the ACPC log says what happened."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest
from pokerkit.notation import HandHistory

from pokerarena.engine.actions import Kind
from pokerarena.engine.cards import CARD_TEXTS
from pokerarena.engine.view import Viewer
from pokerarena.errors import Invalid
from pokerarena.history.acpc import acpc_hand
from pokerarena.history.export import open_hand_file
from pokerarena.history.phh import phh_hand
from pokerarena.runs.formats import RunRules
from pokerarena.runs.play import play_run
from pokerarena.runs.seams import Clock, Control
from pokerarena.tables.models import Format
from tests.runs.stages import Recorder, Told, seat, spec

NAMES = {1: "one", 2: 'tw"o', 3: "thr\\ee", 4: "four", 5: "five|:", 6: "six\n"}


def read_by_pokerkit(path: Path) -> list[tuple[int, list[int], list[int]]]:
    """Number, PokerKit's final stacks and ours, of each hand."""
    hands = []
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for history in HandHistory.load_all(file):
            *_, state = history
            assert not state.status, "PokerKit does not come to an end"
            hands.append((history.hand, list(state.stacks), history.finishing_stacks))
    return hands


async def played(lineup: list[str], hands: int, format_: Format, **rules: Any) -> tuple[Any, Any]:
    players = {number: Told(name, number) for number, name in enumerate(lineup, start=1)}
    recorder = Recorder()
    run = spec(list(players), hands, format_, starting_stack=rules.pop("starting_stack", 3_000))
    object.__setattr__(run, "rules", RunRules.from_json({**run.rules.to_json(), **rules}))
    await play_run(run, seat(players), recorder, Control(), Clock())
    return run.rules, recorder


@pytest.mark.parametrize(
    ("lineup", "format_", "rules"),
    [
        (["random", "tight", "caller"], Format.RESET, {}),
        (["random", "caller"], Format.RESET, {}),
        (["random", "random", "tight", "caller", "random", "random"], Format.DUPLICATE, {}),
        (["random", "caller", "tight", "random"], Format.CASH, {"starting_stack": 20_000}),
        (["random", "caller", "random"], Format.RESET, {"ante": 10}),
        (["random", "caller", "random"], Format.RESET, {"ante": 100, "ante_kind": "big_blind"}),
        (["random", "caller"], Format.RESET, {"ante": 100, "ante_kind": "big_blind"}),
    ],
)
async def test_pokerkit_plays_an_export_to_the_same_final_stacks(
    lineup: list[str], format_: Format, rules: dict[str, Any], tmp_path: Path
) -> None:
    run_rules, recorder = await played(lineup, 120, format_, **rules)
    path = tmp_path / "hands.phhs"
    with open_hand_file(
        path, run_rules, names=NAMES, viewer=Viewer.EVERYTHING, hands=120, seed="s"
    ) as file:
        for hand in recorder.hands:
            file.write(hand)
        file.end({})
    hands = await asyncio.to_thread(read_by_pokerkit, path)
    assert [number for number, _, _ in hands] == list(range(1, 121))
    for number, theirs, ours in hands:
        assert theirs == ours, f"hand {number}"


async def test_an_export_for_a_spectator_holds_no_card_that_was_not_shown() -> None:
    run_rules, recorder = await played(["random", "tight", "caller"], 80, Format.RESET)
    hidden = 0
    for hand in recorder.hands:
        rules = run_rules.at_level(0)
        final = hand.last_hand(rules)
        texts = [
            phh_hand(hand, rules, names=NAMES, viewer=Viewer.SPECTATOR, section=1),
            acpc_hand(hand, rules, names=NAMES, viewer=Viewer.SPECTATOR).split(":")[3],
        ]
        for seat_no, holding in zip(hand.seats, hand.holes, strict=True):
            if seat_no not in final.tabled:
                hidden += 1
                for card in holding:
                    for text in texts:
                        assert CARD_TEXTS[card] not in text
    assert hidden > 50


async def test_an_acpc_line_says_who_did_what_and_what_came_of_it() -> None:
    run_rules, recorder = await played(["random", "caller", "random"], 100, Format.RESET)
    for hand in recorder.hands:
        rules = run_rules.at_level(0)
        line = acpc_hand(hand, rules, names=NAMES, viewer=Viewer.EVERYTHING)
        state, number, betting, cards, net, players = line.rstrip("\n").split(":")
        assert (state, int(number)) == ("STATE", hand.hand_no - 1)
        order = [hand.seats.index(seat_no) for seat_no in _from_the_left(hand)]
        assert [int(chips) for chips in net.split("|")] == [hand.net[index] for index in order]
        assert len(players.split("|")) == 3
        holes, *board = cards.split("/")
        assert "".join(board) == "".join(CARD_TEXTS[card] for card in hand.board)
        assert holes.split("|") == [
            "".join(CARD_TEXTS[card] for card in hand.holes[index]) for index in order
        ]
        letters = [char for char in betting if char in "fcr"]
        assert letters == [
            {Kind.FOLD: "f", Kind.CHECK: "c", Kind.CALL: "c", Kind.BET: "r", Kind.RAISE: "r"}[
                action.kind
            ]
            for action in hand.actions
        ]
        _check_amounts(hand, rules, betting)


def _from_the_left(hand: Any) -> list[int]:
    button = hand.seats.index(hand.button_seat)
    return [hand.seats[(button + step) % len(hand.seats)] for step in range(1, len(hand.seats) + 1)]


def _check_amounts(hand: Any, rules: Any, betting: str) -> None:
    """A raise is the player's total over the whole hand."""
    raises = [
        int("".join(char for char in part if char.isdigit()))
        for part in betting.replace("/", "")
        .replace("f", " ")
        .replace("c", " ")
        .replace("r", " r")
        .split()
        if part.startswith("r")
    ]
    expected = []
    transitions = list(hand.replay(rules))
    for action, transition in zip(hand.actions, transitions[1:], strict=True):
        if action.kind in (Kind.BET, Kind.RAISE):
            before = transitions[transitions.index(transition) - 1].hand
            index = hand.seats.index(action.seat)
            earlier = before.invested[index] - before.bets[index]
            expected.append(earlier + action.street_total)
    assert raises == expected


async def test_antes_cannot_be_written_as_an_acpc_log(tmp_path: Path) -> None:
    run_rules, recorder = await played(["random", "caller"], 1, Format.RESET, ante=5)
    with pytest.raises(Invalid, match="antes"):
        acpc_hand(recorder.hands[0], run_rules.at_level(0), names=NAMES, viewer=Viewer.EVERYTHING)
    path = tmp_path / "hands.log"
    with (
        pytest.raises(Invalid, match="antes"),
        open_hand_file(path, run_rules, names=NAMES, viewer=Viewer.EVERYTHING, hands=1, seed="s"),
    ):
        pass
    assert not path.exists()
