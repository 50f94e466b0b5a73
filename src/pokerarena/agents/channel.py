"""Connections to one origin, at checked addresses and nowhere else.

Owns sockets: dialling, keeping alive, one request and response at a time on each. The address that
is dialled is judged once more at the moment of dialling, so there is no way from a name, a redirect
or a changed mind to a socket. It never resolves, redirects, retries for long, or reads proxies.

Everything happens on the event loop's own thread. A client that works on threads of its own passes
the interpreter's lock to and fro for every answer, which costs more than the answer itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from pokerarena.agents.egress import Address, EgressDenied, Target
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.agents.wire import MalformedResponse, OversizedResponse, ResponseReader

_OK: Final = 200
# This machine, not the agent, has run out of something.
_OUR_OWN_LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

Outcome = bytes | Failure


class _Lost(Exception):
    """A kept-alive connection was closed before a byte of the answer came."""


class _Connection(asyncio.Protocol):
    """One connection, and at most one exchange on it."""

    __slots__ = ("_reader", "_transport", "_waiter", "idle_since_s", "is_open", "served")

    def __init__(self) -> None:
        self.is_open = False
        self.idle_since_s = 0.0
        self.served = 0
        self._reader: ResponseReader | None = None
        self._waiter: asyncio.Future[Outcome] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            # Nobody asked: whatever this is, the connection can no longer be trusted.
            self.abort()
            return
        try:
            complete = reader.feed(data)
        except MalformedResponse as error:
            self._fail(FallbackReason.MALFORMED, str(error))
        except OversizedResponse as error:
            self._fail(FallbackReason.TOO_LARGE, str(error))
        else:
            if complete:
                self._complete(reader)

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        reader = self._reader
        if reader is None:
            return
        if reader.end() and error is None:
            self._complete(reader)
        elif reader.touched:
            self._fail(
                FallbackReason.CONNECT_FAILED, "the connection ended in the middle of the answer"
            )
        elif self.served and self._waiter is not None and not self._waiter.done():
            self._reader = None
            self._waiter.set_exception(_Lost())
        else:
            self._fail(FallbackReason.CONNECT_FAILED, "the connection was closed without an answer")

    async def exchange(
        self, request: bytes, max_body_bytes: int, ends_at_s: float, loop: asyncio.AbstractEventLoop
    ) -> Outcome:
        """Send a request and wait for its answer, until the time is over. Raises `_Lost`."""
        reader = self._reader = ResponseReader(max_body_bytes)
        waiter: asyncio.Future[Outcome] = loop.create_future()
        self._waiter = waiter
        timer = loop.call_at(ends_at_s, self._time_is_over, loop, reader, 2)
        self._transport.write(request)
        try:
            return await waiter
        finally:
            timer.cancel()
            if self._reader is not None:
                # We were cancelled: an answer that still comes must not meet the next question.
                self.abort()

    def abort(self) -> None:
        """Drop the connection and whatever is still on its way."""
        self._reader = None
        self.is_open = False
        self._transport.abort()

    def _time_is_over(
        self, loop: asyncio.AbstractEventLoop, reader: ResponseReader, turns: int
    ) -> None:
        if self._reader is not reader:
            return
        if turns:
            # A busy loop runs its timers late and before it reads: what has arrived is heard first.
            loop.call_soon(self._time_is_over, loop, reader, turns - 1)
            return
        self._fail(FallbackReason.TIMEOUT, "the complete answer did not arrive in time")

    def _complete(self, reader: ResponseReader) -> None:
        self._reader = None
        self.served += 1
        if not reader.reusable:
            self.abort()
        if reader.status == _OK:
            self._finish(reader.body)
        else:
            self._finish(
                Failure(FallbackReason.HTTP_STATUS, f"the agent answered HTTP {reader.status}")
            )

    def _fail(self, reason: FallbackReason, detail: str) -> None:
        self.abort()
        self._finish(Failure(reason, detail))

    def _finish(self, outcome: Outcome) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(outcome)


class Channel:
    """Kept-alive connections to one target at the addresses it was checked to have."""

    def __init__(
        self,
        target: Target,
        addresses: tuple[Address, ...],
        *,
        admit: Callable[[Address], None],
        tls: ssl.SSLContext | None,
        connect_timeout_ms: int,
        idle_connection_ms: int,
    ) -> None:
        self._target = target
        self._addresses = addresses
        self._admit = admit
        self._tls = tls
        self._connect_timeout_s = connect_timeout_ms / 1000
        self._idle_s = idle_connection_ms / 1000
        self._idle: deque[_Connection] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._retired = False

    async def exchange(self, request: bytes, max_body_bytes: int, ends_at_s: float) -> Outcome:
        """One request and its answer, until `ends_at_s` on the loop's clock.

        A server may hang up on an idle connection at the very moment we use it. That is nobody's
        fault: the request is then sent once more, on a new connection.
        """
        loop = asyncio.get_running_loop()
        connection = self._kept_alive(loop)
        if connection is not None:
            try:
                return await self._use(connection, request, max_body_bytes, ends_at_s, loop)
            except _Lost:
                pass
        opened = await self._open(loop, ends_at_s)
        if isinstance(opened, Failure):
            return opened
        return await self._use(opened, request, max_body_bytes, ends_at_s, loop)

    def retire(self) -> None:
        """Close idle connections now and the others after their answer."""
        self._retired = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._idle:
            self._idle.pop().abort()

    async def _use(
        self,
        connection: _Connection,
        request: bytes,
        max_body_bytes: int,
        ends_at_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> Outcome:
        outcome = await connection.exchange(request, max_body_bytes, ends_at_s, loop)
        if connection.is_open:
            if self._retired:
                connection.abort()
            else:
                connection.idle_since_s = loop.time()
                self._idle.append(connection)
                if self._sweeper is None:
                    self._sweeper = loop.call_later(self._idle_s, self._sweep, loop)
        return outcome

    def _kept_alive(self, loop: asyncio.AbstractEventLoop) -> _Connection | None:
        # The one used last is the least likely to be closed by the other side.
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                if loop.time() - connection.idle_since_s < self._idle_s:
                    return connection
                connection.abort()
        return None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = None
        oldest_s = loop.time() - self._idle_s
        while self._idle and (not self._idle[0].is_open or self._idle[0].idle_since_s <= oldest_s):
            connection = self._idle.popleft()
            if connection.is_open:
                connection.abort()
        if self._idle:
            self._sweeper = loop.call_at(
                self._idle[0].idle_since_s + self._idle_s, self._sweep, loop
            )

    # --- dialling ----------------------------------------------------------------------------

    async def _open(
        self, loop: asyncio.AbstractEventLoop, ends_at_s: float
    ) -> _Connection | Failure:
        """A new connection to the first address that accepts one."""
        now_s = loop.time()
        failure = Failure(FallbackReason.CONNECT_FAILED, "no address to connect to")
        for address in self._addresses:
            limit_s = min(now_s + self._connect_timeout_s, ends_at_s)
            try:
                async with asyncio.timeout_at(limit_s):
                    return await self._dial(loop, address)
            except EgressDenied as denied:
                return Failure(FallbackReason.EGRESS_DENIED, str(denied))
            except TimeoutError:
                if limit_s >= ends_at_s:
                    return Failure(FallbackReason.TIMEOUT, "no connection within the time limit")
                failure = Failure(FallbackReason.CONNECT_FAILED, "no connection in time")
                now_s = loop.time()
            except ssl.SSLError as error:
                failure = Failure(FallbackReason.CONNECT_FAILED, f"TLS failed: {_tls_words(error)}")
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                if error.errno in _OUR_OWN_LIMITS:
                    return Failure(
                        FallbackReason.INFRASTRUCTURE, f"the arena cannot connect: {why}"
                    )
                failure = Failure(FallbackReason.CONNECT_FAILED, f"cannot connect: {why}")
        return failure

    async def _dial(self, loop: asyncio.AbstractEventLoop, address: Address) -> _Connection:
        """The only place from which a packet of ours sets out to an agent."""
        self._admit(address)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        dialled = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(dialled, (str(address), self._target.port))
            _, connection = await loop.create_connection(
                _Connection,
                sock=dialled,
                ssl=self._tls,
                server_hostname=self._target.host.strip("[]") if self._tls is not None else None,
            )
        except BaseException:
            dialled.close()
            raise
        return connection


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return error.reason or str(error)
