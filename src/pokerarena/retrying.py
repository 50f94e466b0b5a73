"""How often, and after which pauses, something that failed is tried again.

Owns the one policy of jobs, of transient database errors and of our own client: exponential, with a
cap, full jitter and an end. It never sleeps and never decides what is worth trying again: callers
do both.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

# Beyond it every pause is at the cap, and the power would only grow.
_DOUBLINGS_MAX = 30


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Pauses of ``base_s * 2**failures`` at most, never above `cap_s`; None for no end."""

    base_s: float
    cap_s: float
    attempts_max: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError("a pause grows from base_s to cap_s")
        if self.attempts_max is not None and self.attempts_max < 1:
            raise ValueError("there is at least one attempt")

    def ceiling_s(self, failures: int) -> float:
        """The longest pause after so many failures in a row."""
        return float(min(self.cap_s, self.base_s * 2 ** min(failures, _DOUBLINGS_MAX)))

    def pause_s(self, failures: int) -> float | None:
        """How long to wait after so many failures in a row; None when it is enough.

        Full jitter: those who failed together do not come back together.
        """
        if self.attempts_max is not None and failures >= self.attempts_max:
            return None
        return random.uniform(0, self.ceiling_s(failures))  # noqa: S311 - jitter is no secret

    def later_s(self, failures: int) -> float:
        """As `pause_s`, at least half of the longest one: where coming back at once would harm."""
        ceiling_s = self.ceiling_s(failures)
        return random.uniform(ceiling_s / 2, ceiling_s)  # noqa: S311 - jitter is no secret
