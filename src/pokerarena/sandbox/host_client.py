"""A worker's way to its agent-hosts: which are there, which has room, and players on them.

Owns connections, their tokens and their loss. A host that dies takes the hands in progress with it,
as `infrastructure`; the next decision is asked on another host, so play goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from pokerarena.agents.player import Failure, FallbackReason, Reply
from pokerarena.errors import ArenaError, Unavailable
from pokerarena.protocol.answers import MalformedAnswer, decode_answer
from pokerarena.protocol.messages import Callback, HandEnd, RunEnd, RunStart, encode
from pokerarena.sandbox import wire
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.service_tokens import LIFETIME_S, TokenMaker

log = structlog.get_logger(__name__)
_CONNECT_TIMEOUT_S: Final = 3.0
_OPEN_TIMEOUT_S: Final = 60.0
_CLOSE_TIMEOUT_S: Final = 15.0
_RETRY_DEAD_S: Final = 1.0
# An agent-host answers by the deadline; one that does not within this is taken for dead.
_SILENCE_S: Final = 3.0

PackageLoader = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where an agent-host listens. Its name is the audience of the tokens that it accepts."""

    name: str
    socket_path: Path | None = None
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None


class HostGone(Exception):
    """The connection to an agent-host is lost."""


class HostConnection:
    """One connection to one agent-host."""

    def __init__(self, address: HostAddress, tokens: TokenMaker) -> None:
        self.address = address
        self._tokens = tokens
        self._loop = asyncio.get_running_loop()
        self._wire = wire.Wire(wire.decode_from_host, self._on_frame, self._on_lost)
        self._wire.max_frame_bytes = wire.MAX_FRAME_BYTES
        self._welcome: asyncio.Future[wire.Welcome] = self._loop.create_future()
        self._players: dict[int, RemotePlayer] = {}
        self._opening: dict[int, asyncio.Future[bool]] = {}
        self._numbers = itertools.count(1)
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
        load: PackageLoader,
    ) -> int:  # fmt: skip
        """Open a player on this host; returns its number."""
        number = next(self._numbers)
        frame = wire.OpenPlayer(number, digest, asdict(limits), run_start)
        self._players[number] = player
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                if not await self._request_open(number, frame):
                    await self._request_open(number, wire.Package(number, await load(digest)))
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
        return number

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

    async def _request_open(self, number: int, frame: wire.Frame) -> bool:
        """True once opened, false when the host lacks the package."""
        answer: asyncio.Future[bool] = self._loop.create_future()
        self._opening[number] = answer
        self.send(frame)
        return await answer

    def _say_hello(self) -> None:
        self._wire.send(wire.Hello(wire.WIRE_VERSION, self._tokens.make(self.address.name)))
        # Well before it lapses, so that a slow clock or a slow loop loses no connection.
        self._renewal = self._loop.call_later(LIFETIME_S / 2, self._say_hello)

    def _on_frame(self, frame: wire.FromHost) -> None:
        if isinstance(frame, wire.Answered):
            if (player := self._players.get(frame.player)) is not None:
                player.answered(frame.decision_id, frame.line)
        elif isinstance(frame, wire.Failed):
            if (player := self._players.get(frame.player)) is not None:
                player.failed(frame.decision_id, frame.reason, frame.detail)
        elif isinstance(frame, wire.Welcome):
            self.room = frame.room
            if not self._welcome.done():
                self._welcome.set_result(frame)
        elif isinstance(frame, (wire.Opened, wire.Missing)):
            opened = isinstance(frame, wire.Opened)
            if isinstance(frame, wire.Opened):
                self.room = frame.room
            self._settle_open(frame.player, opened)
        elif isinstance(frame, wire.Refused):
            self._on_refused(frame)
        elif isinstance(frame, wire.Closed):
            self.room = frame.room
            if (player := self._players.pop(frame.player, None)) is not None:
                player.closed_by_host(frame)

    def _on_refused(self, frame: wire.Refused) -> None:
        error = Unavailable(frame.code, frame.message)
        if frame.player == 0:
            if not self._welcome.done():
                self._welcome.set_exception(HostGone(frame.message))
            return
        answer = self._opening.pop(frame.player, None)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _settle_open(self, number: int, opened: bool) -> None:
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
        self, player: RemotePlayer, digest: str, limits: SandboxLimits, run_start: bytes | None
    ) -> tuple[HostConnection, int]:
        """Open a player where there is most room. Raises `Unavailable` when there is none."""
        last: ArenaError = Unavailable(
            "no_agent_host", "No agent-host is configured or reachable; start one."
        )
        for connection in await self._by_room():
            try:
                number = await connection.open(player, digest, limits, run_start, self._load)
            except ArenaError as error:
                last = error
                continue
            return connection, number
        raise last

    def close(self) -> None:
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


