"""What playing a run asks of the world: a recorder, a control, a clock, and players in seats.

Owns the words that play and its callers share, and no behaviour. Whoever implements a seam imports
from here; `runs.play` never learns who that is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from pokerarena.agents.seat import SeatedPlayer
from pokerarena.engine.state import Hand
from pokerarena.history.record import HandRecord, Holding
from pokerarena.runs.formats import HandSetup, Position, RunRules
from pokerarena.runs.totals import SeatTotals


class Halt(StrEnum):
    """Why play ends before its last hand."""

    STOP = "stop"
    DRAIN = "drain"


class Control:
    """The one word from outside: finish the hands in progress and begin no other."""

    __slots__ = ("halt",)

    def __init__(self) -> None:
        self.halt: Halt | None = None

    def ask(self, halt: Halt) -> None:
        """Ask for a halt; a stop is never weakened to a drain."""
        if self.halt is not Halt.STOP:
            self.halt = halt


class Clock(NamedTuple):
    """Time, as play needs it."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


class VoidReason(StrEnum):
    """Why a deal did not become a complete hand."""

    INFRASTRUCTURE = "infrastructure"
    STOPPED = "stopped"
    DRAINED = "drained"
    FAILED = "run_failed"
    WORKER_LOST = "worker_lost"


class Moment(NamedTuple):
    """A hand as it is now, for those who watch the table."""

    hand_id: UUID
    deal_no: int
    setup: HandSetup
    holes: tuple[Holding, ...]
    hand: Hand


@dataclass(frozen=True, slots=True)
class PlayedUnit:
    """The complete hands of one deal, and where the run stands after them."""

    hands: tuple[HandRecord, ...]
    deal_no: int
    position: Position
    totals: Mapping[int, SeatTotals]


class Recorder(Protocol):
    """Remembers a run. Raises whatever ends play when it cannot, such as a lost fence."""

    @property
    def watched(self) -> bool: ...

    async def reserve(self, deal_no: int) -> None:
        """Return once it is remembered that this deal may have been shown."""

    async def record(self, unit: PlayedUnit) -> None:
        """Take finished hands, in order; waits when too many are not stored yet."""

    async def void(self, deal_no: int, reason: VoidReason) -> None:
        """Take note that a deal came to nothing."""

    async def flush(self) -> None:
        """Return once everything recorded is stored."""

    def show(self, moment: Moment) -> None:
        """Offer a hand in progress to those who watch; only called while `watched`."""


class Lodging(Protocol):
    """A place where the run's agents are kept, for those that are not somewhere else."""

    async def ready(self, within_s: float) -> bool:
        """Whether they can play, or can within this time. Raises what ends the run, or `Crowded`."""


class Crowded(Exception):
    """Too many runs wait here for a place already: this one waits in the queue."""


class RunFault(Exception):
    """The run cannot go on, for a reason with a stable code; it can be resumed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Seating(NamedTuple):
    """Who plays a seat."""

    name: str
    player: SeatedPlayer
    wants_events: bool = False
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run as it stands before the first hand that is to be played now."""

    run_id: UUID
    table_id: UUID
    seed: bytes
    rules: RunRules
    hands_target: int
    position: Position
    totals: Mapping[int, SeatTotals] = field(repr=False)
    hands_done: int = 0
    deals_done: int = 0
    # Lineups that never wait gain nothing from several hands in flight.
    in_flight_max: int = 64


class RunOutcome(NamedTuple):
    """How play ended; a drained run is not over, another worker goes on with it."""

    end: Literal["completed", "stopped", "drained"]
    hands_done: int
    totals: Mapping[int, SeatTotals]
