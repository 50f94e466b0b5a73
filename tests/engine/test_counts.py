"""Every way a tiny game can be played, counted, by us and by PokerKit.

Counting all lines of play finds what random hands may miss: a line too many is an illegal action
let through, a line too few a legal one refused.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from pokerkit import State

from pokerarena.engine.actions import Action, Kind
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import apply, start
from tests.engine.pokerkit_oracle import oracle, quiet_unshuffled
from tests.engine.tables import deal


class Lines(NamedTuple):
    """How many lines of play there are, and how many decisions on the way to them."""

    lines: int
    decisions: int


class Game(NamedTuple):
    """A tiny game, its button at the last seat, and what is known of it."""

    rules: Rules
    stacks: tuple[int, ...]
    expected: Lines


AGREED = (
    Game(Rules(1, 2), (3, 3), Lines(25, 16)),
    Game(Rules(1, 2), (5, 4), Lines(33, 20)),
    Game(Rules(1, 2), (6, 6), Lines(233, 144)),
    Game(Rules(1, 2), (7, 7), Lines(633, 384)),
    Game(Rules(1, 2, 1), (4, 5), Lines(25, 16)),
    Game(Rules(1, 2, 2, "big_blind"), (5, 6), Lines(41, 24)),
    Game(Rules(1, 2), (3, 3, 3), Lines(205, 144)),
    Game(Rules(1, 2), (2, 4, 3), Lines(50, 34)),
    Game(Rules(1, 1), (3, 2, 4), Lines(793, 495)),
)
"""Games that PokerKit plays exactly as we do."""

OURS = (
    # Here a player may go all-in for less than the smallest bet after another has checked. The TDA
    # rules do not reopen the betting for the one who checked (rule 47); PokerKit does.
    Game(Rules(1, 2), (4, 3, 5), Lines(299, 201)),
    Game(Rules(1, 2), (3, 4, 2, 5), Lines(614, 411)),
    # And these are just too large to be counted in PokerKit.
    Game(Rules(1, 2), (10, 10), Lines(5_257, 3_088)),
    Game(Rules(1, 2), (5, 5, 5), Lines(1_681, 1_140)),
)

FOLD, CHECK_OR_CALL = -1, 0


def count(hand: Hand) -> Lines:
    """Count every line of play from here, with every whole amount of each bet and raise."""
    if hand.complete:
        return Lines(1, 0)
    legal = hand.legal()
    lines, decisions = 0, 1
    for kind in legal.kinds:
        amounts: list[int | None] = [None]
        if kind in {Kind.BET, Kind.RAISE}:
            amounts = list(range(legal.min_raise_to or 0, (legal.max_raise_to or 0) + 1))
        for amount in amounts:
            below = count(apply(hand, Action(kind, amount)).hand)
            lines += below.lines
            decisions += below.decisions
    return Lines(lines, decisions)


def count_in_pokerkit(game: Game) -> Lines:
    """Count the same in PokerKit, which has to play every line from its start."""
    dealt = deal(len(game.stacks))
    big = game.rules.big_blind
    lines = decisions = 0
    waiting: list[tuple[int, ...]] = [()]
    while waiting:
        path = waiting.pop()
        state = oracle(game.rules, game.stacks, len(game.stacks) - 1, dealt, big)
        for amount in path:
            take(state, amount)
        while must_check(state):
            state.check_or_call()
        if state.actor_index is None:
            lines += 1
            continue
        decisions += 1
        waiting += [(*path, FOLD), (*path, CHECK_OR_CALL)]
        least = state.min_completion_betting_or_raising_to_amount
        most = state.max_completion_betting_or_raising_to_amount
        if least is not None and most is not None:
            waiting += [(*path, amount) for amount in range(least, most + 1)]
    return Lines(lines, decisions)


def must_check(state: State) -> bool:
    """Whether PokerKit asks for a check though every opponent has folded or is all-in."""
    player = state.actor_index
    return (
        player is not None
        and state.checking_or_calling_amount == 0
        and not any(
            state.statuses[other] and state.stacks[other]
            for other in state.player_indices
            if other != player
        )
    )


def take(state: State, amount: int) -> None:
    while must_check(state):
        state.check_or_call()
    if amount == FOLD:
        state.fold()
    elif amount == CHECK_OR_CALL:
        state.check_or_call()
    else:
        state.complete_bet_or_raise_to(amount)


@pytest.mark.parametrize("game", AGREED + OURS, ids=str)
def test_a_tiny_game_has_as_many_lines_of_play_as_recorded(game: Game) -> None:
    seats = tuple(range(1, len(game.stacks) + 1))
    hand = start(game.rules, seats, game.stacks, seats[-1], deal(len(seats))).hand
    assert count(hand) == game.expected


@pytest.mark.parametrize("game", AGREED, ids=str)
def test_pokerkit_counts_the_same_lines_of_play(game: Game) -> None:
    with quiet_unshuffled():
        assert count_in_pokerkit(game) == game.expected
