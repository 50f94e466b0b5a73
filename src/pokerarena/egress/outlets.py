"""A sandbox's way out, as the egress proxy keeps it.

Owns what one sandbox may reach at this moment, its connections, and that those which are no longer
allowed end. It never looks at what passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pokerarena import metrics
from pokerarena.egress import grants
from pokerarena.egress.grants import EgressGrant
from pokerarena.egress.meters import EgressLimits, LimitReached, Meter, MeterBook, Pace
from pokerarena.egress.policy import Address, EgressPolicy
from pokerarena.egress.resolve import Resolve
from pokerarena.egress.tunnels import Dial, Refused, Streams, Tunnel, reach, read_request
from pokerarena.errors import Unauthenticated
from pokerarena.service_identity.tokens import TokenJudge
from pokerarena.telemetry import get_logger

log = get_logger("egress.outlets")

_SHOWN_CHARS: Final = 100
_ACCEPT_AGAIN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class ProxyParts:
    """What all outlets of one proxy share."""

    judge: TokenJudge
    frame: EgressPolicy
    limits: EgressLimits
    resolve: Resolve
    dial: Dial
    owns: Callable[[Address], bool]
    clock: Callable[[], float]
    book: MeterBook


class Outlet:
    """One sandbox's way out: who it is, what it may reach, and its connections."""

    def __init__(self, parts: ProxyParts, listener: socket.socket) -> None:
        self._parts = parts
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._grant: EgressGrant | None = None
        self._policy = parts.frame
        self._pace = Pace(parts.limits.bytes_per_second, time.monotonic)
        self._connections: dict[asyncio.Task[None], str] = {}
        self._lapse: asyncio.TimerHandle | None = None
        self._meter: Meter | None = None
        self._whose: dict[str, str] = {}
        self._warned = False
        listener.setblocking(False)
        self._accepting = self._loop.create_task(self._accept())

    def take(self, line: bytes) -> bytes:
        """Go by this grant from now on, or by none for an empty line; the reply."""
        grant: EgressGrant | None = None
        reply = b"ok\n"
        if self._lapse is not None:
            self._lapse.cancel()
        if line:
            try:
                grant, ends_s = grants.read(self._parts.judge, line.decode("ascii", "replace"))
                if self._whose and grant[:2] != tuple(self._whose.values()):
                    raise Unauthenticated("egress_grant_refused", "The grant is for another run.")
            except Unauthenticated as error:
                grant = None
                reply = b"refused %s\n" % error.message.encode()
                log.warning("egress_grant_refused", why=error.message)
            else:
                self._lapse = self._loop.call_later(
                    max(0.0, ends_s - self._parts.clock()), self.take, b""
                )
        if grant is not None:
            self._policy = grant.policy(self._parts.frame)
            self._meter = self._parts.book.of(grant.version_id, grant.run_id)
            self._whose = {"version_id": grant.version_id, "run_id": grant.run_id}
        # Which addresses a connection leads to is not kept: under other rules it begins anew.
        other_rules = grant is None or self._grant is None or grant[3:] != self._grant[3:]
        self._grant = grant
        for task, destination in self._connections.items():
            if destination and (other_rules or grant is None or destination not in grant.hosts):
                task.cancel()
        return reply

    async def close(self) -> None:
        if self._lapse is not None:
            self._lapse.cancel()
        tasks = [self._accepting, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                agent, _ = await self._loop.sock_accept(self._listener)
            except OSError:
                # Out of descriptors, most likely: whoever waits, waits on.
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            agent.setblocking(False)
            # The attempt counts, whatever comes of it: so do the lines that are logged of it.
            refusal = _count(self._meter) if self._meter is not None else None
            if len(self._connections) >= self._parts.limits.connections_max:
                # Closed without a word: to write one would mean to wait for whoever floods.
                metrics.EGRESS_CONNECTIONS.number("limited").add()
                agent.close()
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            task = self._loop.create_task(self._serve(agent, refusal))
            self._connections[task] = ""
            task.add_done_callback(lambda done: self._connections.pop(done, None))
            if refusal is not None:
                # Who floods waits in its own queue, and not in the others' way.
                await asyncio.sleep(_ACCEPT_AGAIN_S)

    async def _serve(self, agent: socket.socket, refusal: Refused | None) -> None:
        reader, writer = await asyncio.open_unix_connection(
            sock=agent, limit=self._parts.limits.head_max_bytes
        )
        destination = ""
        try:
            if self._meter is None:
                return
            # Refused after the request was read, or the answer might be lost with it.
            try:
                host, port = await read_request(reader, self._parts.limits)
                destination = f"{host}:{port}"
                if refusal is None:
                    await self._pass((reader, writer), self._meter, host, port)
            except Refused as refused:
                refusal = refusal or refused
            if refusal is not None:
                self._count_refusal(destination, refusal)
                await self._say_no(writer, refusal)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            await _hang_up(writer)

    async def _pass(self, agent: Streams, meter: Meter, host: str, port: int) -> None:
        parts, grant, destination = self._parts, self._grant, f"{host}:{port}"
        if grant is None:
            raise Refused(403, "this version may reach nothing now")
        if destination not in grant.hosts:
            raise Refused(403, f"{destination[:_SHOWN_CHARS]} is not approved for this version")
        task = asyncio.current_task()
        assert task is not None, "it runs as one"
        # From here on a change of the grant ends this connection.
        self._connections[task] = destination
        began_s = self._loop.time()
        remote = await reach(
            host, port, self._policy, parts.limits,
            resolve=parts.resolve, dial=parts.dial, owns=parts.owns,
        )  # fmt: skip
        tunnel = Tunnel(agent, remote, meter, self._pace, parts.limits, plain=grant.plain)
        end = "no longer allowed"
        try:
            agent[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            end = await tunnel.run()
        finally:
            remote[1].transport.abort()
            metrics.EGRESS_CONNECTIONS.number("passed").add()
            metrics.EGRESS_BYTES.number("up").add(tunnel.bytes_up)
            metrics.EGRESS_BYTES.number("down").add(tunnel.bytes_down)
            log.info(
                "egress_passed",
                **self._whose,
                destination=destination,
                bytes_up=tunnel.bytes_up,
                bytes_down=tunnel.bytes_down,
                duration_ms=round((self._loop.time() - began_s) * 1000),
                end=end,
            )

    async def _say_no(self, writer: asyncio.StreamWriter, refused: Refused) -> None:
        reason = str(refused).encode("ascii", "replace")
        writer.write(
            b"HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            % (refused.status, reason)
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._parts.limits.head_timeout_ms / 1000):
                await writer.drain()

    def _count_refusal(self, destination: str, refused: Refused) -> None:
        limited = refused.status == http.HTTPStatus.TOO_MANY_REQUESTS
        metrics.EGRESS_CONNECTIONS.number("limited" if limited else "refused").add()
        # The rate of connections bounds the other lines; this one would follow it upwards.
        if not limited or not self._warned:
            self._warned = self._warned or limited
            log.warning(
                "egress_refused",
                **self._whose,
                destination=destination[:_SHOWN_CHARS],
                status=refused.status,
                why=str(refused),
            )


def _count(meter: Meter) -> Refused | None:
    try:
        meter.connect()
    except LimitReached as reached:
        return Refused(429, str(reached))
    return None


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close; whoever does not read what is left for it does not keep us."""
    writer.close()
    try:
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
