"""PokerKit, set up to play exactly the cards of one of our deals, as the oracle of our rules.

It owns the translation between the two: PokerKit numbers players from the left of the button, and
deals from its own deck. Burnt cards are switched off, and the shuffle is replaced by our order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import combinations
from typing import Any, ClassVar, cast
from unittest.mock import patch
from warnings import catch_warnings, simplefilter

from pokerkit import (
    Automation,
    BettingStructure,
    Card,
    Mode,
    Opening,
    StandardHighHand,
    State,
    Street,
)

from pokerarena.engine.cards import CARD_TEXTS
from pokerarena.engine.deal import Deal
from pokerarena.engine.rules import Rules

CARDS = tuple(next(iter(Card.parse(text))) for text in CARD_TEXTS)

_NUMBERS = {id(card): number for number, card in enumerate(CARDS)}
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)


class RememberingHighHand(StandardHighHand):
    """PokerKit's own high hand, which remembers what PokerKit said of the same cards before.

    PokerKit spends nearly all of a hand in asking again and again for the best of 21 five-card
    hands. Here each kind of five cards is looked up in PokerKit's table once a process, and each
    player's best hand is worked out once a hand. Every strength is still PokerKit's.
    """

    fives: ClassVar[dict[int, int]] = {}
    best: ClassVar[dict[tuple[int, ...], RememberingHighHand]] = {}

    strength: int

    @classmethod
    def from_game(cls, hole_cards: Any, board_cards: Any = ()) -> RememberingHighHand:
        numbers = tuple([_NUMBERS[id(card)] for card in (*hole_cards, *board_cards)])
        hand = cls.best.get(numbers)
        if hand is None:
            if len(numbers) < 5:
                raise ValueError("PokerKit takes fewer than five cards for no hand.")
            hand = cls.__new__(cls)
            hand.strength = max([cls.of_five(five) for five in combinations(numbers, 5)])
            cls.best[numbers] = hand
        return hand

    @classmethod
    def of_five(cls, five: tuple[int, ...]) -> int:
        first, second, third, fourth, fifth = five
        key = (
            _PRIMES[first >> 2]
            * _PRIMES[second >> 2]
            * _PRIMES[third >> 2]
            * _PRIMES[fourth >> 2]
            * _PRIMES[fifth >> 2]
        )
        if first & 3 == second & 3 == third & 3 == fourth & 3 == fifth & 3:
            key = -key
        strength = cls.fives.get(key)
        if strength is None:
            entry = StandardHighHand([CARDS[card] for card in five]).entry
            strength = cls.fives[key] = entry.index
        return strength

    @classmethod
    def agrees_with_pokerkit(cls, numbers: tuple[int, ...]) -> bool:
        """Whether PokerKit's own, slow way comes to the same strength."""
        hole, board = (
            [CARDS[number] for number in numbers[:2]],
            [CARDS[number] for number in numbers[2:]],
        )
        slow = StandardHighHand.from_game(hole, board).entry.index
        return bool(slow == cls.from_game(hole, board).strength)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RememberingHighHand) and self.strength == other.strength

    def __lt__(self, other: Any) -> bool:
        return bool(self.strength < other.strength)

    def __gt__(self, other: Any) -> bool:
        return bool(self.strength > other.strength)

    def __le__(self, other: Any) -> bool:
        return bool(self.strength <= other.strength)

    def __ge__(self, other: Any) -> bool:
        return bool(self.strength >= other.strength)

    def __hash__(self) -> int:
        return self.strength


def pokerkit_strength(numbers: tuple[int, ...]) -> int:
    """Return PokerKit's strength of five to seven cards; higher is better."""
    return max([RememberingHighHand.of_five(five) for five in combinations(numbers, 5)])


_AUTOMATIONS = (
    Automation.ANTE_POSTING,
    Automation.BET_COLLECTION,
    Automation.BLIND_OR_STRADDLE_POSTING,
    Automation.HOLE_DEALING,
    Automation.BOARD_DEALING,
    Automation.RUNOUT_COUNT_SELECTION,
    Automation.HOLE_CARDS_SHOWING_OR_MUCKING,
    Automation.HAND_KILLING,
    Automation.CHIPS_PUSHING,
    Automation.CHIPS_PULLING,
)


@cache
def _streets(first_min_bet: int, min_bet: int) -> tuple[Street, ...]:
    return tuple(
        Street(
            card_burning_status=False,
            hole_dealing_statuses=holes,
            board_dealing_count=board,
            draw_status=False,
            opening=Opening.POSITION,
            min_completion_betting_or_raising_amount=smallest,
            max_completion_betting_or_raising_count=None,
        )
        for holes, board, smallest in (
            ((False, False), 0, first_min_bet),
            ((), 3, min_bet),
            ((), 1, min_bet),
            ((), 1, min_bet),
        )
    )


@contextmanager
def quiet_unshuffled() -> Iterator[None]:
    """Leave the deck in our order, and let PokerKit frown at a fold that could be a check."""
    with patch("pokerkit.state.shuffle", lambda cards: None), catch_warnings():
        simplefilter("ignore", UserWarning)
        yield


def order_of_play(count: int, button: int) -> list[int]:
    """Return our position index of each PokerKit player."""
    return [(button + 1 + player) % count for player in range(count)]


def oracle(
    rules: Rules, stacks: tuple[int, ...], button: int, deal: Deal, first_min_bet: int
) -> State:
    """Return a PokerKit state after the blinds, to be played under `quiet_unshuffled`."""
    RememberingHighHand.best.clear()
    count = len(stacks)
    order = order_of_play(count, button)
    in_order = [stacks[position] for position in order]
    antes = [0] * count
    trimmed = True
    if rules.ante and rules.ante_kind == "each":
        antes = [rules.ante] * count
    elif rules.ante:
        # TDA 2024: the big blind comes first and the ante is paid from the rest. PokerKit takes
        # antes first, so it is told the ante that the blind leaves over.
        big_stack = in_order[0] if count == 2 else in_order[1]
        antes[1] = min(rules.ante, max(0, big_stack - rules.big_blind))
        trimmed = False
    cards = [deal.holes[position][round_] for round_ in (0, 1) for position in order]
    return State(
        automations=_AUTOMATIONS,
        deck=cast("Any", tuple([CARDS[card] for card in (*cards, *deal.board)])),
        hand_types=(RememberingHighHand,),
        streets=_streets(first_min_bet, rules.big_blind),
        betting_structure=BettingStructure.NO_LIMIT,
        ante_trimming_status=trimmed,
        raw_antes=tuple(antes),
        raw_blinds_or_straddles=(rules.small_blind, rules.big_blind, *[0] * (count - 2)),
        bring_in=0,
        raw_starting_stacks=tuple(in_order),
        player_count=count,
        mode=Mode.CASH_GAME,
    )
