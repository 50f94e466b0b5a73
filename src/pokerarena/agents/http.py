"""Players that are asked over HTTP.

Owns one POST per callback (or per batch of callbacks), its signature, and the events beside it.
Where a request may go is decided by `agents.dial`, and what comes back is read by `agents.channel`.
Nothing here raises for a fault of the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from pokerarena.agents.dial import Dialer, ResolveFailed
from pokerarena.agents.egress import EgressDenied, Target
from pokerarena.agents.player import Failure, FallbackReason, Reply
from pokerarena.protocol.answers import MalformedAnswer, decode_answer, decode_batch
from pokerarena.protocol.messages import Answer, Callback, Event, HandEnd, RunEnd, RunStart, encode
from pokerarena.protocol.signing import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Signer

USER_AGENT: Final = "pokerarena"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one HTTP player."""

    max_answer_bytes: int = 16_384
    max_in_flight: int = 64
    max_queued_events: int = 256
    event_timeout_ms: int = 2_000
    close_grace_ms: int = 1_000


class _Asked(NamedTuple):
    callback: Callback
    deadline_ms: int
    reply: asyncio.Future[Reply]


class HttpPlayer:
    """One version of an agent behind a callback URL."""

    def __init__(
        self,
        url: str,
        dialer: Dialer,
        *,
        secret: str | None = None,
        max_batch: int = 1,
        wants_events: bool = False,
        limits: HttpLimits | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits or HttpLimits()
        self._dialer = dialer
        self._signer = Signer(secret) if secret is not None else None
        self._max_batch = max_batch
        self._wants_events = wants_events
        self._wall_clock = wall_clock
        self._target: Target | None = None
        self._denied = ""
        try:
            self._target = dialer.policy.target(url)
        except EgressDenied as denied:
            self._denied = str(denied)
        else:
            self._head = _head(self._target)
        self._gathering: list[_Asked] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._events: deque[tuple[str, bytes]] = deque(maxlen=self._limits.max_queued_events)
        self._post: asyncio.Task[None] | None = None

    @property
    def max_in_flight(self) -> int:
        return self._limits.max_in_flight

    async def open(self, run_start: RunStart) -> None:
        """Resolve and check the address before the first decision is on the clock."""
        if self._target is not None:
            # Whatever is wrong is said again, and counted, when the first decision is due.
            with contextlib.suppress(EgressDenied, ResolveFailed):
                await self._dialer.channel(self._target)
        self._tell(f"{run_start.run_id}-{run_start.seat}-start", run_start)

    async def decide(self, callback: Callback, deadline_ms: int) -> Reply:
        if self._max_batch > 1:
            return await self._decide_in_batch(callback, deadline_ms)
        body = await self.post(
            callback.decision_id, encode(callback), deadline_ms, self._limits.max_answer_bytes
        )
        if isinstance(body, Failure):
            return body
        try:
            answer = decode_answer(body, max_bytes=self._limits.max_answer_bytes)
        except MalformedAnswer as error:
            return Failure(FallbackReason.MALFORMED, str(error))
        if answer.decision_id is not None and answer.decision_id != callback.decision_id:
            return Failure(
                FallbackReason.MALFORMED,
                f"the answer is for decision_id {answer.decision_id}, "
                f"the question was {callback.decision_id}",
            )
        return answer

    async def tell(self, message: HandEnd | RunEnd) -> None:
        """Queue a one-way message. When the queue is full the oldest is dropped: play goes on."""
        if isinstance(message, HandEnd):
            self._tell(f"{message.hand_id}-{message.seat}-end", message)
        else:
            self._tell(f"{message.run_id}-{message.seat}-end", message)

    async def close(self) -> None:
        """Give queued messages a moment to leave, then let go."""
        tasks = set(self._batches)
        if self._post is not None:
            tasks.add(self._post)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._limits.close_grace_ms / 1000)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # --- one request -------------------------------------------------------------------------

    async def post(
        self, message_id: str, body: bytes, deadline_ms: int, max_bytes: int
    ) -> bytes | Failure:
        """Send one signed message; the body of a complete answer in time, or what went wrong."""
        if self._target is None:
            return Failure(FallbackReason.EGRESS_DENIED, self._denied)
        ends_at_s = asyncio.get_running_loop().time() + deadline_ms / 1000
        try:
            channel = self._dialer.ready_channel(self._target)
            if channel is None:
                async with asyncio.timeout_at(ends_at_s):
                    channel = await self._dialer.channel(self._target)
        except EgressDenied as denied:
            return Failure(FallbackReason.EGRESS_DENIED, str(denied))
        except ResolveFailed as error:
            return Failure(FallbackReason.CONNECT_FAILED, str(error))
        except TimeoutError:
            return Failure(FallbackReason.TIMEOUT, f"no address within {deadline_ms} ms")
        outcome = await channel.exchange(self._request(message_id, body), max_bytes, ends_at_s)
        if isinstance(outcome, Failure) and outcome.reason is FallbackReason.CONNECT_FAILED:
            self._dialer.connection_failed(self._target)
        return outcome

    def _request(self, message_id: str, body: bytes) -> bytes:
        head = f"{self._head}content-length: {len(body)}\r\n"
        if self._signer is not None:
            timestamp_s = int(self._wall_clock())
            head += (
                f"{ID_HEADER}: {message_id}\r\n"
                f"{TIMESTAMP_HEADER}: {timestamp_s}\r\n"
                f"{SIGNATURE_HEADER}: {self._signer.sign(message_id, timestamp_s, body)}\r\n"
            )
        return f"{head}\r\n".encode() + body

    # --- several callbacks in one request ----------------------------------------------------

    async def _decide_in_batch(self, callback: Callback, deadline_ms: int) -> Reply:
        loop = asyncio.get_running_loop()
        asked = _Asked(callback, deadline_ms, loop.create_future())
        self._gathering.append(asked)
        if len(self._gathering) == 1:
            # Everything that is asked in this turn of the loop travels together.
            loop.call_soon(self._send_gathered)
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                return await asked.reply
        except TimeoutError:
            return Failure(FallbackReason.TIMEOUT, f"no answer within {deadline_ms} ms")

    def _send_gathered(self) -> None:
        gathered, self._gathering = self._gathering, []
        for start in range(0, len(gathered), self._max_batch):
            batch = gathered[start : start + self._max_batch]
            task = asyncio.create_task(self._ask_batch(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    async def _ask_batch(self, batch: list[_Asked]) -> None:
        ids = [asked.callback.decision_id for asked in batch]
        max_bytes = self._limits.max_answer_bytes * len(batch)
        body = b"[" + b",".join(encode(asked.callback) for asked in batch) + b"]"
        deadline_ms = max(asked.deadline_ms for asked in batch)
        try:
            reply = await self.post(ids[0], body, deadline_ms, max_bytes)
            answers: dict[str, Answer | MalformedAnswer] = {}
            if not isinstance(reply, Failure):
                try:
                    answers = decode_batch(reply, ids, max_bytes=max_bytes)
                except MalformedAnswer as error:
                    reply = Failure(FallbackReason.MALFORMED, str(error))
        except asyncio.CancelledError:
            # Nobody may wait for an answer that no longer comes.
            for asked in batch:
                asked.reply.cancel()
            raise
        except Exception as error:
            for asked in batch:
                if not asked.reply.done():
                    asked.reply.set_exception(error)
            return
        for asked in batch:
            if asked.reply.done():
                continue
            if isinstance(reply, Failure):
                asked.reply.set_result(reply)
                continue
            answer = answers[asked.callback.decision_id]
            if isinstance(answer, MalformedAnswer):
                asked.reply.set_result(Failure(FallbackReason.MALFORMED, str(answer)))
            else:
                asked.reply.set_result(answer)

    # --- one-way messages --------------------------------------------------------------------

    def _tell(self, message_id: str, event: Event) -> None:
        if not self._wants_events or self._target is None:
            return
        self._events.append((message_id, encode(event)))
        if self._post is None or self._post.done():
            self._post = asyncio.create_task(self._deliver_events())

    async def _deliver_events(self) -> None:
        while self._events:
            message_id, body = self._events.popleft()
            # One-way: what becomes of it is the agent's business.
            await self.post(
                message_id, body, self._limits.event_timeout_ms, self._limits.max_answer_bytes
            )


def _head(target: Target) -> str:
    """What is the same in every request to a target."""
    host = target.host
    if target.port != _DEFAULT_PORTS[target.scheme]:
        host = f"{host}:{target.port}"
    return (
        f"POST {target.path} HTTP/1.1\r\n"
        f"host: {host}\r\n"
        f"user-agent: {USER_AGENT}\r\n"
        "accept: application/json\r\n"
        "accept-encoding: identity\r\n"
        "content-type: application/json\r\n"
    )
