"""An agent-host's connections: what a worker may ask for once it has shown a token.

Owns room, connections, their players and their leases, and that all of it goes when a worker goes.
It holds no secret: tokens are judged with a public key.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import structlog

from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.egress.lines import EgressLines
from pokerarena.errors import ArenaError, Invalid, NotFound, QuotaExceeded, Unavailable
from pokerarena.protocol.messages import encode
from pokerarena.sandbox import wire
from pokerarena.sandbox.archive import ArchiveLimits, read_tar
from pokerarena.sandbox.home import SandboxHome
from pokerarena.sandbox.limits import MIB, SandboxLimits
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import SandboxLauncher, SandboxProcess
from pokerarena.sandbox.runtime import StartFailed
from pokerarena.sandbox.service_tokens import TokenJudge
from pokerarena.sandbox.store import AgentStore, StoredAgent
from pokerarena.sandbox.tickets import TicketCounter

log = structlog.get_logger(__name__)
_HELLO_TIMEOUT_S: Final = 5.0
_LIMIT_NAMES: Final = frozenset(field.name for field in fields(SandboxLimits))


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How much one agent-host takes on."""

    name: str
    players_max: int = 64
    memory_bytes: int = 4096 * MIB
    connections_max: int = 64
    # A worker may ask for less than this, never for more.
    limits_max: SandboxLimits = SandboxLimits(  # noqa: RUF009 - immutable
        cpu_per_callback_ms=10_000, memory_bytes=1024 * MIB, cpu_cores=2.0, pids_max=64,
        tmp_bytes=128 * MIB, start_timeout_ms=30_000, start_cpu_ms=30_000, restarts_max=20,
    )  # fmt: skip


class AgentHost:
    """All connections and all players of one agent-host."""

    def __init__(
        self, settings: HostSettings, home: SandboxHome, store: AgentStore, judge: TokenJudge
    ) -> None:
        self.settings = settings
        self.home = home
        self.store = store
        self.judge = judge
        self.connections: set[Connection] = set()
        self.closings: set[asyncio.Task[None]] = set()
        self._reserved: dict[tuple[int, int], int] = {}
        self.counter: TicketCounter | None = None
        # Where the egress proxy listens; without one no sandbox has a way out.
        self.egress_proxy: Path | None = None
        # More at once would only make each of them late, and lateness is counted against agents.
        self.starts = asyncio.Semaphore(max(2, os.cpu_count() or 1))

    @property
    def room(self) -> int:
        """How many more players of the usual size fit."""
        free_bytes = self.settings.memory_bytes - sum(self._reserved.values())
        by_memory = free_bytes // SandboxLimits().memory_bytes
        return max(0, min(self.settings.players_max - len(self._reserved), by_memory))

    def reserve(self, key: tuple[int, int], limits: SandboxLimits) -> None:
        needed = limits.memory_bytes + self.home.runtime.extra_memory_bytes
        used = sum(self._reserved.values())
        if (
            len(self._reserved) >= self.settings.players_max
            or used + needed > self.settings.memory_bytes
        ):
            raise QuotaExceeded("host_full", "This agent-host has no room for another agent.")
        self._reserved[key] = needed

    def release(self, key: tuple[int, int]) -> None:
        self._reserved.pop(key, None)

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


