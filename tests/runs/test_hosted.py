"""Patience with agent-hosts: who waits, who goes back to the queue, and when it is a fault of ours."""

from __future__ import annotations

from typing import Any

import pytest

from pokerarena import metrics
from pokerarena.runs.hosted import HostedSeat, RunLodging, WaitingRuns
from pokerarena.runs.seams import Crowded, RunFault


class Room:
    """A booking that is held when we say so."""

    def __init__(self) -> None:
        self.connection: object | None = None
        self.released = False
        self.moves = 0

    def move(self) -> None:
        self.moves += 1

    async def held(self, within_s: float) -> bool:
        return self.connection is not None

    def release(self) -> None:
        self.released = True


class Agent:
    """A hosted player that runs when we say so."""

    max_in_flight = 1
    hindered = False

    async def open(self, run_start: Any) -> None:
        pass

    async def recovered(self, within_s: float) -> bool:
        return not self.hindered


def lodging(waiting: WaitingRuns, start_wait_s: float = 60.0) -> tuple[RunLodging, Room]:
    room = Room()
    return RunLodging(room, waiting, start_wait_s), room  # type: ignore[arg-type]


def counted() -> float:
    return metrics.RUNS_WITHOUT_ROOM.number().value


async def test_runs_that_wait_are_counted_and_those_beyond_the_bound_wait_in_the_queue() -> None:
    waiting = WaitingRuns(2)
    (one, its_room), (two, _), (three, _) = (lodging(waiting) for _ in range(3))
    assert not await one.ready(0)
    assert not await one.ready(0)
    assert not await two.ready(0)
    assert counted() == 2
    with pytest.raises(Crowded):
        await three.ready(0)
    its_room.connection = object()
    assert await one.ready(0)
    assert counted() == 1
    assert not await three.ready(0)
    # One that has begun is never sent away: its hands are what everybody waits for.
    its_room.connection = None
    assert not await one.ready(0)
    for each in (one, two, three):
        each.close()
    assert counted() == 0
    assert its_room.released


async def test_where_there_is_room_and_nothing_starts_the_run_fails_after_a_while() -> None:
    agent = Agent()
    agent.hindered = True
    patient, room = lodging(WaitingRuns(2))
    hasty, hasty_room = lodging(WaitingRuns(2), start_wait_s=-1.0)
    for each, its_room in ((patient, room), (hasty, hasty_room)):
        seat = HostedSeat(agent)  # type: ignore[arg-type]
        each._seats.append(seat)
        its_room.connection = object()
        # Nothing has been started yet: nothing is late.
        assert await each.ready(0)
        await seat.open(None)  # type: ignore[arg-type]
    assert not await patient.ready(0)
    patient._move_at_s = 0.0
    assert not await patient.ready(0)
    assert not await patient.ready(0)
    assert room.moves == 1, "it looks elsewhere, and gives that some time"
    with pytest.raises(RunFault, match="could not be started"):
        await hasty.ready(0)
    agent.hindered = False
    assert await patient.ready(0)
    # Without room it is only a matter of waiting.
    agent.hindered, hasty_room.connection = True, None
    assert not await hasty.ready(0)
