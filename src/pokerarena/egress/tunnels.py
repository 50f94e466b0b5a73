"""One connection through the egress proxy: a CONNECT that is judged, and then bytes both ways.

Owns the reading of the request, in one spelling only; the way from its host to a checked address; and
the bounds on what passes. What passes is never looked at, beyond whether it begins as TLS does, never
kept and never logged.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from pokerarena.egress.meters import EgressLimits, LimitReached, Meter, Pace
from pokerarena.egress.policy import Address, EgressDenied, EgressPolicy
from pokerarena.egress.resolve import Resolve, ResolveFailed, check_resolved

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[Address, int], Awaitable[Streams]]

_CHUNK_BYTES: Final = 32 * 1024
_TLS_HANDSHAKE: Final = b"\x16\x03"
# One spelling: what a manifest can declare, and nothing that two readers could read differently.
_REQUEST: Final = re.compile(rb"CONNECT ([a-z0-9.-]{1,253}):([1-9][0-9]{0,4}) HTTP/1\.[01]")
_HEADER: Final = re.compile(rb"([A-Za-z0-9-]{1,64}):[ \t]*([\x20-\x7e]{0,1024})")
# A CONNECT has no body, and no second idea of where one would end.
_BODY_HEADERS: Final = (b"content-length", b"transfer-encoding", b"upgrade", b"expect")


class Refused(Exception):
    """A request that is not served: its status, and the sentence that the agent gets."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def read_request(reader: asyncio.StreamReader, limits: EgressLimits) -> tuple[str, int]:
    """The host and port that a CONNECT names. Raises `Refused`, `ConnectionError` or EOF."""
    try:
        async with asyncio.timeout(limits.head_timeout_ms / 1000):
            head = await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        raise Refused(408, "the request did not arrive in time") from None
    except asyncio.LimitOverrunError:
        raise Refused(431, "the request is too large") from None
    return parse_request(head)


def parse_request(head: bytes) -> tuple[str, int]:
    """The host and port that a complete head names. Raises `Refused`."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = _REQUEST.fullmatch(first)
    if found is None:
        if first.startswith(b"CONNECT "):
            raise Refused(400, "write CONNECT host:port HTTP/1.1 with a lower-case host name")
        raise Refused(405, "this proxy knows CONNECT only")
    named = b"%s:%s" % found.groups()
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise Refused(400, "a header is malformed")
        name, value = header[1].lower(), header[2].strip()
        if name in _BODY_HEADERS:
            raise Refused(400, "a CONNECT has no body")
        if name == b"host" and value not in (named, found[1]):
            raise Refused(400, "the request names two hosts")
    return found[1].decode(), int(found[2])


async def reach(
    host: str,
    port: int,
    policy: EgressPolicy,
    limits: EgressLimits,
    *,
    resolve: Resolve,
    dial: Dial,
    owns: Callable[[Address], bool],
) -> Streams:
    """Connect to a checked address of a name, and to no other. Raises `Refused`."""
    try:
        policy.check_host(host, port)
        found = await resolve(host, port)
        addresses = check_resolved(policy, found, owns=owns, at_most=limits.addresses_max)
    except EgressDenied as denied:
        raise Refused(403, f"{host}:{port} is denied: {denied}") from None
    except ResolveFailed as error:
        raise Refused(502, str(error)) from None
    try:
        async with asyncio.timeout(limits.connect_timeout_ms / 1000):
            for address in addresses:
                try:
                    return await dial(address, port)
                except OSError:
                    continue
    except TimeoutError:
        raise Refused(504, f"{host}:{port} cannot be reached in time") from None
    raise Refused(502, f"{host}:{port} cannot be reached")


async def dial_address(address: Address, port: int) -> Streams:
    """A connection to this very address: nothing is resolved any more."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, (str(address), port))
        return await asyncio.open_connection(sock=one, limit=_CHUNK_BYTES)
    except BaseException:
        one.close()
        raise


class Tunnel:
    """Bytes both ways between an agent and a host, within bounds."""

    def __init__(
        self, agent: Streams, remote: Streams, meter: Meter, pace: Pace, limits: EgressLimits,
        *, plain: bool,
    ) -> None:  # fmt: skip
        self._agent = agent
        self._remote = remote
        self._meter = meter
        self._pace = pace
        self._limits = limits
        self._plain = plain
        self._loop = asyncio.get_running_loop()
        self._touched_s = self._loop.time()
        self.bytes_up = 0
        self.bytes_down = 0

    async def run(self) -> str:
        """Pass bytes until both sides have ended, a bound is met, or it is idle for too long; why."""
        ways = [
            self._loop.create_task(self._upwards()),
            self._loop.create_task(self._downwards()),
        ]
        watch = self._loop.create_task(self._watch())
        end = "closed"
        try:
            left = set(ways)
            while left and not watch.done():
                done, _ = await asyncio.wait({*left, watch}, return_when=asyncio.FIRST_COMPLETED)
                left -= done
                for way in done & set(ways):
                    if (error := way.exception()) is not None:
                        end = str(error) if isinstance(error, LimitReached) else "broken"
                        left.clear()
            if watch.done():
                end = watch.result()
        finally:
            for task in (*ways, watch):
                task.cancel()
            await asyncio.gather(*ways, watch, return_exceptions=True)
        return end

    async def _upwards(self) -> None:
        reader, writer = self._agent[0], self._remote[1]
        begun = self._plain
        first = b""
        while data := await reader.read(_CHUNK_BYTES):
            self._meter.up(len(data))
            self.bytes_up += len(data)
            if not begun:
                first += data
                if not first.startswith(_TLS_HANDSHAKE[: len(first)]):
                    raise LimitReached("only TLS may pass here")
                if len(first) < len(_TLS_HANDSHAKE):
                    continue
                begun, data = True, first
            await self._pass_on(writer, data)
        if begun and writer.can_write_eof():
            writer.write_eof()

    async def _downwards(self) -> None:
        reader, writer = self._remote[0], self._agent[1]
        while data := await reader.read(_CHUNK_BYTES):
            self._meter.down(len(data))
            self.bytes_down += len(data)
            await self._pass_on(writer, data)
        if writer.can_write_eof():
            writer.write_eof()

    async def _pass_on(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self._touched_s = self._loop.time()
        writer.write(data)
        await writer.drain()
        await self._pace.take(len(data))
        self._touched_s = self._loop.time()

    async def _watch(self) -> str:
        ends_s = self._loop.time() + self._limits.total_s
        while True:
            now_s = self._loop.time()
            idle_s = self._touched_s + self._limits.idle_s
            if now_s >= ends_s:
                return "open for too long"
            if now_s >= idle_s:
                return "idle for too long"
            await asyncio.sleep(min(ends_s, idle_s) - now_s)
