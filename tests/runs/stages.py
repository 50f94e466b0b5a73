"""Play without a worker: players that are scripted, a recorder that remembers, a clock that obeys."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pokerarena.agents.house import HousePlayer
from pokerarena.agents.player import HandVoid, Player, Reply
from pokerarena.agents.seat import SeatedPlayer, SeatSettings
from pokerarena.history.record import HandRecord
from pokerarena.ids import new_id
from pokerarena.protocol.messages import Callback, HandEnd, RunEnd, RunStart
from pokerarena.runs.formats import RunRules, first_position
from pokerarena.runs.seams import Clock, Moment, PlayedUnit, RunSpec, Seating, VoidReason
from pokerarena.runs.totals import SeatTotals
from pokerarena.tables.models import Format

SEED = bytes(range(32))


class Recorder:
    """Remembers everything, in order."""

    def __init__(self, *, watched: bool = False) -> None:
        self.watched = watched
        self.reserved: list[int] = []
        self.units: list[PlayedUnit] = []
        self.voids: list[tuple[int, VoidReason]] = []
        self.moments: list[Moment] = []
        self.after_each: Callable[[PlayedUnit], None] = lambda unit: None

    @property
    def hands(self) -> list[HandRecord]:
        return [hand for unit in self.units for hand in unit.hands]

    async def reserve(self, deal_no: int) -> None:
        self.reserved.append(deal_no)

    async def record(self, unit: PlayedUnit) -> None:
        self.units.append(unit)
        self.after_each(unit)

    async def void(self, deal_no: int, reason: VoidReason) -> None:
        self.voids.append((deal_no, reason))

    async def flush(self) -> None:
        pass

    def show(self, moment: Moment) -> None:
        self.moments.append(moment)


class Told:
    """A house agent that is told things, may dawdle, and may fail us on some hands."""

    def __init__(
        self,
        name: str,
        seat: int,
        *,
        dawdle: random.Random | None = None,
        void_hands: Sequence[int] = (),
        max_in_flight: int = 8,
    ) -> None:
        self._house = HousePlayer(name, SEED + bytes((seat,)))
        self._dawdle = dawdle
        self._void_hands = list(void_hands)
        self.max_in_flight = max_in_flight
        self.messages: list[RunStart | HandEnd | RunEnd] = []
        self.callbacks: list[Callback] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.closed = False

    async def open(self, run_start: RunStart) -> None:
        self.messages.append(run_start)

    async def decide(self, callback: Callback, deadline_ms: int) -> Reply:
        self.callbacks.append(callback)
        if callback.hand_no in self._void_hands:
            self._void_hands.remove(callback.hand_no)
            raise HandVoid("the arena stumbled")
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self._dawdle is not None:
            await asyncio.sleep(self._dawdle.uniform(0, 0.003))
        self.in_flight -= 1
        return await self._house.decide(callback, deadline_ms)

    async def tell(self, message: HandEnd | RunEnd) -> None:
        self.messages.append(message)

    async def close(self) -> None:
        self.closed = True


def seat(players: Mapping[int, Player], *, wants_events: bool = False) -> dict[int, Seating]:
    return {
        seat_no: Seating(f"player {seat_no}", SeatedPlayer(player, SeatSettings()), wants_events)
        for seat_no, player in players.items()
    }


def spec(seats: Sequence[int], hands: int, format_: Format, **changes: Any) -> RunSpec:
    rules = RunRules(
        format=format_,
        small_blind=50,
        big_blind=100,
        starting_stack=changes.pop("starting_stack", 2_000),
        action_time_ms=2_000,
    )
    return RunSpec(
        run_id=changes.pop("run_id", new_id()),
        table_id=new_id(),
        seed=SEED,
        rules=rules,
        hands_target=hands,
        position=first_position(rules, seats),
        totals={seat_no: SeatTotals() for seat_no in seats},
        **changes,
    )


class SteppingClock:
    """Each look at it takes a millisecond."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def clock(self) -> Clock:
        return Clock(self.monotonic, lambda: datetime(2026, 1, 1, tzinfo=UTC))
