"""The pace at which one caller is served, so that a flood of theirs is nobody else's.

Limits a minute say how much a caller may have; they do not keep a caller from having all of it, and
all the refusals beyond it, within one second in which others wait. Beyond a burst, a caller's
requests are therefore begun one after the other at a named pace: what comes faster waits, at little
cost, and what would wait too long is refused. Each process paces for itself. It must never look
anything up: it stands before everything that costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

KEYS_MAX: Final = 20_000
WAIT_MAX_S: Final = 2.0


class Pace:
    """When the next request of each key may begin."""

    def __init__(
        self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 1 / per_s if per_s else 0.0
        self._slack_s = burst * self._interval_s
        self._clock = clock
        self._next_s: dict[str, float] = {}

    def wait_s(self, key: str) -> float | None:
        """How long a request of this key has to wait; None where that is too long."""
        if not self._interval_s:
            return 0.0
        now_s = self._clock()
        # Whoever was quiet for a while may have a burst at once.
        begins_s = max(self._next_s.get(key, 0.0), now_s - self._slack_s)
        wait_s = max(0.0, begins_s - now_s)
        if wait_s > WAIT_MAX_S:
            return None
        if key not in self._next_s and len(self._next_s) >= KEYS_MAX:
            self._forget_quiet(now_s)
        self._next_s[key] = begins_s + self._interval_s
        return wait_s

    def _forget_quiet(self, now_s: float) -> None:
        # A key that was quiet for long is as good as one that was never seen.
        kept = {key: at for key, at in self._next_s.items() if at > now_s - self._slack_s}
        self._next_s = kept if len(kept) < KEYS_MAX else {}
