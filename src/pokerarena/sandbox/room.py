"""The room of one agent-host: how much of it is taken, and who waits for it in which order.

Owns bookings: room for all agents of one run, given as a whole or not at all, so that no run ever
holds a part while it waits for the rest. First come, first served; only who is urgent, because it
lost its host in the middle or will be over in seconds, goes before those that have not begun. It
starts nothing and knows no connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from pokerarena.errors import QuotaExceeded
from pokerarena.sandbox.limits import SandboxLimits

Key = tuple[int, int]
_USUAL_BYTES: Final = SandboxLimits().memory_bytes


class _Waiting(NamedTuple):
    key: Key
    agents: int
    total_bytes: int
    urgent: bool
    granted: Callable[[], None]


class Room:
    """Room for agents, by number and by memory."""

    def __init__(self, *, agents_max: int, memory_bytes: int, waiting_max: int) -> None:
        self._agents_max = agents_max
        self._memory_bytes = memory_bytes
        self._waiting_max = waiting_max
        self._taken: dict[Key, tuple[int, int]] = {}
        self._waiting: list[_Waiting] = []

    @property
    def left(self) -> int:
        """How many more agents of the usual size fit; none while somebody waits."""
        if self._waiting:
            return 0
        agents, used_bytes = self._used()
        by_memory = (self._memory_bytes - used_bytes) // _USUAL_BYTES
        return max(0, min(self._agents_max - agents, by_memory))

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def book(
        self, key: Key, agents: int, bytes_each: int, granted: Callable[[], None], *, urgent: bool
    ) -> int:
        """Ask for room; `granted` is called once it is there, at once if it can be.

        Returns how many are ahead. Raises `QuotaExceeded` when this host will never have so much
        room, or when too many wait already.
        """
        total_bytes = agents * bytes_each
        if agents > self._agents_max or total_bytes > self._memory_bytes:
            raise QuotaExceeded(
                "agent_host_too_small",
                f"This agent-host never has room for {agents} agents of {bytes_each >> 20} MiB.",
            )
        if len(self._waiting) >= self._waiting_max:
            raise QuotaExceeded("agent_host_queue_full", "Too many wait for this agent-host.")
        at = len(self._waiting)
        if urgent:
            at = sum(one.urgent for one in self._waiting)
        self._waiting.insert(at, _Waiting(key, agents, total_bytes, urgent, granted))
        self._serve()
        return at

    def release(self, key: Key) -> None:
        """Give a booking back, or stop waiting for it."""
        self._taken.pop(key, None)
        self._waiting = [one for one in self._waiting if one.key != key]
        self._serve()

    def _used(self) -> tuple[int, int]:
        return (
            sum(agents for agents, _ in self._taken.values()),
            sum(used_bytes for _, used_bytes in self._taken.values()),
        )

    def _serve(self) -> None:
        """Strictly in order: whoever needs much would else be overtaken for ever."""
        while self._waiting:
            first = self._waiting[0]
            agents, used_bytes = self._used()
            if (
                agents + first.agents > self._agents_max
                or used_bytes + first.total_bytes > self._memory_bytes
            ):
                return
            del self._waiting[0]
            self._taken[first.key] = (first.agents, first.total_bytes)
            first.granted()
