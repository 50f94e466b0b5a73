"""An agent-host as a whole: its settings, its room, its homes for sandboxes and its connections.

Owns what all connections share. What a worker may ask for is `host_connection`'s.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pokerarena.errors import Invalid
from pokerarena.sandbox import wire
from pokerarena.sandbox.home import SandboxHome
from pokerarena.sandbox.host_connection import Connection
from pokerarena.sandbox.limits import MIB, SandboxLimits
from pokerarena.sandbox.room import Room
from pokerarena.sandbox.store import AgentStore
from pokerarena.sandbox.tickets import TicketCounter
from pokerarena.service_identity.tokens import ServiceIdentity


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How much one agent-host takes on."""

    name: str
    players_max: int = 64
    memory_bytes: int = 4096 * MIB
    connections_max: int = 64
    # Runs that wait for room here; each is a few hundred bytes.
    waiting_max: int = 4096
    # A worker may ask for less than this, never for more.
    limits_max: SandboxLimits = SandboxLimits(  # noqa: RUF009 - immutable
        cpu_per_callback_ms=10_000, memory_bytes=1024 * MIB, cpu_cores=2.0, pids_max=64,
        tmp_bytes=128 * MIB, start_timeout_ms=30_000, start_cpu_ms=30_000, restarts_max=20,
    )  # fmt: skip


class AgentHost:
    """All connections and all players of one agent-host."""

    def __init__(
        self,
        settings: HostSettings,
        homes: Iterable[SandboxHome],
        store: AgentStore,
        identity: ServiceIdentity,
    ) -> None:
        self.settings = settings
        self.homes = {home.runtime.name.value: home for home in homes}
        self.store = store
        self.identity = identity
        self.room = Room(
            agents_max=settings.players_max,
            memory_bytes=settings.memory_bytes,
            waiting_max=settings.waiting_max,
        )
        self.connections: set[Connection] = set()
        self.closings: set[asyncio.Task[None]] = set()
        self.counter: TicketCounter | None = None
        # Where the egress proxy listens; without one no sandbox has a way out.
        self.egress_proxy: Path | None = None
        # More at once would only make each of them late, and lateness is counted against agents.
        self.starts = asyncio.Semaphore(max(2, os.cpu_count() or 1))

    def home(self, runtime: str) -> SandboxHome:
        """Where sandboxes of this runtime are kept. Raises `Invalid` when it is not offered."""
        home = self.homes.get(runtime)
        if home is None:
            raise Invalid(
                "runtime_not_available",
                f"This agent-host offers {', '.join(self.homes)}, and not {runtime[:20]!r}.",
            )
        return home

    def connection(self) -> wire.Wire:
        """The protocol of a new connection."""
        return Connection(self).wire

    async def close(self) -> None:
        if self.counter is not None:
            self.counter.close()
        for connection in list(self.connections):
            connection.wire.break_off()
            await connection.close_players()
        # Of connections that were lost just before: their sandboxes are ours to end, too.
        await asyncio.gather(*self.closings, return_exceptions=True)
        for home in self.homes.values():
            home.close()
