"""Players that are asked over HTTP.

Owns one POST per callback (or per batch of callbacks): signature, total deadline, size of the
answer, and the translation of everything that can go wrong into a fallback reason. Where a request
may go is decided by `agents.dial`. Nothing here raises for a fault of the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from pyreqwest import exceptions as transport
from pyreqwest.client import Client
from pyreqwest.http import Url

from pokerarena.agents.dial import Dialer
from pokerarena.agents.player import Failure, FallbackReason, Reply
from pokerarena.egress.policy import EgressDenied, EgressPolicy, Target
from pokerarena.egress.resolve import ResolveFailed
from pokerarena.protocol.answers import MalformedAnswer, decode_answer, decode_batch
from pokerarena.protocol.messages import Answer, Callback, Event, HandEnd, RunEnd, RunStart, encode
from pokerarena.protocol.signing import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Signer
from pokerarena.tracing import TRACEPARENT, traceparent

_OK: Final = 200
# The kernel's way of saying that this machine, not the agent, has run out of something:
# ENOMEM, ENFILE, EMFILE, ENOBUFS.
_OUR_OWN_LIMITS: Final = ("(os error 12)", "(os error 23)", "(os error 24)", "(os error 105)")


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
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits or HttpLimits()
        self._dialer = dialer
        self._signer = Signer(secret) if secret is not None else None
        self._max_batch = max_batch
        self._wants_events = wants_events
        self._clock = clock
        self._wall_clock = wall_clock
        self._callback_url = url
        self._judged_by: EgressPolicy | None = None
        self._target: Target | None = None
        self._denied = ""
        self._gathering: list[_Asked] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._events: deque[tuple[str, bytes]] = deque(maxlen=self._limits.max_queued_events)
        self._post: asyncio.Task[None] | None = None

    @property
    def max_in_flight(self) -> int:
        return self._limits.max_in_flight

    async def open(self, run_start: RunStart) -> None:
        """Resolve and check the address before the first decision is on the clock."""
        # Whatever is wrong is said again, and counted, when the first decision is due.
        with contextlib.suppress(EgressDenied, ResolveFailed, transport.PyreqwestError):
            await self._dialer.client(self._judged())
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
        ends_at_s = self._clock() + deadline_ms / 1000
        try:
            return await self._deliver(message_id, body, ends_at_s, max_bytes)
        except EgressDenied as denied:
            return Failure(FallbackReason.EGRESS_DENIED, str(denied))
        except ResolveFailed as error:
            return Failure(FallbackReason.CONNECT_FAILED, str(error))
        except transport.PyreqwestError as error:
            failure = failure_of(error)
            if failure.reason is FallbackReason.CONNECT_FAILED and self._target is not None:
                self._dialer.connection_failed(self._target)
            return failure
        except TimeoutError:
            return Failure(FallbackReason.TIMEOUT, f"no address within {deadline_ms} ms")

    def _judged(self) -> Target:
        """The target as the policy of this moment sees it. Raises `EgressDenied`."""
        policy = self._dialer.policy
        if self._judged_by is not policy:
            self._judged_by, self._target = policy, None
            try:
                self._target = policy.target(self._callback_url)
                self._url = Url(self._target.url)
            except EgressDenied as denied:
                self._denied = str(denied)
        if self._target is None:
            raise EgressDenied(self._denied)
        return self._target

    async def _client(self, ends_at_s: float) -> Client:
        target = self._judged()
        client = self._dialer.ready_client(target)
        if client is None:
            async with asyncio.timeout(max(0.0, ends_at_s - self._clock())):
                client = await self._dialer.client(target)
        return client

    async def _deliver(
        self, message_id: str, body: bytes, ends_at_s: float, max_bytes: int
    ) -> bytes | Failure:
        """Send once, and once more when a kept-alive connection turns out to be closed.

        A server may hang up on an idle connection at the very moment we use it. That is nobody's
        fault, and the decision id makes the second delivery recognisable.
        """
        client = await self._client(ends_at_s)
        try:
            return await self._send(client, message_id, body, ends_at_s, max_bytes)
        except transport.ConnectError as error:
            if not _lost_before_an_answer(error) or self._clock() >= ends_at_s:
                raise
        # Judged anew: operators may have denied the place meanwhile.
        client = await self._client(ends_at_s)
        return await self._send(client, message_id, body, ends_at_s, max_bytes)

    async def _send(
        self, client: Client, message_id: str, body: bytes, ends_at_s: float, max_bytes: int
    ) -> bytes | Failure:
        # The deadline runs in the client's own thread until the last byte of the body: neither a
        # slow drip nor a busy event loop of ours moves it.
        left = timedelta(seconds=max(0.001, ends_at_s - self._clock()))
        request = client.post(self._url).body_bytes(body).timeout(left)
        if self._signer is not None:
            timestamp_s = int(self._wall_clock())
            request = (
                request.header(ID_HEADER, message_id)
                .header(TIMESTAMP_HEADER, str(timestamp_s))
                .header(SIGNATURE_HEADER, self._signer.sign(message_id, timestamp_s, body))
            )
        if (parent := traceparent()) is not None:
            request = request.header(TRACEPARENT, parent)
        async with request.build_streamed() as response:
            if response.status != _OK:
                return Failure(
                    FallbackReason.HTTP_STATUS, f"the agent answered HTTP {response.status}"
                )
            encoding = response.get_header("content-encoding")
            if encoding is not None and encoding.lower() != "identity":
                return Failure(
                    FallbackReason.MALFORMED,
                    "the answer is compressed; the arena asked for accept-encoding: identity",
                )
            data = await response.body_reader.read(max_bytes + 1)
            if data is None:
                return b""
            if len(data) > max_bytes:
                return Failure(
                    FallbackReason.TOO_LARGE, f"the answer is larger than {max_bytes} bytes"
                )
            return data.to_bytes()

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
        if not self._wants_events:
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


def failure_of(error: transport.PyreqwestError) -> Failure:
    """The fallback reason behind an error of the HTTP client."""
    causes = _causes(error)
    last = causes[-1] if causes else error.message
    connecting = "client error (Connect)" in causes
    if isinstance(error, transport.RequestTimeoutError):
        if connecting:
            return Failure(FallbackReason.CONNECT_FAILED, "no connection in time")
        return Failure(FallbackReason.TIMEOUT, "the complete answer did not arrive in time")
    if isinstance(error, transport.NetworkError):
        if any(limit in last for limit in _OUR_OWN_LIMITS):
            return Failure(FallbackReason.INFRASTRUCTURE, f"the arena cannot connect: {last}")
        return Failure(FallbackReason.CONNECT_FAILED, last)
    if isinstance(error, transport.DecodeError):
        if "message head is too large" in last:
            return Failure(FallbackReason.TOO_LARGE, "the headers of the answer are too large")
        if "end of file" in last or "(os error" in last or "closed" in last:
            return Failure(
                FallbackReason.CONNECT_FAILED, "the connection ended in the middle of the answer"
            )
        return Failure(FallbackReason.MALFORMED, f"the answer is not HTTP/1.1: {last}")
    if isinstance(error, transport.BuilderError):
        return Failure(FallbackReason.EGRESS_DENIED, f"the URL cannot be requested: {last}")
    if isinstance(error, transport.RequestPanicError):
        # What an answer can bring about must never make a hand void: losers would send it.
        return Failure(FallbackReason.MALFORMED, "the HTTP client gave up on the answer")
    return Failure(FallbackReason.INFRASTRUCTURE, f"the HTTP client failed: {last}")


def _lost_before_an_answer(error: transport.ConnectError) -> bool:
    causes = _causes(error)
    return "client error (SendRequest)" in causes and "client error (Connect)" not in causes


def _causes(error: transport.PyreqwestError) -> list[str]:
    details = getattr(error, "details", None) or {}
    return [cause["message"] for cause in details.get("causes") or ()]
