"""Refusals are recorded within bounds, and what was left out is counted."""

from __future__ import annotations

import pytest

from pokerarena.auth import refusals
from pokerarena.auth.refusals import WINDOW_S, Sampler


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_first_of_a_kind_in_a_minute_are_taken_and_the_others_counted() -> None:
    clock = Clock()
    sampler = Sampler(2, monotonic=clock)
    assert [sampler.take("a") for _ in range(5)] == [0, 0, None, None, None]
    assert sampler.take("b") == 0
    clock.now_s = WINDOW_S - 0.1
    assert sampler.take("a") is None
    clock.now_s = WINDOW_S
    assert [sampler.take("a") for _ in range(3)] == [4, 0, None]


def test_all_kinds_together_are_bounded() -> None:
    clock = Clock()
    sampler = Sampler(5, all_max=3, monotonic=clock)
    assert [sampler.take(kind) for kind in "abcde"] == [0, 0, 0, None, None]
    clock.now_s = WINDOW_S
    assert sampler.take("e") == 1


def test_as_many_kinds_are_remembered_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "KINDS_REMEMBERED_MAX", 3)
    sampler = Sampler(1, monotonic=Clock())
    for kind in "abcd":
        sampler.take(kind)
    assert sampler.take("d") is None
    assert sampler.take("a") == 0, "forgotten, and so new"
