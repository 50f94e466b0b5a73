"""A worker's way to its agent-hosts: which are there, which has room, and players on them.

Owns connections, their tokens and their loss. A host that dies takes the hands in progress with it,
as `infrastructure`; the next decision is asked on another host, so play goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

from pokerarena.egress import grants
from pokerarena.egress.grants import GrantSource
from pokerarena.errors import ArenaError, Unavailable
from pokerarena.sandbox import wire
from pokerarena.sandbox.leasing import LeasedSandbox, LeaseLauncher
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import Ended
from pokerarena.sandbox.remote_player import HostGone, RemotePlayer, reason_of
from pokerarena.sandbox.service_tokens import LIFETIME_S, TokenMaker
from pokerarena.sandbox.tickets import collect, counter_path
from pokerarena_sdk.manifest import Manifest

log = structlog.get_logger(__name__)
_CONNECT_TIMEOUT_S: Final = 3.0
_OPEN_TIMEOUT_S: Final = 60.0
_RETRY_DEAD_S: Final = 1.0

T = TypeVar("T")
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

    def __init__(self, address: HostAddress, tokens: TokenMaker) -> None:
        self.address = address
        self._tokens = tokens
        self._loop = asyncio.get_running_loop()
        self._wire = wire.Wire(wire.decode_from_host, self._on_frame, self._on_lost)
        self._wire.max_frame_bytes = wire.MAX_FRAME_BYTES
        self._welcome: asyncio.Future[wire.Welcome] = self._loop.create_future()
        self._players: dict[int, Lodger] = {}
        self._opening: dict[int, asyncio.Future[wire.Opened | wire.Leased | None]] = {}
        self._numbers = itertools.count(1)
        self._egress: dict[int, GrantSource] = {}
        self._renewal: asyncio.TimerHandle | None = None
        self.alive = False
        self.room = 0

    async def connect(self) -> None:
        """Connect and show a token. Raises `Unavailable`."""
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
                self._say_hello()
                self.room = (await self._welcome).room
        except (OSError, TimeoutError, HostGone, ssl.SSLError) as error:
            self._wire.break_off()
            raise Unavailable(
                "agent_host_unreachable", f"The agent-host {address.name} is not there: {error}."
            ) from None
        self.alive = True

    async def open(
        self, player: RemotePlayer, digest: str, limits: SandboxLimits, run_start: bytes | None,
        load: PackageLoader, egress: GrantSource | None = None,
    ) -> int:  # fmt: skip
        """Open a player on this host; returns its number."""
        number = next(self._numbers)
        frame = wire.OpenPlayer(number, digest, asdict(limits), run_start, self._granted(egress))
        await self._lodge(player, number, frame, digest, load)
        self._let_out(number, egress)
        return number

    async def lease(
        self, sandbox: LeasedSandbox, digest: str, limits: SandboxLimits, load: PackageLoader,
        egress: GrantSource | None = None,
    ) -> None:  # fmt: skip
        """Lease a sandbox on this host, on the same machine."""
        number = next(self._numbers)
        frame = wire.Lease(number, digest, asdict(limits), self._granted(egress))
        leased = await self._lodge(sandbox, number, frame, digest, load)
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
        return grants.signed(self._tokens, self.address.name, egress)

    def _let_out(self, number: int, egress: GrantSource | None) -> None:
        if egress is not None and number in self._players:
            self._egress[number] = egress

    async def _lodge(
        self, lodger: Lodger, number: int, frame: wire.Frame, digest: str, load: PackageLoader
    ) -> wire.Opened | wire.Leased | None:
        self._players[number] = lodger
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                opened = await self._request_open(number, frame)
                if opened is None and not _is_over(lodger):
                    package = wire.Package(number, await load(digest))
                    opened = await self._request_open(number, package)
                return opened
        except BaseException as error:
            self._players.pop(number, None)
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

    def _say_hello(self) -> None:
        self._wire.send(wire.Hello(wire.WIRE_VERSION, self._tokens.make(self.address.name)))
        # Well before it lapses, so that a slow clock or a slow loop loses no connection.
        self._renewal = self._loop.call_later(LIFETIME_S / 2, self._say_hello)

    def _on_frame(self, frame: wire.FromHost) -> None:  # noqa: C901 - one branch a kind of frame
        lodger = self._players.get(frame.player) if not isinstance(frame, wire.Welcome) else None
        if isinstance(frame, wire.Answered):
            if isinstance(lodger, RemotePlayer):
                lodger.answered(frame.decision_id, frame.line)
        elif isinstance(frame, wire.Failed):
            if isinstance(lodger, RemotePlayer):
                lodger.failed(frame.decision_id, frame.reason, frame.detail)
        elif isinstance(frame, wire.Welcome):
            self.room = frame.room
            if not self._welcome.done():
                self._welcome.set_result(frame)
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
            if self._players.pop(frame.player, None) is not None and lodger is not None:
                lodger.closed_by_host(frame)

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
        players, self._players = list(self._players.values()), {}
        for player in players:
            player.host_gone(self)


class HostPool:
    """The agent-hosts that a worker may use."""

    def __init__(
        self, addresses: list[HostAddress], tokens: TokenMaker, load: PackageLoader
    ) -> None:
        self._addresses = addresses
        self._tokens = tokens
        self._load = load
        self._connections: dict[str, HostConnection] = {}
        self._dead_until_s: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def open(
        self, player: RemotePlayer, digest: str, limits: SandboxLimits, run_start: bytes | None,
        egress: GrantSource | None = None,
    ) -> tuple[HostConnection, int]:  # fmt: skip
        """Open a player where there is most room. Raises `Unavailable` when there is none."""

        async def on(connection: HostConnection) -> tuple[HostConnection, int]:
            opened = await connection.open(player, digest, limits, run_start, self._load, egress)
            return connection, opened

        return await self._where_there_is_room(on)

    async def lease(
        self, sandbox: LeasedSandbox, digest: str, limits: SandboxLimits,
        egress: GrantSource | None = None,
    ) -> None:  # fmt: skip
        """Lease a sandbox where there is most room. Raises `Unavailable` when there is none."""

        async def on(connection: HostConnection) -> None:
            await connection.lease(sandbox, digest, limits, self._load, egress)

        await self._where_there_is_room(on)

    def player(
        self,
        digest: str,
        manifest: Manifest,
        limits: SandboxLimits | None = None,
        *,
        alone: Callable[[], bool] | None = None,
        egress: GrantSource | None = None,
    ) -> HostedPlayer | RemotePlayer:
        """A player for this agent: on leased sandboxes where all hosts are on this machine."""
        if all(address.socket_path is not None for address in self._addresses):
            return HostedPlayer(LeaseLauncher(self, digest, egress), manifest, limits, alone=alone)
        return RemotePlayer(
            self, digest, manifest.max_in_flight, limits, events=manifest.events, egress=egress
        )

    def renew_egress(self) -> None:
        """Tell every host what its players may reach as of now."""
        for connection in self._connections.values():
            if connection.alive:
                connection.renew_egress()

    async def _where_there_is_room(self, on: Callable[[HostConnection], Awaitable[T]]) -> T:
        last: ArenaError = Unavailable(
            "no_agent_host", "No agent-host is configured or reachable; start one."
        )
        for connection in await self._by_room():
            try:
                return await on(connection)
            except ArenaError as error:
                last = error
        raise last

    def close(self) -> None:
        """End all connections; no other is made any more."""
        self._addresses = []
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    async def _by_room(self) -> list[HostConnection]:
        """The reachable hosts, the emptiest first."""
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            for address in self._addresses:
                known = self._connections.get(address.name)
                if known is not None and known.alive:
                    continue
                if now_s < self._dead_until_s.get(address.name, 0.0):
                    continue
                connection = HostConnection(address, self._tokens)
                try:
                    await connection.connect()
                except Unavailable as error:
                    self._dead_until_s[address.name] = now_s + _RETRY_DEAD_S
                    log.warning("agent_host_unreachable", host=address.name, reason=error.message)
                    continue
                self._connections[address.name] = connection
            alive = [one for one in self._connections.values() if one.alive]
            return sorted(alive, key=lambda one: -one.room)


def _is_over(lodger: Lodger) -> bool:
    return isinstance(lodger, LeasedSandbox) and lodger.over is not None
