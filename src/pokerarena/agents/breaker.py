"""A circuit breaker: stop asking somebody who keeps failing, and try again after a while.

Owns the count of consecutive failures and the cool-down. It holds no clock; every question carries
the time.
"""

from __future__ import annotations


class CircuitBreaker:
    """Opens after `failure_limit` failures in a row; after `cooldown_s` lets one question through.

    If that one succeeds the circuit is closed again, if it fails the next cool-down begins.
    """

    __slots__ = ("_cooldown_s", "_failure_limit", "_failures", "_opened_at_s", "_probing")

    def __init__(self, failure_limit: int, cooldown_s: float) -> None:
        self._failure_limit = failure_limit
        self._cooldown_s = cooldown_s
        self._failures = 0
        self._opened_at_s: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._opened_at_s is not None

    def may_ask(self, now_s: float) -> bool:
        """Whether to ask. A yes while open is the one trial and must be followed by its result."""
        if self._opened_at_s is None:
            return True
        if self._probing or now_s - self._opened_at_s < self._cooldown_s:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._opened_at_s = None
        self._probing = False

    def failed(self, now_s: float) -> None:
        self._failures += 1
        if self._failures >= self._failure_limit:
            self._opened_at_s = now_s
        self._probing = False

    def abandoned(self) -> None:
        """A question that ended without a verdict, for a reason that is not the agent's."""
        self._probing = False