class RemotePlayer:
    """Implements `agents.player.Player` on whichever agent-host has room."""

    def __init__(
        self, pool: HostPool, digest: str, max_in_flight: int, limits: SandboxLimits | None = None,
        *, events: bool = False,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._digest = digest
        self._max_in_flight = max_in_flight
        self._limits = limits or SandboxLimits()
        self._events = events
        self._run_start: bytes | None = None
        self._connection: HostConnection | None = None
        self._number = 0
        self._asked: dict[str, asyncio.Future[Reply]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[wire.Closed] | None = None
        self.usage: wire.Closed | None = None

    @property
    def max_in_flight(self) -> int:
        return self._max_in_flight

    async def open(self, run_start: RunStart | None = None) -> None:
        if run_start is not None and self._events:
            self._run_start = encode(run_start) + b"\n"
        await self._reopen()

    async def decide(self, callback: Callback, deadline_ms: int) -> Reply:
        return await self.ask(callback.decision_id, encode(callback) + b"\n", deadline_ms)

    async def ask(self, decision_id: str, line: bytes, deadline_ms: int) -> Reply:
        """Send one encoded callback and wait for its answer, at most `deadline_ms`."""
        connection = self._connection
        if connection is None or not connection.alive:
            try:
                async with asyncio.timeout(deadline_ms / 1000 + _SILENCE_S):
                    await self._reopen_once()
            except (ArenaError, TimeoutError) as error:
                return _ours(str(error) or "no agent-host answered in time")
            connection = self._connection
        if connection is None:
            return _ours("there is no agent-host")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[decision_id] = future
        try:
            connection.send(wire.Ask(self._number, decision_id, line, deadline_ms))
            async with asyncio.timeout(deadline_ms / 1000 + _SILENCE_S):
                return await future
        except HostGone:
            return _ours("the agent-host is gone")
        except TimeoutError:
            return _ours("the agent-host did not answer in time")
        except asyncio.CancelledError:
            with contextlib.suppress(HostGone):
                connection.send(wire.Forget(self._number, decision_id))
            raise
        finally:
            self._asked.pop(decision_id, None)

    async def tell(self, message: HandEnd | RunEnd) -> None:
        if self._events and self._connection is not None:
            with contextlib.suppress(HostGone):
                last = isinstance(message, RunEnd)
                self._connection.send(wire.Tell(self._number, encode(message) + b"\n", last))

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, ArenaError):
                await self._opening
        connection, self._connection = self._connection, None
        if connection is None or not connection.alive:
            return
        self._closing = asyncio.get_running_loop().create_future()
        with contextlib.suppress(HostGone, TimeoutError):
            connection.send(wire.ClosePlayer(self._number))
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                self.usage = await self._closing
        connection.drop(self._number)

    # What comes from the host.

    def answered(self, decision_id: str, line: bytes) -> None:
        try:
            reply: Reply = decode_answer(line)
        except MalformedAnswer as error:
            # The host had read it already: this is not the agent's doing.
            reply = _ours(f"the agent-host sent an answer that cannot be read: {error}")
        self._settle(decision_id, reply)

    def failed(self, decision_id: str, code: int, detail: str) -> None:
        try:
            reason = FallbackReason.from_code(code)
        except IndexError:
            reason = None
        self._settle(decision_id, Failure(reason or FallbackReason.INFRASTRUCTURE, detail))

    def closed_by_host(self, frame: wire.Closed) -> None:
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(frame)

    def host_gone(self, connection: HostConnection) -> None:
        if self._connection is connection:
            self._connection = None
        for decision_id in list(self._asked):
            self._settle(decision_id, _ours("the agent-host went away during the decision"))
        if self._closing is not None and not self._closing.done():
            self._closing.set_exception(HostGone())

    def _settle(self, decision_id: str, reply: Reply) -> None:
        future = self._asked.get(decision_id)
        if future is not None and not future.done():
            future.set_result(reply)

    async def _reopen_once(self) -> None:
        """Several decisions may find the host gone; one of them looks for another."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._reopen())
            self._opening.add_done_callback(self._on_opened)
        await asyncio.shield(self._opening)

    def _on_opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()

    async def _reopen(self) -> None:
        self._connection, self._number = await self._pool.open(
            self, self._digest, self._limits, self._run_start
        )


def _ours(detail: str) -> Failure:
    return Failure(FallbackReason.INFRASTRUCTURE, detail)
