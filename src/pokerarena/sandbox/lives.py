"""What the sandboxes of one player have been through: starts, ends, faults of ours, and use.

Owns the count of starts that an agent has left, why the last of its sandboxes ended, and the sum for
its owner. It starts and ends nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from pokerarena import metrics
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.errors import Unavailable
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.process import Ended, SandboxReport

_ENDS_KEPT: Final = 16


class Usage(NamedTuple):
    """What a run's sandboxes used, and how each of them ended; for the agent's owner."""

    starts: int
    cpu_ns: int
    max_turn_cpu_ns: int
    memory_peak_bytes: int
    stray_lines: int
    stderr: str
    ends: tuple[Ended, ...]


class Lives:
    """The history of one player's sandboxes."""

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits
        self._ends: deque[Ended] = deque(maxlen=_ENDS_KEPT)
        self._last_end: Ended | None = None
        self._reports: list[SandboxReport] = []
        self._max_turn_ns = 0
        self.starts = 0
        self.stray_lines = 0
        # What of ours was in the way of the last start; none once one has succeeded.
        self.fault: Unavailable | None = None

    @property
    def one_is_left(self) -> bool:
        """Whether the agent may be started again."""
        return self.starts <= self._limits.restarts_max

    def ended(self, ended: Ended) -> None:
        """A sandbox is over, for this reason."""
        if ended.reason is FallbackReason.INFRASTRUCTURE:
            # Our own fault costs the agent none of its starts, and is what it waits for now.
            self.starts -= 1
            self.fault = Unavailable("sandbox_lost", ended.detail)
        else:
            self._last_end = ended
            self._ends.append(ended)
            metrics.SANDBOXES_ENDED.number(ended.reason.value).add()

    def used(self, report: SandboxReport) -> None:
        """A sandbox is gone, and this is what it used in all."""
        self._reports.append(report)

    def longest_turn(self, cpu_ns: int) -> None:
        self._max_turn_ns = max(self._max_turn_ns, cpu_ns)

    def why_not(self, *, starting: bool) -> Failure:
        """Why there is no sandbox to ask at this moment; `starting` when there soon may be one."""
        if self.fault is not None:
            return Failure(FallbackReason.INFRASTRUCTURE, self.fault.message)
        if self._last_end is None:
            return Failure(FallbackReason.SANDBOX_EXIT, "is still starting")
        reason, detail = self._last_end
        if starting:
            return Failure(reason, f"is starting again after it {detail}")
        return Failure(reason, f"is not started again in this run: the last time it {detail}")

    def usage(self, running: SandboxReport | None, turn_ns: int) -> Usage:
        """The sum, with the report of one that still runs and its longest turn."""
        reports = [*self._reports, running] if running is not None else self._reports
        return Usage(
            starts=self.starts,
            cpu_ns=sum(report.cpu_ns for report in reports),
            max_turn_cpu_ns=max(self._max_turn_ns, turn_ns),
            memory_peak_bytes=max((report.memory_peak_bytes for report in reports), default=0),
            stray_lines=self.stray_lines,
            stderr="".join(report.stderr for report in reports)[-self._limits.stderr_kept_bytes :],
            ends=tuple(self._ends),
        )
