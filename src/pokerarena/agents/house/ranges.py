"""Starting hands: their names, ranges in the usual notation, and how strong they are.

Owns the 169 kinds of two cards. `A9s+` means ace-nine suited and better kickers, `77+` sevens and
higher pairs, `KQo` exactly that.
"""

from __future__ import annotations

import re
from math import ceil
from typing import Final

RANKS: Final = "23456789TJQKA"
_ITEM: Final = re.compile(r"^([2-9TJQKA])([2-9TJQKA])([so]?)(\+?)$")


def _name_of(high: int, low: int, suited: bool) -> str:
    if high == low:
        return RANKS[high] * 2
    return f"{RANKS[high]}{RANKS[low]}{'s' if suited else 'o'}"


def _name_table() -> tuple[str, ...]:
    names = []
    for first in range(52):
        for second in range(52):
            high, low = max(first >> 2, second >> 2), min(first >> 2, second >> 2)
            names.append(_name_of(high, low, first & 3 == second & 3))
    return tuple(names)


# Indexed by first * 52 + second.
_NAMES: Final = _name_table()


def hand_name(first: int, second: int) -> str:
    """The kind of two cards, such as `AKs`, `T9o` or `77`."""
    return _NAMES[first * 52 + second]


def parse_range(text: str) -> frozenset[str]:
    """The kinds of hands in a range such as `22+ A2s+ KTo+`."""
    hands: set[str] = set()
    for item in text.split():
        match = _ITEM.match(item)
        if match is None:
            raise ValueError(f"{item!r} is not a range of starting hands")
        high, low = RANKS.index(match[1]), RANKS.index(match[2])
        if high < low or (high == low) == bool(match[3]):
            raise ValueError(f"{item!r} is not a range of starting hands")
        if high == low:
            tops = range(high, 13) if match[4] else (high,)
            hands.update(_name_of(rank, rank, False) for rank in tops)
        else:
            kickers = range(low, high) if match[4] else (low,)
            hands.update(_name_of(high, kicker, match[3] == "s") for kicker in kickers)
    return frozenset(hands)


def _points(high: int, low: int, suited: bool) -> float:
    """Chen's formula: an old, simple and honest measure of starting hands."""
    points = {12: 10.0, 11: 8.0, 10: 7.0, 9: 6.0}.get(high, (high + 2) / 2)
    if high == low:
        return max(5.0, points * 2)
    gap = high - low - 1
    points -= (0, 1, 2, 4)[gap] if gap < 4 else 5
    if gap < 2 and high < 10:
        points += 1
    return ceil(points + 2 * suited)


def _percentiles() -> dict[str, float]:
    kinds = [
        (_points(high, low, suited), high, low, suited)
        for high in range(13)
        for low in range(high + 1)
        for suited in ((False, True) if high != low else (False,))
    ]
    kinds.sort(reverse=True)
    better = 0
    percentiles = {}
    for _, high, low, suited in kinds:
        better += 6 if high == low else 4 if suited else 12
        percentiles[_name_of(high, low, suited)] = better / 1326
    return percentiles


PERCENTILES: Final = _percentiles()
"""Share of all starting hands that are at least as good: 0.005 for aces, 1.0 for the worst."""

COMBO_PERCENTILES: Final = tuple([PERCENTILES[name] for name in _NAMES])
"""The same by `first * 52 + second`, for those who look up thousands of them."""
