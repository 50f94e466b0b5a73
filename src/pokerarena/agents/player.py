"""The seam between the arena and whoever plays a seat.

Owns what a player is (open, decide, tell, close) and the exhaustive list of ways in which a
decision can fail. A player reports the agent's failures as values: an exception that leaves a
player is a fault of ours.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from pokerarena.protocol.messages import Answer, Callback, HandEnd, RunEnd, RunStart


class FallbackReason(StrEnum):
    """Why the arena acted in an agent's place. Order is part of the contract: see `code`."""

    TIMEOUT = "timeout"
    CONNECT_FAILED = "connect_failed"
    EGRESS_DENIED = "egress_denied"
    HTTP_STATUS = "http_status"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    ILLEGAL_ACTION = "illegal_action"
    SANDBOX_CPU = "sandbox_cpu"
    SANDBOX_MEMORY = "sandbox_memory"
    SANDBOX_EXIT = "sandbox_exit"
    CIRCUIT_OPEN = "circuit_open"
    INFRASTRUCTURE = "infrastructure"

    @property
    def code(self) -> int:
        """1 to 12, stored in one byte of an action's record; 0 there means no fallback."""
        return _CODES[self]

    @classmethod
    def from_code(cls, code: int) -> FallbackReason | None:
        """The reason behind a stored code; None for 0."""
        return None if code == 0 else _REASONS[code - 1]


_REASONS = tuple(FallbackReason)
_CODES = {reason: code for code, reason in enumerate(_REASONS, start=1)}


class Failure(NamedTuple):
    """A decision that came to nothing, and a sentence that helps the agent's owner."""

    reason: FallbackReason
    detail: str


Reply = Answer | Failure


class HandVoid(Exception):
    """A hand cannot be finished for a fault of ours; it is void and counts against nobody."""


class Player(Protocol):
    """Plays one seat of one run.

    `decide` returns within `deadline_ms` or soon after with a `Failure`; several calls may be in
    flight, up to `max_in_flight`. `tell` hands over a one-way message and returns at once.
    """

    @property
    def max_in_flight(self) -> int: ...

    async def open(self, run_start: RunStart) -> None: ...

    async def decide(self, callback: Callback, deadline_ms: int) -> Reply: ...

    async def tell(self, message: HandEnd | RunEnd) -> None: ...

    async def close(self) -> None: ...
