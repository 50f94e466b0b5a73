"""Pauses grow, end at their cap, differ, and come to an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena.retrying import RetryPolicy


@given(
    base_s=st.floats(0.001, 10),
    factor=st.floats(1, 1000),
    failures=st.integers(0, 10_000),
)
def test_no_pause_is_above_the_cap_or_above_its_doubling(
    base_s: float, factor: float, failures: int
) -> None:
    policy = RetryPolicy(base_s, base_s * factor)
    pause_s = policy.pause_s(failures)
    assert pause_s is not None
    assert 0 <= pause_s <= min(policy.cap_s, base_s * 2 ** min(failures, 60))
    assert policy.ceiling_s(failures) / 2 <= policy.later_s(failures) <= policy.ceiling_s(failures)


def test_it_ends_after_its_attempts() -> None:
    policy = RetryPolicy(1, 2, attempts_max=3)
    assert [policy.pause_s(failures) is None for failures in range(1, 5)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_those_who_failed_together_do_not_come_back_together() -> None:
    policy = RetryPolicy(1, 60)
    assert len({policy.pause_s(5) for _ in range(100)}) > 90


@pytest.mark.parametrize("values", [(0, 1, 1), (2, 1, 1), (1, 2, 0)])
def test_a_policy_without_sense_is_refused(values: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match=r"pause|attempt"):
        RetryPolicy(*values)
