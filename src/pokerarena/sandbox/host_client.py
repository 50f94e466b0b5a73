"""A worker's way to its agent-hosts: which are there, and what is said to them.

Owns connections, their tokens and their loss. A host that dies takes the hands in progress with it,
as `infrastructure`; the run's booking then finds another, so play goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from pokerarena.egress import grants
from pokerarena.egress.grants import GrantSource
from pokerarena.errors import Unauthenticated, Unavailable
from pokerarena.sandbox import wire
from pokerarena.sandbox.booking import Booking, Request
from pokerarena.sandbox.leasing import LeasedSandbox
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.process import Ended
from pokerarena.sandbox.remote_player import HostGone, RemotePlayer, reason_of
from pokerarena.sandbox.runtime import RuntimeName
from pokerarena.sandbox.tickets import collect, counter_path
from pokerarena.service_identity.keys import ServiceName
from pokerarena.service_identity.tokens import LIFETIME_S, ServiceIdentity

log = structlog.get_logger(__name__)
_CONNECT_TIMEOUT_S: Final = 3.0
_OPEN_TIMEOUT_S: Final = 60.0
_RETRY_DEAD_S: Final = 1.0
_AVOIDED_S: Final = 60.0

PackageLoader = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where an agent-host listens. Its name is the audience of the tokens that it accepts."""

    name: str
    socket_path: Path | None = None
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None


class Lodger(Protocol):
    """What a connection keeps a number for: a player over there, or a sandbox leased from there."""

    def closed_by_host(self, frame: wire.Closed) -> None: ...

    def host_gone(self, connection: HostConnection) -> None: ...


