"""Totals of a seat over a run, as they grow by one unit after the other.

Owns what is counted and the unit of independence: one hand, or in `duplicate` one deal with all its
rotations, because only there is the luck of the cards the same for everybody. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pokerarena.history.record import HandRecord


class SeatTotals(NamedTuple):
    """What a seat won, lost and failed at so far; chips unless the name says otherwise."""

    net: int = 0
    units: int = 0
    unit_sum: float = 0.0
    unit_sum_squares: float = 0.0
    hands: int = 0
    decisions: int = 0
    rebuys: int = 0
    time_bank_ms: int = 0
    fallbacks: Mapping[str, int] = {}  # never changed in place: `add_unit` makes a new one


def add_unit(
    totals: Mapping[int, SeatTotals],
    hands: Sequence[HandRecord],
    rebuys: Sequence[int],
    time_banks_ms: Mapping[int, int],
) -> dict[int, SeatTotals]:
    """The totals after one more unit."""
    unit_net: dict[int, int] = {}
    played: dict[int, int] = {}
    decisions = dict.fromkeys(totals, 0)
    failed: dict[int, list[str]] = {}
    for hand in hands:
        for seat, net in zip(hand.seats, hand.net, strict=True):
            unit_net[seat] = unit_net.get(seat, 0) + net
            played[seat] = played.get(seat, 0) + 1
        for action in hand.actions:
            decisions[action.seat] += 1
            if action.fallback is not None:
                failed.setdefault(action.seat, []).append(action.fallback.value)
    after = dict(totals)
    for seat, net in unit_net.items():
        before = totals[seat]
        fallbacks = before.fallbacks
        if seat in failed:
            counts = dict(fallbacks)
            for reason in failed[seat]:
                counts[reason] = counts.get(reason, 0) + 1
            fallbacks = counts
        after[seat] = SeatTotals(
            net=before.net + net,
            units=before.units + 1,
            unit_sum=before.unit_sum + net,
            unit_sum_squares=before.unit_sum_squares + net * net,
            hands=before.hands + played[seat],
            decisions=before.decisions + decisions[seat],
            rebuys=before.rebuys + (1 if seat in rebuys else 0),
            time_bank_ms=time_banks_ms[seat],
            fallbacks=fallbacks,
        )
    return after
