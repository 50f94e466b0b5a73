"""Waiting for clients: never for ever, and never for too many at once.

Owns the waits of one process for bodies that arrive and answers that are taken. While it waits for a
client a request costs nothing but memory, so it does not count among those that are worked on; but
when too many are waited for, the longest wait is given up. Whoever sends and reads at once is never
among them, however many others dawdle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Wait:
    """One wait, which may have several parts; the time of a body is that of all its pieces."""

    __slots__ = ("_timer", "ended", "given_up")

    def __init__(self) -> None:
        self.given_up = False
        self.ended = False
        self._timer: asyncio.Timeout | None = None

    def give_up(self) -> None:
        """End it now, with `TimeoutError` for whoever waits."""
        self.given_up = True
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(asyncio.get_running_loop().time())

    async def part(self, timeout_s: float, awaited: Awaitable[T]) -> T:
        """Wait for one part. Raises `TimeoutError`."""
        async with asyncio.timeout(0.0 if self.given_up else timeout_s) as timer:
            self._timer = timer
            try:
                return await awaited
            finally:
                self._timer = None


class Patience:
    """The waits of one process; the oldest goes when there is one too many."""

    __slots__ = ("_leaving", "_waits", "_waits_max")

    def __init__(self, waits_max: int) -> None:
        self._waits_max = waits_max
        # Given up, and not gone yet: being told so is no work either.
        self._leaving = 0
        # In the order in which they began.
        self._waits: dict[Wait, None] = {}

    def __len__(self) -> int:
        return len(self._waits) + self._leaving

    def begin(self) -> Wait:
        """A new wait; end it in any case."""
        if len(self._waits) >= self._waits_max:
            oldest = next(iter(self._waits))
            del self._waits[oldest]
            self._leaving += 1
            oldest.give_up()
        wait = Wait()
        self._waits[wait] = None
        return wait

    def end(self, wait: Wait) -> None:
        """The client has done its part, or nobody waits for it any more."""
        if not wait.ended:
            wait.ended = True
            if wait in self._waits:
                del self._waits[wait]
            else:
                self._leaving -= 1