class HostConnection:
    """One connection to one agent-host."""

    def __init__(
        self, address: HostAddress, identity: ServiceIdentity, load: PackageLoader
    ) -> None:
        self.address = address
        self._load = load
        self._identity = identity
        self._loop = asyncio.get_running_loop()
        self._wire = wire.Wire(wire.decode_from_host, self._on_frame, self._on_lost)
        self._wire.max_frame_bytes = wire.MAX_FRAME_BYTES
        self._welcome: asyncio.Future[wire.Welcome] = self._loop.create_future()
        self._players: dict[int, Lodger] = {}
        self._within: dict[int, int] = {}
        self.avoided_until_s = 0.0
        self._opening: dict[int, asyncio.Future[wire.Opened | wire.Leased | None]] = {}
        self._requests: dict[int, Request] = {}
        self._numbers = itertools.count(1)
        self._egress: dict[int, GrantSource] = {}
        self._renewal: asyncio.TimerHandle | None = None
        self._first_token_id = ""
        self.alive = False
        self.room = 0

    async def connect(self) -> None:
        """Connect, show a token, and see one of the host's. Raises `Unavailable`."""
        address = self.address
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if address.socket_path is not None:
                    await self._loop.create_unix_connection(
                        lambda: self._wire, str(address.socket_path)
                    )
                else:
                    await self._loop.create_connection(
                        lambda: self._wire, address.host, address.port, ssl=address.tls
                    )
                self._first_token_id = self._say_hello()
                self.room = (await self._welcome).room
        except (OSError, TimeoutError, HostGone, ssl.SSLError, Unauthenticated) as error:
            self._wire.break_off()
            raise Unavailable(
                "agent_host_unreachable", f"The agent-host {address.name} is not there: {error}."
            ) from None
        self.alive = True

    def book(self, booking: Booking, changed: Callable[[], None]) -> Request:
        """Ask for the room of a booking; the answers arrive at the request."""
        request = Request(next(self._numbers), changed)
        if not self.alive:
            request.host_gone()
            return request
        self._requests[request.number] = request
        self._wire.send(
            wire.Book(
                request.number, booking.agents, booking.limits.memory_bytes, booking.runtime.value,
                booking.urgent,
            )
        )  # fmt: skip
        return request

    def unbook(self, number: int) -> None:
        """Give room back, or wait for it no longer."""
        if self._requests.pop(number, None) is not None and self.alive:
            self._wire.send(wire.Unbook(number))

    async def open(
        self, player: RemotePlayer, booking: Booking, digest: str, run_start: bytes | None,
        egress: GrantSource | None = None,
    ) -> int:  # fmt: skip
        """Open a player within a booking on this host; returns its number."""
        number = next(self._numbers)
        self._within[number] = booking.number
        frame = wire.OpenPlayer(
            number, booking.number, digest, asdict(booking.limits), run_start, self._granted(egress)
        )
        await self._lodge(player, number, frame, digest)
        self._let_out(number, egress)
        return number

    async def lease(
        self, sandbox: LeasedSandbox, booking: Booking, digest: str, limits: SandboxLimits,
        egress: GrantSource | None = None,
    ) -> None:  # fmt: skip
        """Lease a sandbox within a booking on this host, on the same machine."""
        number = next(self._numbers)
        self._within[number] = booking.number
        frame = wire.Lease(number, booking.number, digest, asdict(limits), self._granted(egress))
        leased = await self._lodge(sandbox, number, frame, digest)
        if sandbox.over is not None or not isinstance(leased, wire.Leased):
            # Over before it was ready: the host keeps its report until it is given back.
            sandbox.begin_dead(self, number)
            return
        try:
            if self.address.socket_path is None:
                raise Unavailable("lease_needs_socket", "Only a host on this machine can lease.")
            fds = await collect(counter_path(self.address.socket_path), leased.ticket)
        except BaseException:
            self.drop(number)
            if self.alive:
                self._wire.send(wire.ClosePlayer(number))
            raise
        sandbox.begin(self, number, leased.cgroup_version, fds)
        self._let_out(number, egress)

    def renew_egress(self) -> None:
        """Tell the host what its players may reach as of now."""
        for number in [number for number in self._egress if number not in self._players]:
            del self._egress[number]
        for number, egress in self._egress.items():
            self._wire.send(wire.RenewEgress(number, self._granted(egress)))

    def _granted(self, egress: GrantSource | None) -> str:
        return grants.signed(self._identity, self.address.name, egress)

    def _let_out(self, number: int, egress: GrantSource | None) -> None:
        if egress is not None and number in self._players:
            self._egress[number] = egress

    async def _lodge(
        self, lodger: Lodger, number: int, frame: wire.Frame, digest: str
    ) -> wire.Opened | wire.Leased | None:
        self._players[number] = lodger
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                opened = await self._request_open(number, frame)
                if opened is None and not _is_over(lodger):
                    package = wire.Package(number, await self._load(digest))
                    opened = await self._request_open(number, package)
                return opened
        except BaseException as error:
            self.drop(number)
            self._opening.pop(number, None)
            if self.alive:
                self._wire.send(wire.ClosePlayer(number))
            if isinstance(error, (HostGone, TimeoutError)):
                raise Unavailable(
                    "agent_host_unreachable", f"The agent-host {self.address.name} was lost."
                ) from None
            raise

    def send(self, frame: wire.Frame) -> None:
        if not self.alive:
            raise HostGone
        self._wire.send(frame)

    def drop(self, number: int) -> None:
        self._players.pop(number, None)
        self._within.pop(number, None)

    def abandon(self, booking_no: int) -> None:
        """Leave this host, on which nothing of the booking starts, as if it were lost."""
        self.avoided_until_s = self._loop.time() + _AVOIDED_S
        request = self._requests.get(booking_no)
        self.unbook(booking_no)
        if request is not None:
            request.host_gone()
        for number in [number for number, within in self._within.items() if within == booking_no]:
            lodger = self._players.get(number)
            self.drop(number)
            if lodger is not None:
                lodger.host_gone(self)

    def close(self) -> None:
        self.alive = False
        if self._renewal is not None:
            self._renewal.cancel()
        self._wire.close()

    async def _request_open(
        self, number: int, frame: wire.Frame
    ) -> wire.Opened | wire.Leased | None:
        """What was opened; None when the host lacks the package."""
        answer: asyncio.Future[wire.Opened | wire.Leased | None] = self._loop.create_future()
        self._opening[number] = answer
        self.send(frame)
        return await answer

    def _say_hello(self) -> str:
        token = self._identity.token_for(ServiceName.AGENT_HOST, self.address.name)
        self._wire.send(wire.Hello(wire.WIRE_VERSION, token.text))
        # Well before it lapses, so that a slow clock or a slow loop loses no connection.
        self._renewal = self._loop.call_later(LIFETIME_S / 2, self._say_hello)
        return token.token_id

    def _on_welcome(self, frame: wire.Welcome) -> None:
        if self._welcome.done():
            return
        try:
            # Whoever sits at that address gets no package before it has shown who it is.
            grant = self._identity.judge(frame.token, answers=self._first_token_id)
            if grant.subject != self.address.name:
                raise HostGone(f"who answers is the agent-host {grant.subject[:60]!r}")
        except (Unauthenticated, HostGone) as error:
            self._welcome.set_exception(error)
        else:
            self.room = frame.room
            self._welcome.set_result(frame)

    def _on_frame(self, frame: wire.FromHost) -> None:  # noqa: C901 - one branch a kind of frame
        if isinstance(frame, wire.Welcome | wire.Booked | wire.Queued | wire.NotBooked):
            self._on_room(frame)
            return
        lodger = self._players.get(frame.player)
        if isinstance(frame, wire.Answered):
            if isinstance(lodger, RemotePlayer):
                lodger.answered(frame.decision_id, frame.line)
        elif isinstance(frame, wire.Failed):
            if isinstance(lodger, RemotePlayer):
                lodger.failed(frame.decision_id, frame.reason, frame.detail)
        elif isinstance(frame, (wire.Opened, wire.Leased)):
            self.room = frame.room
            self._settle_open(frame.player, frame)
        elif isinstance(frame, wire.Missing):
            self._settle_open(frame.player, None)
        elif isinstance(frame, wire.Ended):
            if isinstance(lodger, LeasedSandbox):
                lodger.ended_by_host(Ended(reason_of(frame.reason), frame.detail))
            self._settle_open(frame.player, None)
        elif isinstance(frame, wire.Refused):
            self._on_refused(frame)
        elif isinstance(frame, wire.Closed):
            self.room = frame.room
            self.drop(frame.player)
            if lodger is not None:
                lodger.closed_by_host(frame)

    def _on_room(self, frame: wire.Welcome | wire.Booked | wire.Queued | wire.NotBooked) -> None:
        if isinstance(frame, wire.Welcome):
            self._on_welcome(frame)
            return
        request = self._requests.get(frame.booking)
        if isinstance(frame, wire.Booked):
            self.room = frame.room
            if request is not None:
                request.booked()
        elif isinstance(frame, wire.Queued):
            self.room = 0
            if request is not None:
                request.queued()
        elif request is not None:
            del self._requests[frame.booking]
            request.refused(frame)

    def _on_refused(self, frame: wire.Refused) -> None:
        error = Unavailable(frame.code, frame.message)
        if frame.player == 0:
            if not self._welcome.done():
                self._welcome.set_exception(HostGone(frame.message))
            return
        answer = self._opening.pop(frame.player, None)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _settle_open(self, number: int, opened: wire.Opened | wire.Leased | None) -> None:
        answer = self._opening.pop(number, None)
        if answer is not None and not answer.done():
            answer.set_result(opened)

    def _on_lost(self, error: Exception | None) -> None:
        if self.alive:
            log.warning("agent_host_lost", host=self.address.name, reason=str(error or "closed"))
        self.alive = False
        if self._renewal is not None:
            self._renewal.cancel()
        gone = HostGone(f"lost the agent-host {self.address.name}")
        if not self._welcome.done():
            self._welcome.set_exception(gone)
            # Nobody may be waiting for it any more.
            self._welcome.exception()
        for answer in list(self._opening.values()):
            if not answer.done():
                answer.set_exception(gone)
        self._opening.clear()
        requests, self._requests = list(self._requests.values()), {}
        for request in requests:
            request.host_gone()
        players, self._players = list(self._players.values()), {}
        self._within.clear()
        for player in players:
            player.host_gone(self)


