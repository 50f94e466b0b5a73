"""The strength of five to seven cards, as one integer.

Strengths run from 1 (seven-five high) to 7462 (royal flush), one for each class of poker hands
that no showdown can tell apart; higher is better. This module never looks at who holds the cards.

How it works: each card is worth a number whose octal digits count the ranks, and whose higher
digits count the suits. The sum over a hand is its *key*. The suit digits tell whether there is a
flush; if so the ranks of that suit, as a bit mask, decide. Otherwise the rank digits alone decide.
Seven cards have only 49,205 different rank digits; each is worked out the first time it is met and
remembered, so that an import costs a few milliseconds and a look-up well under a microsecond.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

from pokerarena.engine.cards import DECK_SIZE, Card

CATEGORIES: Final = (
    "high card",
    "pair",
    "two pair",
    "three of a kind",
    "straight",
    "flush",
    "full house",
    "four of a kind",
    "straight flush",
)
CLASS_COUNTS: Final = (1277, 2860, 858, 858, 10, 1277, 156, 156, 10)
"""How many distinct strengths each category has, weakest category first."""

BEST: Final = sum(CLASS_COUNTS)

_FLOORS: Final = tuple(sum(CLASS_COUNTS[:index]) for index in range(len(CLASS_COUNTS)))
"""The strength just below the weakest hand of each category."""

_HIGH_CARD, _PAIR, _TWO_PAIR, _TRIPS, _STRAIGHT, _FLUSH, _FULL_HOUSE, _QUADS, _STRAIGHT_FLUSH = (
    _FLOORS
)

_RANK_COUNT: Final = 13
_SUIT_SHIFT: Final = 3 * _RANK_COUNT
_RANK_DIGITS: Final = (1 << _SUIT_SHIFT) - 1

# A suit digit has four bits. Adding three sets its top bit exactly when it counts five or more.
_FLUSH_BIAS: Final = 0x3333 << _SUIT_SHIFT
_FLUSH_BITS: Final = 0x8888 << _SUIT_SHIFT
_FLUSH_SUITS: Final = {0x8 << 4 * suit << _SUIT_SHIFT: suit for suit in range(4)}

_KEYS: Final = tuple(
    (1 << 3 * (card >> 2)) + (1 << 4 * (card & 3) << _SUIT_SHIFT) for card in range(DECK_SIZE)
)

_STRAIGHTS: Final = (1 << 12 | 0b1111, *(0b11111 << low for low in range(9)))
"""Rank masks of the ten straights, weakest (the wheel) first."""


def _mask(ranks: Sequence[int]) -> int:
    mask = 0
    for rank in ranks:
        mask |= 1 << rank
    return mask


def _top(ranks: Sequence[int], count: int) -> tuple[int, ...]:
    return tuple(sorted(ranks, reverse=True)[:count])


def _number(ranked: list[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """Number tuples of ranks, most significant rank first, from 1 in order of strength."""
    return {ranks: number for number, ranks in enumerate(sorted(ranked), 1)}


_ALL = range(_RANK_COUNT)

# The classes of each category, named by the ranks that decide between two of its hands.
_UNPAIRED: Final = _number(
    [_top(five, 5) for five in combinations(_ALL, 5) if _mask(five) not in _STRAIGHTS]
)
_PAIRS: Final = _number(
    [(pair, *_top(side, 3)) for pair in _ALL for side in combinations(_ALL, 3) if pair not in side]
)
_TWO_PAIRS: Final = _number(
    [
        (*_top(pairs, 2), side)
        for pairs in combinations(_ALL, 2)
        for side in _ALL
        if side not in pairs
    ]
)
_THREES: Final = _number(
    [
        (trips, *_top(side, 2))
        for trips in _ALL
        for side in combinations(_ALL, 2)
        if trips not in side
    ]
)
_TWO_RANKS: Final = _number(
    [(first, second) for first in _ALL for second in _ALL if first != second]
)
"""Four of a kind with its kicker, and three of a kind with its pair."""


def _straight(mask: int) -> int:
    """Return which of the ten straights is the best within a rank mask, from 1; 0 for none."""
    for number in range(len(_STRAIGHTS), 0, -1):
        straight = _STRAIGHTS[number - 1]
        if mask & straight == straight:
            return number
    return 0


class _ByRanks(dict[int, int]):
    """Strength of five to seven cards without a flush, by their rank digits."""

    def __missing__(self, digits: int) -> int:
        counts = [digits >> 3 * rank & 7 for rank in _ALL]
        strength = self[digits] = _strength_of_counts(counts)
        return strength


class _BySuitedRanks(dict[int, int]):
    """Strength of five to seven cards of one suit, by their rank mask."""

    def __missing__(self, mask: int) -> int:
        straight = _straight(mask)
        if straight:
            strength = _STRAIGHT_FLUSH + straight
        else:
            strength = _FLUSH + _UNPAIRED[_top([rank for rank in _ALL if mask >> rank & 1], 5)]
        self[mask] = strength
        return strength


def _strength_of_counts(counts: list[int]) -> int:
    """Return the strength of cards that make no flush, from how often each rank occurs."""
    held = [rank for rank in reversed(_ALL) if counts[rank]]
    fours = [rank for rank in held if counts[rank] >= 4]
    if fours:
        side = max(rank for rank in held if rank != fours[0])
        return _QUADS + _TWO_RANKS[fours[0], side]
    threes = [rank for rank in held if counts[rank] == 3]
    twos = [rank for rank in held if counts[rank] == 2]
    if threes and len(threes) + len(twos) > 1:
        # A second three of a kind can only serve as the pair.
        pair = max(threes[1:] + twos)
        return _FULL_HOUSE + _TWO_RANKS[threes[0], pair]
    straight = _straight(_mask(held))
    if straight:
        return _STRAIGHT + straight
    if threes:
        side_ranks = [rank for rank in held if rank != threes[0]]
        return _TRIPS + _THREES[(threes[0], *side_ranks[:2])]
    if len(twos) > 1:
        side = max(rank for rank in held if rank not in twos[:2])
        return _TWO_PAIR + _TWO_PAIRS[twos[0], twos[1], side]
    if twos:
        side_ranks = [rank for rank in held if rank != twos[0]]
        return _PAIR + _PAIRS[(twos[0], *side_ranks[:3])]
    return _HIGH_CARD + _UNPAIRED[tuple(held[:5])]


_BY_RANKS: Final = _ByRanks()
_BY_SUITED_RANKS: Final = _BySuitedRanks()


def rank_hand(cards: Sequence[Card]) -> int:
    """Return the strength of the best five cards among five to seven different ones."""
    if not 5 <= len(cards) <= 7:
        raise ValueError(f"A hand has five to seven cards, not {len(cards)}.")
    key = 0
    for card in cards:
        key += _KEYS[card]
    flush = (key + _FLUSH_BIAS) & _FLUSH_BITS
    if flush:
        return _flush_strength(flush, cards)
    return _BY_RANKS[key & _RANK_DIGITS]


def rank_holdings(board: Sequence[Card], holdings: Sequence[Sequence[Card]]) -> list[int]:
    """Return the strength of each two-card holding on a full board of five."""
    board_key = 0
    for card in board:
        board_key += _KEYS[card]
    strengths = []
    for holding in holdings:
        first, second = holding
        key = board_key + _KEYS[first] + _KEYS[second]
        flush = (key + _FLUSH_BIAS) & _FLUSH_BITS
        strengths.append(
            _flush_strength(flush, (*board, first, second))
            if flush
            else _BY_RANKS[key & _RANK_DIGITS]
        )
    return strengths


def _flush_strength(flush: int, cards: Sequence[Card]) -> int:
    suit = _FLUSH_SUITS[flush]
    mask = 0
    for card in cards:
        if card & 3 == suit:
            mask |= 1 << (card >> 2)
    return _BY_SUITED_RANKS[mask]


def category(strength: int) -> str:
    """Return the name of the category of a strength, such as `full house`."""
    if not 1 <= strength <= BEST:
        raise ValueError(f"{strength} is no strength: strengths run from 1 to {BEST}.")
    for floor, name in zip(reversed(_FLOORS), reversed(CATEGORIES), strict=True):
        if strength > floor:
            return name
    raise AssertionError("the weakest category begins at strength 1")
