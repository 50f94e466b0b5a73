"""A sandbox that an agent-host keeps and a worker on the same machine talks to.

Owns the worker's view of it: pipes and meter by descriptor, start and end by the connection to the
agent-host. The host alone makes, watches and kills sandboxes; a worker needs no privilege.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from pokerarena.agents.player import FallbackReason
from pokerarena.sandbox import wire
from pokerarena.sandbox.cgroups import LeasedMeter
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.pipes import AgentPipes, Listener
from pokerarena.sandbox.process import Ended, SandboxReport, memory_end
from pokerarena.sandbox.turns import Meter

if TYPE_CHECKING:
    from pokerarena.egress.grants import GrantSource
    from pokerarena.sandbox.booking import Booking
    from pokerarena.sandbox.host_client import HostConnection

_REPORT_TIMEOUT_S: Final = 15.0
# A player that finds no room in this time says so; whoever plays the run waits for longer.
_ROOM_WAIT_S: Final = 3.0


class LeasedSandbox:
    """Implements `process.Running` over a lease."""

    def __init__(self, limits: SandboxLimits, listener: Listener) -> None:
        self._limits = limits
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._connection: HostConnection | None = None
        self._number = 0
        self._meter: LeasedMeter | None = None
        self._why: Ended | None = None
        self._over = asyncio.Event()
        self._closed: asyncio.Future[wire.Closed | None] = self._loop.create_future()
        self._report = SandboxReport(0, 0, 0, "", 0)
        self.pipes: AgentPipes

    @property
    def meter(self) -> Meter:
        if self._meter is None:
            raise RuntimeError("the lease has not begun")
        return self._meter

    @property
    def alive(self) -> bool:
        return self._meter is not None and not self._over.is_set()

    @property
    def over(self) -> Ended | None:
        return self._why

    def begin(
        self, connection: HostConnection, number: int, version: int, fds: tuple[int, ...]
    ) -> None:
        """The descriptors have arrived: start to listen."""
        self._connection, self._number = connection, number
        self._meter = LeasedMeter(version, fds[2], fds[3], fds[4])
        self.pipes = AgentPipes.adopt(self._limits, self._listener, self._loop, fds[0], fds[1])
        self.pipes.start()

    def begin_dead(self, connection: HostConnection, number: int) -> None:
        """It ended before it was ready; `stop` fetches what there is to say about it."""
        self._connection, self._number = connection, number

    async def ready(self) -> Ended | None:
        """The host leases nothing that is not ready."""
        return self._why

    def why_ended(self) -> Ended:
        return self._why or Ended(FallbackReason.SANDBOX_EXIT, "ended")

    def out_of_memory(self) -> Ended | None:
        killed = self._meter is not None and self._meter.oom_kills()
        return memory_end(self._limits) if killed else None

    def kill(self) -> None:
        if self._connection is not None and not self._over.is_set():
            with contextlib.suppress(Exception):
                self._connection.send(wire.Kill(self._number))

    async def wait(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._over.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def report(self) -> SandboxReport:
        if self._meter is not None and not self._over.is_set():
            return self._report._replace(cpu_ns=self._meter.cpu_ns())
        return self._report

    async def stop(self) -> SandboxReport:
        """Give it back; the host ends it and says what it used."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.alive:
            connection.send(wire.ClosePlayer(self._number))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._closed), _REPORT_TIMEOUT_S)
            connection.drop(self._number)
        self._over.set()
        if self._meter is not None:
            self.pipes.close()
            self._meter.close()
            self._meter = None
        return self._report

    # What comes from the host.

    def ended_by_host(self, ended: Ended) -> None:
        self._why = ended
        if not self._over.is_set():
            self._over.set()
            if self._meter is not None:
                self._listener.ended()

    def closed_by_host(self, frame: wire.Closed) -> None:
        self._report = SandboxReport(
            frame.cpu_ns, frame.memory_peak_bytes, 0, frame.stderr, len(frame.stderr)
        )
        if not self._closed.done():
            self._closed.set_result(frame)

    def host_gone(self, _: HostConnection) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
        self.ended_by_host(Ended(FallbackReason.INFRASTRUCTURE, "the agent-host went away"))


class LeaseLauncher:
    """Implements `process.Launcher`: each start is a lease within a run's booking."""

    def __init__(self, booking: Booking, digest: str, egress: GrantSource | None = None) -> None:
        self._booking = booking
        self._digest = digest
        self._egress = egress

    async def launch(self, limits: SandboxLimits, listener: Listener) -> LeasedSandbox:
        sandbox = LeasedSandbox(limits, listener)
        connection = await self._booking.secured(_ROOM_WAIT_S)
        await connection.lease(sandbox, self._booking, self._digest, limits, self._egress)
        return sandbox