class HostPool:
    """The agent-hosts that a worker may use."""

    def __init__(
        self, addresses: list[HostAddress], identity: ServiceIdentity, load: PackageLoader
    ) -> None:
        self._addresses = addresses
        self._identity = identity
        self._load = load
        self._connections: dict[str, HostConnection] = {}
        self._dead_until_s: dict[str, float] = {}
        self._lock = asyncio.Lock()

    @property
    def size(self) -> int:
        """How many agent-hosts there should be."""
        return len(self._addresses)

    @property
    def local(self) -> bool:
        """Whether all of them are on this machine."""
        return all(address.socket_path is not None for address in self._addresses)

    def book(
        self,
        agents: int = 1,
        limits: SandboxLimits | None = None,
        runtime: RuntimeName = RuntimeName.RUNC,
        *,
        urgent: bool = False,
    ) -> Booking:
        """Room for this many agents, not asked for yet."""
        return Booking(self, agents, limits or SandboxLimits(), runtime, urgent=urgent)

    def renew_egress(self) -> None:
        """Tell every host what its players may reach as of now."""
        for connection in self._connections.values():
            if connection.alive:
                connection.renew_egress()

    def close(self) -> None:
        """End all connections; no other is made any more."""
        self._addresses = []
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    async def reachable(self) -> list[HostConnection]:
        """The reachable hosts, the emptiest first; last those that lately started nothing."""
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            for address in self._addresses:
                known = self._connections.get(address.name)
                if known is not None and known.alive:
                    continue
                if now_s < self._dead_until_s.get(address.name, 0.0):
                    continue
                connection = HostConnection(address, self._identity, self._load)
                try:
                    await connection.connect()
                except Unavailable as error:
                    self._dead_until_s[address.name] = now_s + _RETRY_DEAD_S
                    log.warning("agent_host_unreachable", host=address.name, reason=error.message)
                    continue
                self._connections[address.name] = connection
            alive = [one for one in self._connections.values() if one.alive]
            return sorted(alive, key=lambda one: (now_s < one.avoided_until_s, -one.room))


def _is_over(lodger: Lodger) -> bool:
    return isinstance(lodger, LeasedSandbox) and lodger.over is not None
