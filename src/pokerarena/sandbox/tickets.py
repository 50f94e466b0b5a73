"""Handing open descriptors from an agent-host to a worker on the same machine.

Owns the second socket beside the agent-host's: whoever shows a ticket there, which travelled over
the authenticated connection, gets the descriptors it stands for, once. So a worker talks to a
sandbox's pipes directly, and no process of ours stands between them in a turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from pathlib import Path
from typing import Final

from pokerarena.errors import Unavailable

TICKET_BYTES: Final = 32
TICKET_LIFETIME_S: Final = 10.0
FD_COUNT: Final = 5
_TIMEOUT_S: Final = 5.0
_WAITING_MAX: Final = 64


def counter_path(socket_path: Path) -> Path:
    """Where tickets are shown, given where the agent-host listens."""
    return socket_path.with_name(socket_path.name + ".fds")


class TicketCounter:
    """The agent-host's side."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._offers: dict[bytes, tuple[tuple[int, ...], asyncio.TimerHandle]] = {}
        self._visits: set[asyncio.Task[None]] = set()
        path.unlink(missing_ok=True)
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        path.chmod(0o660)
        self._listener.listen(_WAITING_MAX)
        self._loop.add_reader(self._listener, self._on_visitor)

    def offer(self, fds: tuple[int, ...]) -> bytes:
        """A ticket for these descriptors, which are ours to close from now on."""
        ticket = secrets.token_bytes(TICKET_BYTES)
        timer = self._loop.call_later(TICKET_LIFETIME_S, self._withdraw, ticket)
        self._offers[ticket] = (fds, timer)
        return ticket

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for visit in self._visits:
            visit.cancel()
        for ticket in list(self._offers):
            self._withdraw(ticket)

    def _withdraw(self, ticket: bytes) -> None:
        offer = self._offers.pop(ticket, None)
        if offer is not None:
            offer[1].cancel()
            for fd in offer[0]:
                os.close(fd)

    def _on_visitor(self) -> None:
        try:
            visitor, _ = self._listener.accept()
        except OSError:
            return
        visit = self._loop.create_task(self._serve(visitor))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _serve(self, visitor: socket.socket) -> None:
        with visitor:
            visitor.setblocking(False)
            ticket = b""
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_TIMEOUT_S):
                    while len(ticket) < TICKET_BYTES:
                        part = await self._loop.sock_recv(visitor, TICKET_BYTES - len(ticket))
                        if not part:
                            return
                        ticket += part
                offer = self._offers.get(ticket)
                if offer is not None:
                    socket.send_fds(visitor, [b"."], list(offer[0]))
            self._withdraw(ticket)


async def collect(path: Path, ticket: bytes) -> tuple[int, ...]:
    """The worker's side: the descriptors for a ticket. Raises `Unavailable`."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as counter:
        counter.setblocking(False)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await loop.sock_connect(counter, str(path))
                await loop.sock_sendall(counter, ticket)
                await readable(loop, counter)
                _, fds, _, _ = socket.recv_fds(counter, 1, FD_COUNT, socket.MSG_CMSG_CLOEXEC)
        except (OSError, TimeoutError) as error:
            raise Unavailable(
                "agent_host_unreachable", f"The agent-host gave no descriptors: {error}."
            ) from None
    if len(fds) != FD_COUNT:
        for fd in fds:
            os.close(fd)
        raise Unavailable("agent_host_unreachable", "The agent-host gave no descriptors.")
    return tuple(fds)


async def readable(loop: asyncio.AbstractEventLoop, one: socket.socket) -> None:
    """Wait until something can be received, descriptors perhaps."""
    ready: asyncio.Future[None] = loop.create_future()

    def on_readable() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(one, on_readable)
    try:
        await ready
    finally:
        loop.remove_reader(one)
