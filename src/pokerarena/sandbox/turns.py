"""Whose turn it is, in terms of the CPU: budgets for callbacks, and the freeze between them.

Owns two rules. The callbacks in flight share the sum of their CPU budgets, and what one leaves
unused is not saved for later. Outside of a turn a sandbox is frozen: at once when it has shown that
it computes in others' time, else after a short grace, since an honest agent that is asked again
within microseconds must not pay for a freeze each time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final, Protocol

GRACE_S: Final = 0.002
CHECK_S: Final = 0.05
# After an answer was written an agent still has to go back to reading.
TAIL_NS: Final = 150_000
# More than this in others' time, summed over a process's life, ends the grace.
PONDERING_MAX_NS: Final = 5_000_000
# Of turns that follow each other without a freeze, one in so many has the CPU between measured, and
# counts for all. Which one is by chance: an agent that knew could ponder before all others.
_SAMPLED_BITS: Final = 3
_SAMPLED: Final = 1 << _SAMPLED_BITS
_chance: Final = random.getrandbits


class Meter(Protocol):
    """What is needed of a cgroup."""

    frozen: bool

    def cpu_ns(self) -> int: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


class Turns:
    """Budgets and freezing of one sandbox. `over_budget` is called once, while in a turn."""

    def __init__(
        self,
        meter: Meter,
        cpu_per_callback_ms: int,
        over_budget: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._meter = meter
        self._budget_ns = cpu_per_callback_ms * 1_000_000
        self._over_budget = over_budget
        self._loop = loop
        self._left_ns = 0
        self._mark_ns = 0
        self._pondered_ns = 0
        self._idle_since_s = 0.0
        self._check: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False
        self.in_flight = 0
        self.max_turn_ns = 0

    @property
    def ponders(self) -> bool:
        """Whether it was seen to compute outside of its turns."""
        return self._pondered_ns > PONDERING_MAX_NS

    def rest(self) -> None:
        """Freeze before the first turn."""
        self._mark_ns = self._meter.cpu_ns()
        self._idle_since_s = time.monotonic()
        self._meter.freeze()

    def begin(self) -> None:
        """A callback is about to be sent."""
        if self.in_flight == 0:
            if self._meter.frozen:
                self._meter.thaw()
            elif _chance(_SAMPLED_BITS) == 0:
                now_ns = self._meter.cpu_ns()
                self._count_pondering(now_ns, _SAMPLED)
                self._mark_ns = now_ns
            self._left_ns = 0
        self.in_flight += 1
        self._left_ns += self._budget_ns
        if self._check is None:
            self._check = self._loop.call_later(CHECK_S, self._on_check)

    def end(self) -> None:
        """A callback was answered, or given up."""
        self.in_flight -= 1
        self._settle()
        if self.in_flight == 0 and not self._closed:
            if self.ponders:
                self._meter.freeze()
            else:
                self._idle_since_s = time.monotonic()
                if self._idle is None:
                    self._idle = self._loop.call_later(GRACE_S, self._on_idle)

    def close(self) -> None:
        self._closed = True
        for handle in (self._check, self._idle):
            if handle is not None:
                handle.cancel()

    def _settle(self) -> None:
        now_ns = self._meter.cpu_ns()
        used_ns = now_ns - self._mark_ns
        self._mark_ns = now_ns
        self.max_turn_ns = max(self.max_turn_ns, used_ns)
        self._left_ns = min(self._left_ns - used_ns, self.in_flight * self._budget_ns)

    def _count_pondering(self, now_ns: int, times: int = 1) -> None:
        used_ns = now_ns - self._mark_ns
        self._pondered_ns += max(0, used_ns - TAIL_NS) * times

    def _on_check(self) -> None:
        self._check = None
        if self.in_flight == 0 or self._closed:
            return
        spent_ns = self._meter.cpu_ns() - self._mark_ns
        if spent_ns > self._left_ns:
            self.max_turn_ns = max(self.max_turn_ns, spent_ns)
            self._over_budget()
            return
        wait_s = min(CHECK_S, max(0.002, (self._left_ns - spent_ns) / 1e9))
        self._check = self._loop.call_later(wait_s, self._on_check)

    def _on_idle(self) -> None:
        self._idle = None
        if self.in_flight or self._closed or self._meter.frozen:
            return
        rest_s = self._idle_since_s + GRACE_S - time.monotonic()
        if rest_s > 0.0002:
            self._idle = self._loop.call_later(rest_s, self._on_idle)
            return
        now_ns = self._meter.cpu_ns()
        self._count_pondering(now_ns)
        self._mark_ns = now_ns
        self._meter.freeze()
