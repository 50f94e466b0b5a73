"""A player on an agent-host that is not on this machine: callbacks and answers travel as frames.

Owns the questions in flight and the search for another host when one is lost. What the sandbox did
is judged over there; what happens on the way is ours and becomes `infrastructure`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from pokerarena import metrics
from pokerarena.agents.player import Failure, FallbackReason, Reply
from pokerarena.errors import ArenaError
from pokerarena.protocol.answers import MalformedAnswer, decode_answer
from pokerarena.protocol.messages import Callback, HandEnd, RunEnd, RunStart, encode
from pokerarena.sandbox import wire
from pokerarena.sandbox.lives import Usage
from pokerarena.sandbox.process import Ended

if TYPE_CHECKING:
    from pokerarena.egress.grants import GrantSource
    from pokerarena.sandbox.booking import Booking
    from pokerarena.sandbox.host_client import HostConnection

_CLOSE_TIMEOUT_S: Final = 15.0
# An agent-host answers by the deadline; one that does not within this is taken for dead.
_SILENCE_S: Final = 3.0
_LOOK_AGAIN_S: Final = 0.2
_ROOM_WAIT_S: Final = 3.0


class HostGone(Exception):
    """The connection to an agent-host is lost."""


class RemotePlayer:
    """Implements `agents.player.Player` on the agent-host where its run has room."""

    def __init__(
        self, booking: Booking, digest: str, max_in_flight: int, *, events: bool = False,
        egress: GrantSource | None = None,
    ) -> None:  # fmt: skip
        self._booking = booking
        self._digest = digest
        self._max_in_flight = max_in_flight
        self._events = events
        self._egress = egress
        self._run_start: bytes | None = None
        self._connection: HostConnection | None = None
        self._number = 0
        self._asked: dict[str, asyncio.Future[Reply]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[wire.Closed] | None = None
        self._last_words: wire.Closed | None = None

    @property
    def wants_events(self) -> bool:
        return self._events

    @property
    def hindered(self) -> bool:
        """Whether a fault of ours keeps it from playing."""
        return self._connection is None or not self._connection.alive

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
                self._last_words = await self._closing
        connection.drop(self._number)

    async def recovered(self, within_s: float) -> bool:
        """Whether there is a host for it, or is again within this time."""
        try:
            async with asyncio.timeout(within_s):
                while self._connection is None or not self._connection.alive:
                    try:
                        await self._reopen_once()
                    except ArenaError:
                        await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError:
            return False
        return True

    def usage(self) -> Usage:
        """What it used; known once it is closed, for the host keeps count."""
        said = self._last_words
        if said is None:
            return Usage(0, 0, 0, 0, 0, "", ())
        ends = tuple(Ended(reason_of(code), detail) for code, detail in said.ends)
        return Usage(
            said.starts, said.cpu_ns, said.max_turn_cpu_ns, said.memory_peak_bytes,
            said.stray_lines, said.stderr, ends,
        )  # fmt: skip

    # What comes from the host.

    def answered(self, decision_id: str, line: bytes) -> None:
        try:
            reply: Reply = decode_answer(line)
        except MalformedAnswer as error:
            # The host had read it already: this is not the agent's doing.
            reply = _ours(f"the agent-host sent an answer that cannot be read: {error}")
        self._settle(decision_id, reply)

    def failed(self, decision_id: str, code: int, detail: str) -> None:
        self._settle(decision_id, Failure(reason_of(code), detail))

    def closed_by_host(self, frame: wire.Closed) -> None:
        metrics.SANDBOXES_STARTED.number().add(frame.starts)
        for code, _ in frame.ends:
            metrics.SANDBOXES_ENDED.number(reason_of(code).value).add()
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
        connection = await self._booking.secured(_ROOM_WAIT_S)
        self._number = await connection.open(
            self, self._booking, self._digest, self._run_start, self._egress
        )
        self._connection = connection


def reason_of(code: int) -> FallbackReason:
    """The reason behind a code from the wire; one that nobody knows is a fault of ours."""
    known = 1 <= code <= len(FallbackReason)
    return (FallbackReason.from_code(code) if known else None) or FallbackReason.INFRASTRUCTURE


def _ours(detail: str) -> Failure:
    return Failure(FallbackReason.INFRASTRUCTURE, detail)
