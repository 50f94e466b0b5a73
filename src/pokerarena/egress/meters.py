"""How much hosted agents may send out, and what they have sent.

Owns the bounds of the egress proxy and the count of what each version has used in each run. The count
outlives a sandbox: one that is started again has what is left, not a new allowance.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

MIB: Final = 1024 * 1024
_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """Bounds of what leaves through one proxy. Sizes are bytes, times milliseconds or seconds."""

    # Of one version in one run.
    bytes_up_max: int = 16 * MIB
    bytes_down_max: int = 64 * MIB
    connects_per_minute: int = 120
    # Of one sandbox.
    connections_max: int = 8
    bytes_per_second: int = 1 * MIB
    # Of one connection.
    head_max_bytes: int = 4_096
    head_timeout_ms: int = 5_000
    resolve_timeout_ms: int = 2_000
    connect_timeout_ms: int = 5_000
    # A frozen agent neither reads nor writes: this is how long it keeps what it has opened.
    idle_s: int = 60
    total_s: int = 300
    addresses_max: int = 4
    # Of the proxy.
    sandboxes_max: int = 256
    meters_kept: int = 10_000
    resolver_threads: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1")


class LimitReached(Exception):
    """A bound was met; the message is for the agent's owner."""


class Meter:
    """What one version has used in one run."""

    def __init__(self, limits: EgressLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self.bytes_up = 0
        self.bytes_down = 0
        self._connects = float(limits.connects_per_minute)
        self._counted_at_s = clock()

    def connect(self) -> None:
        """Count an attempt to connect, granted or not. Raises `LimitReached`."""
        now_s = self._clock()
        rate = self._limits.connects_per_minute
        gained = (now_s - self._counted_at_s) / _MINUTE_S * rate
        self._connects, self._counted_at_s = min(rate, self._connects + gained), now_s
        if self._connects < 1:
            raise LimitReached(f"more than {rate} connections a minute")
        self._connects -= 1
        self._check()

    def up(self, size_bytes: int) -> None:
        """Count bytes of the agent before they leave. Raises `LimitReached`."""
        self.bytes_up += size_bytes
        self._check()

    def down(self, size_bytes: int) -> None:
        """Count bytes for the agent before they arrive. Raises `LimitReached`."""
        self.bytes_down += size_bytes
        self._check()

    def _check(self) -> None:
        limits = self._limits
        if self.bytes_up > limits.bytes_up_max:
            raise LimitReached(f"more than {limits.bytes_up_max} bytes sent in this run")
        if self.bytes_down > limits.bytes_down_max:
            raise LimitReached(f"more than {limits.bytes_down_max} bytes received in this run")


class MeterBook:
    """The meters of all versions and runs, of which the longest unused go first."""

    def __init__(self, limits: EgressLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._meters: OrderedDict[tuple[str, str], Meter] = OrderedDict()

    def of(self, version_id: str, run_id: str) -> Meter:
        key = (version_id, run_id)
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = Meter(self._limits, self._clock)
        self._meters.move_to_end(key)
        while len(self._meters) > self._limits.meters_kept:
            self._meters.popitem(last=False)
        return meter


class Pace:
    """Spreads bytes over time: whoever took more than a second's worth waits."""

    def __init__(self, bytes_per_second: int, clock: Callable[[], float]) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._free_at_s = clock()

    async def take(self, size_bytes: int) -> None:
        now_s = self._clock()
        self._free_at_s = max(self._free_at_s, now_s - 1.0) + size_bytes / self._rate
        if self._free_at_s > now_s:
            await asyncio.sleep(self._free_at_s - now_s)
