"""Results of a run: chips, rates, and how sure they are.

Pure arithmetic over totals that the run keeps. The unit of independence is a hand, or in
``duplicate`` one deal with all its rotations. An interval is Student's t at 95 %; with one unit
there is none, and none is made up. This module must never read a database or a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Two-sided 95 % quantiles of Student's t for 1…30 degrees of freedom.
_T_975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_Z_975 = 1.959963984540054


def t_quantile_975(degrees: int) -> float:
    """The two-sided 95 % quantile of Student's t."""
    if degrees < 1:
        raise ValueError("an interval needs at least two units")
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    # Cornish-Fisher expansion around the normal quantile; exact to 1e-5 from here on.
    z = _Z_975
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with the half width of its 95 % interval; ``None`` where nothing can be said."""

    units: int
    mean: float | None
    half_width: float | None

    def scaled(self, factor: float) -> Estimate:
        """The same estimate in another unit of measure."""
        return Estimate(
            self.units,
            None if self.mean is None else self.mean * factor,
            None if self.half_width is None else self.half_width * abs(factor),
        )

    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval."""
        if self.mean is None or self.half_width is None:
            return None
        return (self.mean - self.half_width, self.mean + self.half_width)


def estimate(units: int, total: float, total_of_squares: float) -> Estimate:
    """The mean per unit from a count, a sum and a sum of squares."""
    if units < 1:
        return Estimate(units, None, None)
    mean = total / units
    if units < 2:
        return Estimate(units, mean, None)
    # Rounding can make a variance of nothing slightly negative.
    variance = max(0.0, (total_of_squares - total * mean) / (units - 1))
    return Estimate(units, mean, t_quantile_975(units - 1) * math.sqrt(variance / units))


@dataclass(frozen=True, slots=True)
class SeatTotals:
    """What a run knows of one seat: over all complete hands, in chips."""

    seat_no: int
    hands: int
    net: int
    units: int
    unit_sum: float
    unit_sum_squares: float


@dataclass(frozen=True, slots=True)
class SeatResult:
    """One seat's result: chips a unit, and big blinds a hundred hands, each with its interval."""

    seat_no: int
    hands: int
    net: int
    chips_per_unit: Estimate
    bb_per_100: Estimate


def seat_result(totals: SeatTotals, *, big_blind: int) -> SeatResult:
    """Rates from totals. A hundred hands are more or fewer units where a unit is not one hand."""
    per_unit = estimate(totals.units, totals.unit_sum, totals.unit_sum_squares)
    units_per_100 = 100 * totals.units / totals.hands if totals.hands else 0.0
    return SeatResult(
        seat_no=totals.seat_no,
        hands=totals.hands,
        net=totals.net,
        chips_per_unit=per_unit,
        bb_per_100=per_unit.scaled(units_per_100 / big_blind),
    )
