"""Whatever dies or stalls, nothing is lost, doubled or stuck."""

from __future__ import annotations

from tests.chaos.faults import FAULTS
from tests.chaos.storm import Storm


async def test_a_short_storm_leaves_everything_whole() -> None:
    """`make chaos` blows a long one, under a new seed each time."""
    told: list[str] = []
    storm = Storm(seed=20261127, faults=len(FAULTS), runs=6, hands=30, tell=told.append)
    await storm.blow()
    assert len(storm.met) == len(FAULTS), "every kind of fault came"
    assert sum(storm.ended.values()) >= 6
