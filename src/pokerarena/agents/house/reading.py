"""What two cards make with a board: how good, and how many cards would improve it.

Owns the judgement of made hands and draws after the flop. It looks at our own part in a hand:
a pair that lies on the board is everybody's and counts for nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from pokerarena.engine.ranking import category, rank_hand


class Made(IntEnum):
    """How much a made hand is worth, from nothing to all our chips."""

    NOTHING = 0
    WEAK_PAIR = 1
    MIDDLE_PAIR = 2
    TOP_PAIR = 3
    GOOD_PAIR = 4
    STRONG = 5
    MONSTER = 6


class Reading(NamedTuple):
    """A made hand, its outs to a straight or flush, and both in words."""

    made: Made
    outs: int
    words: str


_GOOD_KICKER: Final = 9  # a jack
_HIGH_FLUSH_CARD: Final = 10  # a queen
_STRAIGHTS: Final = tuple([0b11111 << low for low in range(9)] + [0b1000000001111])
_ALWAYS_MONSTER: Final = frozenset({"four of a kind", "straight flush", "full house"})


def read(holes: tuple[int, int], board: tuple[int, ...]) -> Reading:
    """Judge `holes` on a board of three to five cards."""
    strength = rank_hand((*holes, *board))
    kind = category(strength)
    if len(board) == 5 and rank_hand(board) == strength:
        return Reading(Made.NOTHING, 0, "the board")
    made, words = _made(kind, holes, board)
    outs, draw = _draw(holes, board) if made < Made.STRONG else (0, "")
    return Reading(made, outs, f"{words} and {draw}" if draw else words)


def _made(kind: str, holes: tuple[int, int], board: tuple[int, ...]) -> tuple[Made, str]:
    shared = category(rank_hand(board)) if len(board) == 5 else ""
    if kind in _ALWAYS_MONSTER:
        # Beaten only by a better one of the few who hold the missing card.
        return (Made.STRONG if shared == kind else Made.MONSTER), f"a {kind}"
    if kind == "flush":
        return _flush(holes, board)
    if kind == "straight":
        return (Made.MIDDLE_PAIR if shared == kind else Made.MONSTER), "a straight"
    return _of_pairs(holes, board)


def _flush(holes: tuple[int, int], board: tuple[int, ...]) -> tuple[Made, str]:
    suits = [card & 3 for card in (*holes, *board)]
    suit = max(set(suits), key=suits.count)
    ours = [card >> 2 for card in holes if card & 3 == suit]
    if len(ours) == 2 or max(ours, default=-1) >= _HIGH_FLUSH_CARD:
        return Made.MONSTER, "a flush"
    if ours:
        return Made.GOOD_PAIR, "a small flush that one card beats"
    return Made.NOTHING, "the board's flush"


def _of_pairs(holes: tuple[int, int], board: tuple[int, ...]) -> tuple[Made, str]:
    ranks = [card >> 2 for card in board]
    high, low = max(holes[0] >> 2, holes[1] >> 2), min(holes[0] >> 2, holes[1] >> 2)
    top = max(ranks)
    if high == low:
        if high in ranks:
            return Made.MONSTER, "a set"
        if high > top:
            return Made.GOOD_PAIR, "an overpair"
        above = sum(rank > high for rank in set(ranks))
        return (Made.MIDDLE_PAIR if above == 1 else Made.WEAK_PAIR), "a pocket pair"
    hits = [rank for rank in (high, low) if rank in ranks]
    if any(ranks.count(rank) >= 2 for rank in hits):
        return Made.STRONG, "trips"
    if len(hits) == 2:
        return Made.STRONG, "two pair"
    if not hits:
        return Made.NOTHING, "nothing"
    kicker = low if hits[0] == high else high
    if hits[0] == top:
        if kicker >= _GOOD_KICKER:
            return Made.GOOD_PAIR, "top pair with a good kicker"
        return Made.TOP_PAIR, "top pair"
    above = sum(rank > hits[0] for rank in set(ranks))
    return (Made.MIDDLE_PAIR if above == 1 else Made.WEAK_PAIR), "a pair below the top"


def _draw(holes: tuple[int, int], board: tuple[int, ...]) -> tuple[int, str]:
    if len(board) == 5:
        return 0, ""
    suits = [card & 3 for card in (*holes, *board)]
    flush = any(suits.count(card & 3) == 4 for card in holes)
    ours = _mask((*holes, *board))
    shared = _mask(board)
    # A rank that completes a straight of ours, and not one that lies on the board.
    completing = sum(
        _has_straight(ours | 1 << rank) and not _has_straight(shared | 1 << rank)
        for rank in range(13)
        if not ours >> rank & 1
    )
    outs = 9 * flush + 4 * completing - flush * completing
    if flush and completing:
        return outs, "a draw to a flush and a straight"
    if flush:
        return outs, "a flush draw"
    if completing > 1:
        return outs, "an open straight draw"
    if completing:
        return outs, "a gutshot"
    return 0, ""


def _mask(cards: tuple[int, ...]) -> int:
    mask = 0
    for card in cards:
        mask |= 1 << (card >> 2)
    return mask


def _has_straight(mask: int) -> bool:
    return any(mask & straight == straight for straight in _STRAIGHTS)
