"""The house agent `equity`: deals the unknown cards many times over and plays by the result.

Opponents are given hands that fit what they did before the flop: somebody who raised is not dealt
seven-two. The share of the pot that our cards win in these deals is compared with the price.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random
from typing import Final

from pokerarena.agents.house.ranges import COMBO_PERCENTILES, hand_name
from pokerarena.agents.house.spot import Move, Spot
from pokerarena.engine.ranking import rank_holdings

MAX_SAMPLES: Final = 160
MIN_SAMPLES: Final = 50
# Ranking a hand is what costs time, so more opponents mean fewer samples.
_RANKINGS: Final = 320
_PREFLOP_SAMPLES: Final = 250
_MAX_SHUFFLES: Final = 8

# Share of starting hands somebody holds after what they did before the flop.
_RAISED_TWICE: Final = 0.08
_RAISED: Final = 0.22
_CALLED: Final = 0.55
_ANYTHING: Final = 1.0

_SURE: Final = 0.80
_STRONG: Final = 0.62
_OPEN: Final = 1.2
_DOUBT: Final = 0.06
_MAX_RAISES: Final = 3


def equity(spot: Spot, random: Random) -> Move:
    """Compare the share of the pot we expect with what it costs to stay in."""
    widths = _widths(spot)
    if spot.board:
        samples = max(MIN_SAMPLES, min(MAX_SAMPLES, _RANKINGS // (len(widths) + 1)))
        share = win_share(spot.holes, spot.board, widths, samples, random)
    else:
        share = _preflop_share(hand_name(*spot.holes), widths)
    # The deals know nothing of bets after the flop, and each one tells of a better hand.
    share -= _DOUBT * _pressure(spot)
    told = f"wins {share:.0%} of the pot against {len(widths)}"
    # Several opponents share the rest, so the same share is worth more among many.
    fair = 1 / (len(widths) + 1)
    strong = fair + (_STRONG - 0.5) * 2 * (1 - fair)
    sure = fair + (_SURE - 0.5) * 2 * (1 - fair)
    if share >= sure and spot.can_raise:
        if spot.raises >= _MAX_RAISES:
            return spot.all_in(f"{told}: everything in")
        return spot.put_in(0.9, f"{told}: bets for value")
    if share >= strong and spot.can_raise and spot.raises < 2:
        return spot.put_in(0.6, f"{told}: bets for value")
    if not spot.board and spot.raises == 0 and share >= _OPEN * fair:
        return spot.raise_to(
            (2 + spot.limpers) * spot.big_blind + spot.big_blind // 2, f"{told}: opens"
        )
    if not spot.to_call:
        if len(widths) == 1 and share < 0.35 and spot.last_to_act and random.random() < 0.3:
            return spot.put_in(0.5, f"{told}: bluffs one opponent who checked")
        return spot.stay(f"{told}: takes the free card")
    needed = spot.price + (0 if spot.board else _DOUBT * max(0, spot.raises - 1))
    if share >= needed:
        return spot.stay(f"{told}, needs {needed:.0%}: calls")
    return spot.give_up(f"{told}, needs {needed:.0%}: folds")


def _pressure(spot: Spot) -> int:
    """How often opponents who are still there bet or raised after the flop."""
    return sum(
        entry.street != "preflop"
        and entry.action in ("bet", "raise")
        and entry.seat in spot.opponents
        for entry in spot.turn.history
    )


def _widths(spot: Spot) -> tuple[float, ...]:
    """How wide a range each opponent is dealt from, in ascending order."""
    raises = dict.fromkeys(spot.opponents, 0)
    calls = dict.fromkeys(spot.opponents, 0)
    level = 0
    for entry in spot.turn.history:
        if entry.street != "preflop":
            break
        if entry.action == "raise":
            level += 1
            if entry.seat in raises:
                raises[entry.seat] = level
        elif entry.action == "call" and level and entry.seat in calls:
            calls[entry.seat] = level
    widths = []
    for seat in spot.opponents:
        if raises[seat] > 1:
            width = _RAISED_TWICE
        elif raises[seat] == 1:
            width = _RAISED
        elif calls[seat]:
            width = _CALLED
        else:
            width = _ANYTHING
        if spot.heads_up:
            # Heads-up everybody plays about twice as many hands.
            width = min(1.0, width * 2)
        widths.append(width)
    widths.sort()
    return tuple(widths)


@lru_cache(maxsize=20_000)
def _preflop_share(name: str, widths: tuple[float, ...]) -> float:
    """Worked out once for each kind of hand, from a random source that is the same every time."""
    ranks = "23456789TJQKA"
    first = ranks.index(name[0]) * 4
    second = ranks.index(name[1]) * 4 + (0 if name.endswith("s") else 1)
    random = Random(f"{name} {widths}")  # noqa: S311 - must be the same in every process
    return win_share((first, second), (), widths, _PREFLOP_SAMPLES, random)


def win_share(
    holes: tuple[int, int],
    board: tuple[int, ...],
    widths: tuple[float, ...],
    samples: int,
    random: Random,
) -> float:
    """The share of the pot that `holes` win on average over random deals of what is unknown.

    Opponents come in the order of `widths`, narrowest first, and take the first two cards of the
    shuffled stub that lie within their range; the board is dealt from the rest.
    """
    known = {*holes, *board}
    stub = [card for card in range(52) if card not in known]
    missing = 5 - len(board)
    percentiles = COMBO_PERCENTILES
    at = size = len(stub)
    won = 0.0
    for _ in range(samples):
        # One shuffle serves as many deals as there are cards for.
        if at + missing + 2 * len(widths) > size:
            random.shuffle(stub)
            at = 0
        holdings = [holes]
        for width in widths:
            shuffles = 0
            while True:
                if at + missing + 2 > size:
                    random.shuffle(stub)
                    at = _past_taken(stub, holdings)
                    shuffles += 1
                first, second = stub[at], stub[at + 1]
                at += 2
                # Many narrow ranges can use up all cards that fit: then anything must do.
                if percentiles[first * 52 + second] <= width or shuffles > _MAX_SHUFFLES:
                    holdings.append((first, second))
                    break
        if at + missing > size:
            random.shuffle(stub)
            at = _past_taken(stub, holdings)
        ours, *theirs = rank_holdings((*board, *stub[at : at + missing]), holdings)
        at += missing
        best = max(theirs)
        if ours > best:
            won += 1
        elif ours == best:
            won += 1 / (1 + theirs.count(ours))
    return won / samples


def _past_taken(stub: list[int], holdings: list[tuple[int, int]]) -> int:
    """Move cards already dealt in this sample to the front, and say where the rest begins."""
    taken = {card for holding in holdings for card in holding}
    stub.sort(key=taken.__contains__, reverse=True)
    return sum(card in taken for card in stub)
