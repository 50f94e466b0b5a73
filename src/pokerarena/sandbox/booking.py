"""Room for all agents of one run on one agent-host: asked for, waited for, held, and lost.

Owns a run's place in the queues of agent-hosts, and players within the room that it got. A run has
one booking, for all of its hosted agents: it holds everything that it needs or nothing at all, so
runs can never wait for each other. Where a host is lost the booking asks again, before those that
have not begun.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pokerarena.errors import Unavailable
from pokerarena.sandbox.leasing import LeaseLauncher
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.remote_player import RemotePlayer
from pokerarena.sandbox.runtime import RuntimeName
from pokerarena_sdk.manifest import Manifest

if TYPE_CHECKING:
    from pokerarena.egress.grants import GrantSource
    from pokerarena.sandbox.host_client import HostConnection, HostPool
    from pokerarena.sandbox.wire import NotBooked

_ANSWER_TIMEOUT_S: Final = 3.0
_LOOK_AGAIN_S: Final = 1.0
_FOR_GOOD: Final = ("agent_host_too_small", "runtime_not_available")


class Request:
    """One agent-host's answer to a booking, as it becomes known."""

    def __init__(self, number: int, changed: Callable[[], None]) -> None:
        self.number = number
        self._changed = changed
        self.answered = asyncio.Event()
        self.granted = False
        self.refusal: NotBooked | None = None
        self.lost = False

    def queued(self) -> None:
        self.answered.set()

    def booked(self) -> None:
        self.granted = True
        self._tell()

    def refused(self, refusal: NotBooked) -> None:
        self.refusal = refusal
        self._tell()

    def host_gone(self) -> None:
        self.lost = True
        self._tell()

    def _tell(self) -> None:
        self.answered.set()
        self._changed()


class Booking:
    """Room for a number of agents of one size under one runtime."""

    def __init__(
        self,
        pool: HostPool,
        agents: int,
        limits: SandboxLimits,
        runtime: RuntimeName,
        *,
        urgent: bool,
    ) -> None:
        self.agents = agents
        self.limits = limits
        self.runtime = runtime
        self._pool = pool
        self._asked: dict[HostConnection, Request] = {}
        self._held: tuple[HostConnection, Request] | None = None
        self._changed = asyncio.Event()
        self._seeking: asyncio.Task[None] | None = None
        self._released = False
        self.urgent = urgent

    @property
    def connection(self) -> HostConnection | None:
        """The agent-host where the room is; None while there is none."""
        if self._held is None:
            return None
        connection, request = self._held
        return None if request.lost or not connection.alive else connection

    @property
    def number(self) -> int:
        """Under which the host knows the room."""
        if self._held is None:
            raise RuntimeError("nothing is booked")
        return self._held[1].number

    async def held(self, within_s: float) -> bool:
        """Whether the room is there, or is within this time.

        Between calls the place in the hosts' queues is kept. Raises `Unavailable` where no host can
        ever have the room.
        """
        if self.connection is not None:
            return True
        if self._released:
            return False
        if self._seeking is None:
            self._seeking = asyncio.create_task(self._seek())
        seeking = self._seeking
        await asyncio.wait({seeking}, timeout=within_s)
        if seeking.done():
            if self._seeking is seeking:
                self._seeking = None
            if not seeking.cancelled():
                seeking.result()
        return self.connection is not None

    async def secured(self, within_s: float) -> HostConnection:
        """As `held`, for whoever cannot go on without. Raises `Unavailable`."""
        if not await self.held(within_s) or (connection := self.connection) is None:
            raise Unavailable("no_agent_host", "No agent-host has room for the run's agents yet.")
        return connection

    def player(
        self,
        digest: str,
        manifest: Manifest,
        *,
        alone: Callable[[], bool] | None = None,
        egress: GrantSource | None = None,
    ) -> HostedPlayer | RemotePlayer:
        """A player within the room: on leased sandboxes where all hosts are on this machine.

        Without `egress` it can reach nothing.
        """
        if self._pool.local:
            launcher = LeaseLauncher(self, digest, egress)
            return HostedPlayer(launcher, manifest, self.limits, alone=alone)
        return RemotePlayer(
            self, digest, manifest.max_in_flight, events=manifest.events, egress=egress
        )

    def move(self) -> None:
        """Look for room elsewhere: nothing starts where it is. Without another host it stays."""
        if self._held is not None and self._pool.size > 1:
            connection, request = self._held
            connection.abandon(request.number)

    def release(self) -> None:
        """Give the room back, with whatever is still in it."""
        self._released = True
        if self._seeking is not None:
            self._seeking.cancel()
            self._seeking = None
        if self._held is not None:
            self._withdraw(*self._held)
            self._held = None
        self._withdraw_all()

    async def _seek(self) -> None:
        if self._held is not None:
            self._withdraw(*self._held)
            self._held = None
            self.urgent = True
        try:
            while not self._settled():
                self._changed.clear()
                refusals = await self._ask_around()
                if self._settled():
                    return
                if refusals and len(refusals) == self._pool.size:
                    raise Unavailable(refusals[0].code, refusals[0].message)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _LOOK_AGAIN_S)
        finally:
            self._withdraw_all()

    async def _ask_around(self) -> list[NotBooked]:
        """Ask each host that was not asked yet, the emptiest first, until one has room at once.

        Returns the refusals that are for good.
        """
        refusals = []
        for connection in await self._pool.reachable():
            request = self._asked.get(connection)
            if request is None or request.lost or request.refusal is not None:
                request = self._asked[connection] = connection.book(self, self._changed.set)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(request.answered.wait(), _ANSWER_TIMEOUT_S)
            if self._settled():
                break
            if request.refusal is not None and request.refusal.code in _FOR_GOOD:
                refusals.append(request.refusal)
        return refusals

    def _settled(self) -> bool:
        """Take the first room that was granted."""
        if self._held is None:
            for connection, request in self._asked.items():
                if request.granted and not request.lost and connection.alive:
                    self._held = connection, self._asked.pop(connection)
                    break
        return self._held is not None

    def _withdraw_all(self) -> None:
        for connection, request in self._asked.items():
            self._withdraw(connection, request)
        self._asked.clear()

    def _withdraw(self, connection: HostConnection, request: Request) -> None:
        if request.refusal is None and not request.lost:
            connection.unbook(request.number)
