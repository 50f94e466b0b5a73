"""Results: right numbers, and no more certainty than there is."""

from __future__ import annotations

import math
import statistics
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena.stats.results import SeatTotals, estimate, seat_result, t_quantile_975


def totals(values: list[int], hands_per_unit: int = 1) -> SeatTotals:
    return SeatTotals(
        seat_no=1,
        hands=len(values) * hands_per_unit,
        net=sum(values),
        units=len(values),
        unit_sum=float(sum(values)),
        unit_sum_squares=float(sum(value * value for value in values)),
    )


@given(st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=200))
def test_the_mean_and_its_interval_are_those_of_the_textbook(values: list[int]) -> None:
    found = seat_result(totals(values), big_blind=100).chips_per_unit
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert found.half_width is not None
    expected = t_quantile_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    assert found.half_width == pytest.approx(expected, rel=1e-6, abs=1e-2)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    # From the published table of Student's t.
    [(1, 12.706), (2, 4.303), (10, 2.228), (30, 2.042), (31, 2.0395), (40, 2.0211), (60, 2.0003),
     (120, 1.9799), (1_000, 1.9623), (10**9, 1.95996)],
)  # fmt: skip
def test_quantiles_are_those_of_the_table(degrees: int, quantile: float) -> None:
    assert t_quantile_975(degrees) == pytest.approx(quantile, abs=6e-4)


def test_nothing_is_made_up_where_nothing_can_be_said() -> None:
    none = seat_result(totals([]), big_blind=100)
    assert (none.bb_per_100.mean, none.bb_per_100.interval()) == (None, None)
    one = seat_result(totals([250]), big_blind=100)
    assert (one.bb_per_100.mean, one.bb_per_100.interval()) == (250.0, None)
    with pytest.raises(ValueError, match="two units"):
        t_quantile_975(0)


def test_big_blinds_a_hundred_hands_do_not_depend_on_the_unit() -> None:
    """Six rotations of one deal are one unit; the rate is still per hundred hands."""
    by_hand = seat_result(totals([60, -60, 120, 0, 0, 0]), big_blind=100)
    by_deal = seat_result(totals([120], hands_per_unit=6), big_blind=100)
    assert by_hand.bb_per_100.mean == pytest.approx(20.0)
    assert by_deal.bb_per_100.mean == pytest.approx(20.0)


def test_all_the_same_is_certain_and_never_negative() -> None:
    same = estimate(1_000, 1e9 * 1_000, 1e18 * 1_000)
    assert same.half_width == pytest.approx(0.0, abs=1e3)
    assert estimate(3, 0.3, 0.03).half_width is not None


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = Random(4)
    held = 0
    for _ in range(2_000):
        values = [round(random.gauss(30, 400)) for _ in range(12)]
        interval = seat_result(totals(values), big_blind=100).chips_per_unit.interval()
        assert interval is not None
        held += interval[0] <= 30 <= interval[1]
    assert 0.935 < held / 2_000 < 0.965
