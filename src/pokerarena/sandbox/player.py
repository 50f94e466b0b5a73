"""A player whose agent runs in a sandbox of ours.

Owns the way from a callback to an answer: several in flight, matched by `decision_id`; limits of
wall and CPU time; restarts; and the judgement of what went wrong. What an agent does becomes a
`Failure` with the agent's reason; only what we do wrong becomes `infrastructure`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from pokerarena import metrics
from pokerarena.agents.player import Failure, FallbackReason, Reply
from pokerarena.errors import Unavailable
from pokerarena.protocol.messages import Callback, HandEnd, RunEnd, RunStart, encode
from pokerarena.sandbox.attribution import Attribution, Ignored, Settled
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.lives import Lives, Usage
from pokerarena.sandbox.process import Ended, Launcher, Running
from pokerarena.sandbox.runtime import StartFailed
from pokerarena.sandbox.turns import Turns
from pokerarena_sdk.manifest import Manifest

_LAST_WORD_S: Final = 0.2
_CLOSED_GRACE_S: Final = 0.1
_TIMER_SLACK_S: Final = 0.001
_ON_THE_SPOT_MS: Final = 1
_YIELD_S: Final = 0.002
_LOOK_AGAIN_S: Final = 0.2


class _Asked:
    """A callback in flight."""

    __slots__ = ("deadline_ms", "due_s", "future")

    def __init__(self, future: asyncio.Future[Reply], due_s: float, deadline_ms: int) -> None:
        self.future = future
        self.due_s = due_s
        self.deadline_ms = deadline_ms


class HostedPlayer:
    """Implements `agents.player.Player` over a sandbox, restarted a bounded number of times."""

    def __init__(
        self,
        launcher: Launcher,
        manifest: Manifest,
        limits: SandboxLimits | None = None,
        *,
        alone: Callable[[], bool] | None = None,
    ) -> None:
        """`alone` says whether nobody else waits for this event loop, as in a single sequential
        match: then a fast answer is waited for on the spot, without a turn of the loop."""
        self._alone = alone
        self._yielded_s = 0.0
        self._launcher = launcher
        self._limits = limits or SandboxLimits()
        self._manifest = manifest
        self._loop = asyncio.get_running_loop()
        self._process: Running | None = None
        self._turns: Turns | None = None
        self._starting: asyncio.Task[None] | None = None
        self._burials: set[asyncio.Task[None]] = set()
        self._asked: dict[str, _Asked] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_s = 0.0
        self._attribution = Attribution(self._limits.answer_max_bytes)
        self._silent_timeouts = 0
        self._lives = Lives(self._limits)
        self._run_start: bytes | None = None
        self._closed = False

    @property
    def max_in_flight(self) -> int:
        return self._manifest.max_in_flight

    @property
    def wants_events(self) -> bool:
        return self._manifest.events

    @property
    def hindered(self) -> bool:
        """Whether a fault of ours keeps it from playing."""
        return self._process is None and self._lives.fault is not None

    # The seam.

    async def open(self, run_start: RunStart | None = None) -> None:
        """Start the agent. Its own faults wait for the first decision; ours raise `Unavailable`."""
        await self.open_with(encode(run_start) + b"\n" if run_start is not None else None)

    async def open_with(self, run_start_line: bytes | None) -> None:
        """As `open`, with the message already encoded."""
        if self._manifest.events:
            self._run_start = run_start_line
        await self._start()
        if self._lives.fault is not None:
            raise Unavailable(self._lives.fault.code, self._lives.fault.message)

    async def decide(self, callback: Callback, deadline_ms: int) -> Reply:
        return await self.ask(callback.decision_id, encode(callback) + b"\n", deadline_ms)

    async def ask(self, decision_id: str, line: bytes, deadline_ms: int) -> Reply:
        """Send one encoded callback and wait for its answer, at most `deadline_ms`."""
        due_s = self._loop.time() + deadline_ms / 1000
        if self._process is None and (failure := await self._await_start(due_s)):
            return failure
        process, turns = self._process, self._turns
        if process is None or turns is None:
            return self._not_running()
        asked = _Asked(self._loop.create_future(), due_s, deadline_ms)
        if decision_id in self._asked:
            return Failure(FallbackReason.INFRASTRUCTURE, "a decision was asked for twice")
        if turns.in_flight == 0:
            process.pipes.turn_begins()
        self._asked[decision_id] = asked
        turns.begin()
        if self._deadline is None or due_s < self._deadline_s:
            self._set_deadline(due_s)
        if not process.pipes.send(line, at_once=turns.in_flight == 1):
            self._settle(
                decision_id,
                Failure(FallbackReason.TIMEOUT, "does not read its input; too much of it waits"),
            )
        elif self._alone is not None and turns.in_flight == 1 and self._alone():
            now_s = time.monotonic()
            if now_s - self._yielded_s > _YIELD_S:
                # Signals, timers and whoever comes along must have their turn all the same.
                self._yielded_s = now_s
                await asyncio.sleep(0)
            process.pipes.wait_briefly(_ON_THE_SPOT_MS)
        try:
            return await asked.future
        except asyncio.CancelledError:
            if self._asked.pop(decision_id, None) is not None:
                self._attribution.give_up(decision_id)
                turns.end()
            raise

    async def recovered(self, within_s: float) -> bool:
        """Whether no fault of ours is in its way, now or within this time."""
        due_s = self._loop.time() + within_s
        while (failure := await self._await_start(due_s)) is not None:
            if failure.reason is not FallbackReason.INFRASTRUCTURE:
                return True
            if self._loop.time() >= due_s:
                return False
            await asyncio.sleep(_LOOK_AGAIN_S)
        return True

    async def tell(self, message: HandEnd | RunEnd) -> None:
        """Hand over an event. A frozen agent reads it when its next turn begins."""
        if self._manifest.events:
            await self.tell_line(encode(message) + b"\n", last=isinstance(message, RunEnd))

    async def tell_line(self, line: bytes, *, last: bool) -> None:
        """As `tell`, with the message already encoded; `last` gives it a moment to finish."""
        if self._manifest.events and self._process is not None:
            self._process.pipes.send(line)
            if last:
                await self._let_finish()

    async def close(self) -> None:
        """End the sandbox; nothing of it is left when this returns."""
        self._closed = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._starting
        self._fail_all(Failure(FallbackReason.INFRASTRUCTURE, "the player was closed"))
        if self._process is not None:
            await self._bury(self._take_process())
        if self._burials:
            await asyncio.gather(*self._burials, return_exceptions=True)

    def usage(self) -> Usage:
        """What it used so far, in all its sandboxes."""
        running = self._process.report() if self._process is not None else None
        return self._lives.usage(running, self._turns.max_turn_ns if self._turns else 0)

    # What comes out of the sandbox (`Listener`).

    def line(self, data: bytes) -> None:
        self._silent_timeouts = 0
        found = self._attribution.read(data, self._asked)
        if isinstance(found, Settled):
            self._settle(found.decision_id, found.reply)
        elif found is Ignored.STRAY:
            self._count_stray(len(data))

    def line_too_long(self, size_bytes: int) -> None:
        detail = f"printed a line of more than {self._limits.answer_max_bytes} bytes"
        if self._asked:
            self._settle(next(iter(self._asked)), Failure(FallbackReason.TOO_LARGE, detail))
        else:
            self._count_stray(size_bytes)

    def output_flood(self) -> None:
        self._end(
            Ended(
                FallbackReason.TOO_LARGE,
                f"printed more than {self._limits.stray_output_max_bytes} bytes that answered nothing",
            )
        )

    def output_closed(self) -> None:
        process = self._process
        if process is not None:
            # The end of the process itself, which says more, may be a moment behind.
            self._loop.call_later(_CLOSED_GRACE_S, self._on_closed, process)

    def ended(self) -> None:
        process = self._process
        if process is not None and not process.alive:
            self._end(process.why_ended())

    # Answers.

    def _settle(self, decision_id: str, reply: Reply) -> None:
        asked = self._asked.pop(decision_id, None)
        if asked is None:
            return
        if not asked.future.done():
            asked.future.set_result(reply)
        if self._turns is not None:
            self._turns.end()

    def _fail_all(self, failure: Failure) -> None:
        for decision_id in list(self._asked):
            self._settle(decision_id, failure)

    def _count_stray(self, size_bytes: int) -> None:
        self._lives.stray_lines += 1
        if self._process is not None and self._process.pipes.stray(size_bytes + 1):
            self.output_flood()

    # Failures.

    def _set_deadline(self, due_s: float) -> None:
        """One timer for all in flight: a timer of its own would cost each callback 3 µs."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline_s = due_s
        self._deadline = self._loop.call_at(due_s, self._on_deadline)

    def _on_deadline(self) -> None:
        self._deadline = None
        now_s = self._loop.time() + _TIMER_SLACK_S
        for decision_id, asked in list(self._asked.items()):
            if asked.due_s <= now_s and decision_id in self._asked:
                self._on_timeout(decision_id, asked.deadline_ms)
        if self._asked and self._deadline is None:
            self._set_deadline(min(asked.due_s for asked in self._asked.values()))

    def _on_timeout(self, decision_id: str, deadline_ms: int) -> None:
        process = self._process
        if process is not None and (memory := process.out_of_memory()) is not None:
            # Something in there was killed for memory, and what is left no longer answers.
            self._end(memory)
            return
        self._attribution.give_up(decision_id)
        self._silent_timeouts += 1
        self._settle(
            decision_id, Failure(FallbackReason.TIMEOUT, f"no answer within {deadline_ms} ms")
        )
        if self._silent_timeouts >= self._limits.stuck_timeouts:
            self._end(
                Ended(FallbackReason.TIMEOUT, "was silent in several turns and is started again")
            )

    def _on_over_budget(self) -> None:
        milliseconds = self._limits.cpu_per_callback_ms
        self._end(
            Ended(
                FallbackReason.SANDBOX_CPU,
                f"used more than {milliseconds} ms of CPU for a callback",
            )
        )

    def _on_closed(self, process: Running) -> None:
        if process is self._process and process.alive:
            self._end(Ended(FallbackReason.SANDBOX_EXIT, "closed its stdout"))

    def _end(self, ended: Ended) -> None:
        """The sandbox is over: fail what is in flight, and start another if one may be."""
        if self._process is None:
            return
        process = self._take_process()
        process.kill()
        self._lives.ended(ended)
        self._fail_all(Failure(ended.reason, ended.detail))
        burial = self._loop.create_task(self._bury(process))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)
        if self._starting is None and self._may_start():
            self._starting = self._loop.create_task(self._restart(burial))

    def _take_process(self) -> Running:
        process, turns = self._process, self._turns
        if process is None:
            raise RuntimeError("there is no process to take")
        self._process = self._turns = None
        if turns is not None:
            turns.close()
            self._lives.longest_turn(turns.max_turn_ns)
        self._attribution.forget()
        self._silent_timeouts = 0
        return process

    async def _bury(self, process: Running) -> None:
        try:
            self._lives.used(await process.stop())
        except Unavailable as error:
            self._lives.fault = error

    # Starting.

    def _may_start(self) -> bool:
        return not self._closed and self._lives.one_is_left

    async def _restart(self, burial: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait({burial})
            await self._start()
        finally:
            self._starting = None

    async def _start(self) -> None:
        """Start until one is ready or no more may be started."""
        while self._process is None and self._may_start():
            process: Running | None = None
            try:
                process = await self._launcher.launch(self._limits, self)
                self._lives.starts += 1
                metrics.SANDBOXES_STARTED.number().add()
                if self._run_start is not None and process.alive:
                    process.pipes.send(self._run_start)
                ended = await process.ready()
            except StartFailed as error:
                self._lives.starts += 1
                ended = Ended(FallbackReason.SANDBOX_EXIT, str(error))
            except Unavailable as error:
                self._lives.fault = error
                return
            except BaseException:
                if process is not None:
                    await process.stop()
                raise
            self._lives.fault = None
            if ended is not None:
                self._lives.ended(ended)
                if process is not None:
                    await self._bury(process)
            elif process is not None:
                self._turns = Turns(
                    process.meter,
                    self._limits.cpu_per_callback_ms,
                    self._on_over_budget,
                    self._loop,
                )
                self._process = process
                self._turns.rest()
                # What it printed before it was ever asked answers nothing.
                process.pipes.wait_briefly(0)

    async def _await_start(self, due_s: float) -> Failure | None:
        if self._process is not None:
            return None
        if self._closed:
            return Failure(FallbackReason.INFRASTRUCTURE, "the player is closed")
        if self._starting is None and self._may_start():
            self._starting = self._loop.create_task(self._restart_now())
        if self._starting is not None:
            await asyncio.wait({self._starting}, timeout=max(0.0, due_s - self._loop.time()))
        return None if self._process is not None else self._not_running()

    async def _restart_now(self) -> None:
        try:
            await self._start()
        finally:
            self._starting = None

    def _not_running(self) -> Failure:
        return self._lives.why_not(starting=self._may_start() or self._starting is not None)

    async def _let_finish(self) -> None:
        """A moment for an agent that wants to write down the result of a run."""
        process, turns = self._process, self._turns
        if process is None or turns is None:
            return
        turns.begin()
        await process.wait(_LAST_WORD_S)
        if self._turns is turns:
            turns.end()
