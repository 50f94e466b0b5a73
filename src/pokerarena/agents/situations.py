"""Situations that every agent meets sooner or later, for those who test agents.

Owns a fixed list of moments, each reached by a scripted hand. The script acts for everybody, the
agent included, so that a moment comes about whatever the agent would have done.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pokerarena.engine.actions import Action, Kind
from pokerarena.engine.cards import parse_card
from pokerarena.engine.deal import Deal
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import apply, start

_BOARD: Final = "Qs Jh 2h 7c 7d"
_HOLES: Final = "Ah Kh, 9s 9c, Td Tc, 5d 4d, Ks Qd, 8h 8s, As 3s, Jc Jd, 6c 6h, Kc 3d"
_STACK: Final = 10_000


class Situation(NamedTuple):
    """A moment by name; whoever is to act in `hand` is the agent's seat."""

    name: str
    hand: Hand


class _Script(NamedTuple):
    name: str
    stacks: tuple[int, ...]
    button_seat: int
    actions: str
    rules: Rules = Rules(50, 100)


def situations() -> list[Situation]:
    """All of them, simple ones first."""
    return [Situation(script.name, _play(script)) for script in _SCRIPTS]


def _play(script: _Script) -> Hand:
    holes = [tuple(map(parse_card, two.split())) for two in _HOLES.split(", ")]
    count = len(script.stacks)
    deal = Deal(
        tuple((first, second) for first, second in holes[:count]),
        tuple(map(parse_card, _BOARD.split())),
    )
    seats = tuple(range(1, count + 1))
    hand = start(script.rules, seats, script.stacks, script.button_seat, deal).hand
    for word in script.actions.split():
        hand = apply(hand, _action(word, hand)).hand
    return hand


def _action(word: str, hand: Hand) -> Action:
    """`f` fold, `x` check, `c` call, a number for a bet or raise to it, `a` for all-in."""
    if word in _WORDS:
        return Action(_WORDS[word])
    legal = hand.legal()
    amount = legal.max_raise_to if word == "a" else int(word)
    return Action(Kind.BET if Kind.BET in legal.kinds else Kind.RAISE, amount)


_WORDS: Final = {"f": Kind.FOLD, "x": Kind.CHECK, "c": Kind.CALL}
_EQUAL: Final = (_STACK,) * 10

_SCRIPTS: Final = (
    _Script("heads-up, preflop, on the button", _EQUAL[:2], 1, ""),
    _Script("heads-up, preflop, in the big blind after a call", _EQUAL[:2], 2, "c"),
    _Script("heads-up, flop, first to act", _EQUAL[:2], 2, "c x"),
    _Script("heads-up, flop, facing a bet", _EQUAL[:2], 1, "300 c 400"),
    _Script("heads-up, turn, after a check", _EQUAL[:2], 1, "300 c x x x"),
    _Script("heads-up, river, facing a pot-sized bet", _EQUAL[:2], 1, "300 c x x x x 600"),
    _Script("heads-up, river, facing a raise", _EQUAL[:2], 2, "300 c x x x x 300 900"),
    _Script("heads-up, facing an all-in", _EQUAL[:2], 1, "300 a"),
    _Script("heads-up, facing an all-in of a bigger stack", (1_500, 20_000), 1, "300 a"),
    _Script("heads-up, two chips behind", (102, 5_000), 2, "c"),
    _Script("three-handed, the smallest raise is all-in", (180, 9_000, 9_000), 1, ""),
    _Script("three-handed, no raise after a short all-in", (9_000, 380, 9_000), 1, "300 a f"),
    _Script("three-handed, big blind with an option", _EQUAL[:3], 1, "c c"),
    _Script("six-handed, first to act", _EQUAL[:6], 1, ""),
    _Script("six-handed, facing two raises", _EQUAL[:6], 1, "300 900 f f"),
    _Script("six-handed, turn, after a bet and call", _EQUAL[:6], 1, "300 f c f c f x x x 400 c"),
    _Script(
        "six-handed, river, with side pots",
        (700, 9_000, 1_500, 9_000, 9_000, 9_000),
        3,
        "300 a f a c f c x x x x 800",
    ),
    _Script("six-handed, with antes", _EQUAL[:6], 2, "f f", Rules(50, 100, 10, "each")),
    _Script(
        "three-handed, with a big-blind ante",
        _EQUAL[:3],
        2,
        "c",
        Rules(50, 100, 100, "big_blind"),
    ),
    _Script("ten-handed, on the button", _EQUAL, 4, "f f 250 f f f c"),
)