class Connection:
    """A worker's connection: nothing is done for it before a valid token, nor after it lapsed."""

    def __init__(self, host: AgentHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self.wire = wire.Wire(wire.decode_from_worker, self._on_frame, self._on_lost)
        self._players: dict[int, HostedPlayer] = {}
        self._lines: dict[int, EgressLines] = {}
        self._leases: dict[int, SandboxProcess] = {}
        self._waiting: dict[int, wire.OpenPlayer | wire.Lease] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asks: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._welcome = False
        self._lapse = self._loop.call_later(_HELLO_TIMEOUT_S, self.wire.break_off)
        host.connections.add(self)

    def _on_frame(self, frame: wire.FromWorker) -> None:  # noqa: C901 - one branch a kind of frame
        if isinstance(frame, wire.Ask) and self._welcome:
            self._asks[frame.player, frame.decision_id] = self._spawn(self._ask(frame))
        elif isinstance(frame, wire.Hello):
            self._hello(frame)
        elif not self._welcome:
            raise wire.BrokenWire("no token yet")
        elif isinstance(frame, wire.OpenPlayer | wire.Lease):
            self._open(frame)
        elif isinstance(frame, wire.Kill):
            if (leased := self._leases.get(frame.player)) is not None:
                leased.kill()
        elif isinstance(frame, wire.RenewEgress):
            self._renew_egress(frame)
        elif isinstance(frame, wire.Package):
            self._receive(frame)
        elif isinstance(frame, wire.Tell):
            self._spawn(self._tell(frame))
        elif isinstance(frame, wire.Forget):
            if (task := self._asks.get((frame.player, frame.decision_id))) is not None:
                task.cancel()
        elif isinstance(frame, wire.ClosePlayer):
            self._spawn(self._close(frame.player))

    def _hello(self, frame: wire.Hello) -> None:
        try:
            if frame.version != wire.WIRE_VERSION:
                raise Invalid("wire_version", "Worker and agent-host are of different releases.")
            grant = self._host.judge.judge(frame.token)
            if len(self._host.connections) > self._host.settings.connections_max:
                raise QuotaExceeded("too_many_connections", "Too many connections.")
        except ArenaError as error:
            log.warning("connection_refused", code=error.code, reason=error.message)
            self.wire.send(wire.Refused(0, error.code, error.message))
            self.wire.close()
            return
        self._lapse.cancel()
        self._lapse = self._loop.call_later(
            max(0.0, grant.expires_at_s - time.time()), self.wire.break_off
        )
        if not self._welcome:
            self._welcome = True
            self.wire.max_frame_bytes = wire.MAX_FRAME_BYTES
            self.wire.send(wire.Welcome(self._host.room, self._host.settings.name))

    # Players.

    def _open(self, frame: wire.OpenPlayer | wire.Lease) -> None:
        number = frame.player
        taken = number in self._players or number in self._leases or number in self._waiting
        if taken or number < 1:
            raise wire.BrokenWire("a player number twice")
        self._waiting[frame.player] = frame
        try:
            agent = self._host.store.get(frame.digest)
        except NotFound:
            self.wire.send(wire.Missing(frame.player))
            return
        self._begin(frame, agent)

    def _begin(self, frame: wire.OpenPlayer | wire.Lease, agent: StoredAgent) -> None:
        if isinstance(frame, wire.Lease):
            self._spawn(self._lease(frame, agent))
        else:
            self._spawn(self._start(frame, agent))

    def _receive(self, frame: wire.Package) -> None:
        opening = self._waiting.get(frame.player)
        if opening is None:
            raise wire.BrokenWire("a package that nobody asked for")
        try:
            package = read_tar(frame.data, ArchiveLimits())
            if package.digest != opening.digest:
                raise Invalid("package_differs", "The package is not the one that was named.")
            agent = self._host.store.put(package)
        except ArenaError as error:
            self._refuse(frame.player, error)
            return
        self._begin(opening, agent)

    async def _start(self, frame: wire.OpenPlayer, agent: StoredAgent) -> None:
        key = (id(self), frame.player)
        try:
            limits = self._limits(frame.limits)
            self._host.reserve(key, limits)
            try:
                launcher = SandboxLauncher(self._host.home, agent, self._way_out(frame))
                player = HostedPlayer(launcher, agent.manifest, limits)
                self._players[frame.player] = player
                async with self._host.starts:
                    await player.open_with(frame.run_start)
            except BaseException:
                if (begun := self._players.pop(frame.player, None)) is not None:
                    await begun.close()
                self._host.release(key)
                raise
        except ArenaError as error:
            self._refuse(frame.player, error)
            return
        self._waiting.pop(frame.player, None)
        self.wire.send(wire.Opened(frame.player, self._host.room))

    async def _lease(self, frame: wire.Lease, agent: StoredAgent) -> None:
        """Start one sandbox and offer its descriptors; the worker does the rest of the work."""
        number, key = frame.player, (id(self), frame.player)
        try:
            if self._host.counter is None:
                raise Invalid("lease_needs_socket", "Only a host on a local socket can lease.")
            limits = self._limits(frame.limits)
            lines = self._way_out(frame)
            self._host.reserve(key, limits)
            process = SandboxProcess(
                self._host.home, agent, limits, _LeaseListener(lambda: self._lease_ended(number)),
                lines.line() if lines is not None else None,
            )  # fmt: skip
            try:
                async with self._host.starts:
                    await process.start()
                    self._leases[number] = process
                    fds = [os.dup(fd) for fd in process.pipes.hand_over()]
                    try:
                        ended = await process.ready()
                        fds += process.cgroup.lease()
                    except BaseException:
                        for fd in fds:
                            os.close(fd)
                        raise
            except BaseException:
                self._leases.pop(number, None)
                await process.stop()
                self._host.release(key)
                raise
        except StartFailed as error:
            self._waiting.pop(number, None)
            self.wire.send(wire.Ended(number, FallbackReason.SANDBOX_EXIT.code, str(error)))
            return
        except ArenaError as error:
            self._refuse(number, error)
            return
        self._waiting.pop(number, None)
        if ended is not None:
            for fd in fds:
                os.close(fd)
            self.wire.send(wire.Ended(number, ended.reason.code, ended.detail))
            return
        ticket = self._host.counter.offer(tuple(fds))
        self.wire.send(wire.Leased(number, self._host.room, ticket, self._host.home.layout.version))

    def _way_out(self, frame: wire.OpenPlayer | wire.Lease) -> EgressLines | None:
        """The lines to the egress proxy, for what a worker has granted; most are granted nothing."""
        if not frame.egress:
            return None
        if self._host.egress_proxy is None:
            raise Unavailable("egress_proxy_missing", "This agent-host has no egress proxy.")
        lines = self._lines[frame.player] = EgressLines(self._host.egress_proxy, frame.egress)
        return lines

    def _renew_egress(self, frame: wire.RenewEgress) -> None:
        if (lines := self._lines.get(frame.player)) is not None:
            lines.renew(frame.egress)

    def _lease_ended(self, number: int) -> None:
        process = self._leases.get(number)
        if process is not None and number not in self._waiting:
            reason, detail = process.why_ended()
            self.wire.send(wire.Ended(number, reason.code, detail))

    def _refuse(self, number: int, error: ArenaError) -> None:
        self._lines.pop(number, None)
        self._waiting.pop(number, None)
        log.warning("player_refused", code=error.code, reason=error.message)
        self.wire.send(wire.Refused(number, error.code, error.message))

    def _limits(self, asked: dict[str, float]) -> SandboxLimits:
        most = self._host.settings.limits_max
        values: dict[str, Any] = {}
        for name, value in asked.items():
            if name not in _LIMIT_NAMES:
                raise Invalid("unknown_limit", f"There is no quota {name[:40]!r}.")
            bound = getattr(most, name)
            values[name] = type(bound)(min(value, bound))
        try:
            return SandboxLimits(**values)
        except ValueError as error:
            raise Invalid("bad_limit", f"{error}.") from None

    async def _ask(self, frame: wire.Ask) -> None:
        player = self._players.get(frame.player)
        try:
            if player is None:
                return
            reply = await player.ask(frame.decision_id, frame.line, frame.deadline_ms)
            if isinstance(reply, Failure):
                self.wire.send(
                    wire.Failed(frame.player, frame.decision_id, reply.reason.code, reply.detail)
                )
            else:
                self.wire.send(wire.Answered(frame.player, frame.decision_id, encode(reply)))
        finally:
            self._asks.pop((frame.player, frame.decision_id), None)

    async def _tell(self, frame: wire.Tell) -> None:
        if (player := self._players.get(frame.player)) is not None:
            await player.tell_line(frame.line, last=frame.last)

    async def _close(self, number: int) -> None:
        self._lines.pop(number, None)
        if (process := self._leases.pop(number, None)) is not None:
            report = await process.stop()
            self._host.release((id(self), number))
            self.wire.send(
                wire.Closed(
                    number, self._host.room, 1, report.cpu_ns, 0, report.memory_peak_bytes,
                    report.stderr, [],
                )
            )  # fmt: skip
            return
        player = self._players.pop(number, None)
        if player is None:
            # One that never came to be: whoever gives it back must not wait for a report.
            self.wire.send(wire.Closed(number, self._host.room, 0, 0, 0, 0, "", []))
            return
        await player.close()
        self._host.release((id(self), number))
        usage = player.usage()
        self.wire.send(
            wire.Closed(
                number,
                self._host.room,
                usage.starts,
                usage.cpu_ns,
                usage.max_turn_cpu_ns,
                usage.memory_peak_bytes,
                usage.stderr,
                [(end.reason.code, end.detail) for end in usage.ends],
            )
        )

    # Its end.

    def _on_lost(self, _: Exception | None) -> None:
        self._lapse.cancel()
        self._welcome = False
        self._host.connections.discard(self)
        closing = self._loop.create_task(self.close_players())
        self._host.closings.add(closing)
        closing.add_done_callback(self._host.closings.discard)

    async def close_players(self) -> None:
        """A worker that is gone needs its agents no more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for number in (*self._players, *self._leases):
            await self._close(number)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("agent_host_fault", error=f"{type(error).__name__}: {error}")
            # Whatever it was, the worker must not wait for it: the hands are void.
            self.wire.break_off()


class _LeaseListener:
    """A leased sandbox's output goes elsewhere; only its end is the host's business."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.ended = on_end

    def line(self, data: bytes) -> None:
        """Never called: the host does not read a leased stdout."""

    def line_too_long(self, size_bytes: int) -> None:
        """Never called."""

    def output_flood(self) -> None:
        """Never called."""

    def output_closed(self) -> None:
        """Never called."""
