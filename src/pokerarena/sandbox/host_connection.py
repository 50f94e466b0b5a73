"""An agent-host's connections: what a worker may ask for once it has shown a token.

Owns a connection's bookings, players and leases, and that all of it goes when the worker goes. It
judges workers by their public keys; the one private key here says who this host is.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import structlog

from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.egress.lines import EgressLines
from pokerarena.errors import ArenaError, Invalid, NotFound, QuotaExceeded, Unavailable
from pokerarena.protocol.messages import encode
from pokerarena.sandbox import wire
from pokerarena.sandbox.archive import ArchiveLimits, read_tar
from pokerarena.sandbox.home import SandboxHome
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.pipes import EndListener
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import SandboxLauncher, SandboxProcess
from pokerarena.sandbox.runtime import StartFailed
from pokerarena.sandbox.store import StoredAgent
from pokerarena.service_identity.keys import ServiceName

if TYPE_CHECKING:
    from pokerarena.sandbox.agent_host import AgentHost

log = structlog.get_logger(__name__)
_HELLO_TIMEOUT_S: Final = 5.0
_LIMIT_NAMES: Final = frozenset(field.name for field in fields(SandboxLimits))


class _Booking:
    """Room that this connection has, or waits for, and the players in it."""

    __slots__ = ("agents", "granted", "home", "memory_bytes", "players")

    def __init__(self, home: SandboxHome, agents: int, memory_bytes: int) -> None:
        self.home = home
        self.agents = agents
        self.memory_bytes = memory_bytes
        self.granted = False
        self.players: set[int] = set()


class Connection:
    """A worker's connection: nothing is done for it before a valid token, nor after it lapsed."""

    def __init__(self, host: AgentHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self.wire = wire.Wire(wire.decode_from_worker, self._on_frame, self._on_lost)
        self._bookings: dict[int, _Booking] = {}
        self._players: dict[int, HostedPlayer] = {}
        self._lines: dict[int, EgressLines] = {}
        self._leases: dict[int, SandboxProcess] = {}
        self._waiting: dict[int, wire.OpenPlayer | wire.Lease] = {}
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asks: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._welcome = False
        self._lapse = self._loop.call_later(_HELLO_TIMEOUT_S, self.wire.break_off)
        host.connections.add(self)

    def _on_frame(self, frame: wire.FromWorker) -> None:
        if isinstance(frame, wire.Ask) and self._welcome:
            self._asks[frame.player, frame.decision_id] = self._spawn(self._ask(frame))
        elif isinstance(frame, wire.Hello):
            self._hello(frame)
        elif not self._welcome:
            raise wire.BrokenWire("no token yet")
        elif isinstance(frame, wire.OpenPlayer | wire.Lease | wire.Package | wire.ClosePlayer):
            self._on_life(frame)
        elif isinstance(frame, wire.Book):
            self._book(frame)
        elif isinstance(frame, wire.Unbook):
            self._spawn(self._unbook(frame.booking))
        elif isinstance(frame, wire.Kill):
            if (leased := self._leases.get(frame.player)) is not None:
                leased.kill()
        elif isinstance(frame, wire.RenewEgress):
            self._renew_egress(frame)
        elif isinstance(frame, wire.Tell):
            self._spawn(self._tell(frame))
        elif (
            isinstance(frame, wire.Forget)
            and (task := self._asks.get((frame.player, frame.decision_id))) is not None
        ):
            task.cancel()

    def _on_life(
        self, frame: wire.OpenPlayer | wire.Lease | wire.Package | wire.ClosePlayer
    ) -> None:
        if isinstance(frame, wire.Package):
            self._receive(frame)
        elif isinstance(frame, wire.ClosePlayer):
            self._spawn(self._close(frame.player))
        else:
            self._open(frame)

    def _hello(self, frame: wire.Hello) -> None:
        try:
            if frame.version != wire.WIRE_VERSION:
                raise Invalid("wire_version", "Worker and agent-host are of different releases.")
            grant = self._host.identity.judge(frame.token)
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
            settings, homes = self._host.settings, list(self._host.homes)
            mine = self._host.identity.token_for(
                ServiceName.WORKER, grant.subject, answers=grant.token_id
            )
            self.wire.send(wire.Welcome(self._host.room.left, settings.name, homes, mine.text))

    # Room.

    def _book(self, frame: wire.Book) -> None:
        number = frame.booking
        if number in self._bookings or frame.agents < 1:
            raise wire.BrokenWire("a booking number twice, or for nobody")
        try:
            home = self._host.home(frame.runtime)
            memory_bytes = min(frame.memory_bytes, self._host.settings.limits_max.memory_bytes)
            each_bytes = memory_bytes + home.runtime.extra_memory_bytes
            booking = self._bookings[number] = _Booking(home, frame.agents, memory_bytes)

            def granted() -> None:
                booking.granted = True
                self.wire.send(wire.Booked(number, self._host.room.left))

            ahead = self._host.room.book(
                (id(self), number), frame.agents, each_bytes, granted, urgent=frame.urgent
            )
        except ArenaError as error:
            self._bookings.pop(number, None)
            self.wire.send(wire.NotBooked(number, error.code, error.message))
            return
        if not booking.granted:
            self.wire.send(wire.Queued(number, ahead))

    async def _unbook(self, number: int) -> None:
        booking = self._bookings.pop(number, None)
        if booking is None:
            return
        try:
            # Their memory is free only once they are gone.
            for player in list(booking.players):
                await self._close(player)
        finally:
            self._host.room.release((id(self), number))

    def _take_place(self, frame: wire.OpenPlayer | wire.Lease) -> _Booking:
        booking = self._bookings.get(frame.booking)
        if booking is None or not booking.granted or len(booking.players) >= booking.agents:
            raise QuotaExceeded("not_booked", "There is no booked room for this agent.")
        booking.players.add(frame.player)
        return booking

    def _leave_place(self, player: int) -> None:
        for booking in self._bookings.values():
            booking.players.discard(player)

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
        work = (
            self._lease(frame, agent)
            if isinstance(frame, wire.Lease)
            else self._start(frame, agent)
        )
        starting = self._starting[frame.player] = self._spawn(work)
        starting.add_done_callback(lambda _: self._starting.pop(frame.player, None))

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
        try:
            booking = self._take_place(frame)
            try:
                limits = self._limits(frame.limits, booking)
                launcher = SandboxLauncher(booking.home, agent, self._way_out(frame))
                player = HostedPlayer(launcher, agent.manifest, limits)
                self._players[frame.player] = player
                async with self._host.starts:
                    await player.open_with(frame.run_start)
            except BaseException:
                if (begun := self._players.pop(frame.player, None)) is not None:
                    await begun.close()
                self._leave_place(frame.player)
                raise
        except ArenaError as error:
            self._refuse(frame.player, error)
            return
        self._waiting.pop(frame.player, None)
        self.wire.send(wire.Opened(frame.player, self._host.room.left))

    async def _lease(self, frame: wire.Lease, agent: StoredAgent) -> None:
        """Start one sandbox and offer its descriptors; the worker does the rest of the work."""
        number = frame.player
        try:
            if self._host.counter is None:
                raise Invalid("lease_needs_socket", "Only a host on a local socket can lease.")
            booking = self._take_place(frame)
            process: SandboxProcess | None = None
            try:
                limits = self._limits(frame.limits, booking)
                lines = self._way_out(frame)
                process = SandboxProcess(
                    booking.home, agent, limits, EndListener(lambda: self._lease_ended(number)),
                    lines.line() if lines is not None else None,
                )  # fmt: skip
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
                if process is not None:
                    await process.stop()
                self._leave_place(number)
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
        self.wire.send(
            wire.Leased(number, self._host.room.left, ticket, booking.home.layout.version)
        )

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

    def _limits(self, asked: dict[str, float], booking: _Booking) -> SandboxLimits:
        most = self._host.settings.limits_max
        values: dict[str, Any] = {}
        for name, value in asked.items():
            if name not in _LIMIT_NAMES:
                raise Invalid("unknown_limit", f"There is no quota {name[:40]!r}.")
            bound = getattr(most, name)
            values[name] = type(bound)(min(value, bound))
        values["memory_bytes"] = min(
            values.get("memory_bytes", booking.memory_bytes), booking.memory_bytes
        )
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
        if (starting := self._starting.get(number)) is not None:
            # Whoever asked for it has given up: it must not come to be after all.
            self._waiting.pop(number, None)
            starting.cancel()
            await asyncio.wait({starting})
        self._lines.pop(number, None)
        if (process := self._leases.pop(number, None)) is not None:
            report = await process.stop()
            self._leave_place(number)
            self.wire.send(
                wire.Closed(
                    number, self._host.room.left, 1, report.cpu_ns, 0, report.memory_peak_bytes, 0,
                    report.stderr, [],
                )
            )  # fmt: skip
            return
        player = self._players.pop(number, None)
        if player is None:
            # One that never came to be: whoever gives it back must not wait for a report.
            self.wire.send(wire.Closed(number, self._host.room.left, 0, 0, 0, 0, 0, "", []))
            return
        await player.close()
        self._leave_place(number)
        usage = player.usage()
        self.wire.send(
            wire.Closed(
                number,
                self._host.room.left,
                usage.starts,
                usage.cpu_ns,
                usage.max_turn_cpu_ns,
                usage.memory_peak_bytes,
                usage.stray_lines,
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
        for number in list(self._bookings):
            await self._unbook(number)

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
