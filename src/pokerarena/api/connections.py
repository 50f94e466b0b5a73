"""Connections that say nothing: bounded in time and in number.

The server's protocol waits for ever for the head of a request, and takes connections until there is
no file left. Here a head has a time limit; and when there is one connection too many, the one that
is silent for longest is closed. Whoever says at once what it wants is never the one, however many
others hold connections. It must never touch a connection while its request is worked on.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from pokerarena.telemetry import get_logger

# Files that a process has open beside its clients' connections: the database's, logs, code.
OTHER_FILES = 256

# Where a request's state holds its connection.
CONNECTION = "connection"
# What lies in the system for a client that does not take it; else that grows to megabytes for each.
SEND_BUFFER_BYTES = 256 * 1024
# SO_LINGER: on, for no time.
RESET_AT_ONCE = struct.pack("ii", 1, 0)

log = get_logger("api.server")


class Silence:
    """The connections of a process between requests, or before the first; the longest first."""

    def __init__(self, head_timeout_s: float, send_timeout_s: float, connections_max: int) -> None:
        self.head_timeout_s = head_timeout_s
        self.send_timeout_s = send_timeout_s
        self.connections_max = connections_max
        self.connections: dict[Impatient, None] = {}


class Impatient(H11Protocol):
    """One connection."""

    def __init__(self, silence: Silence, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        # Whoever serves a request may have to end its connection.
        self.app_state = {**self.app_state, CONNECTION: self}
        self._silence = silence
        self._patience: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        silent = self._silence.connections
        if len(self.connections) > self._silence.connections_max:
            # Where nobody is silent, there is no room.
            next(iter(silent), self).close_now()
        self._wait_for_head()
        silent[self] = None

    def data_received(self, data: bytes) -> None:
        if self._idle() and self._patience is None:
            self._wait_for_head()
        super().data_received(data)
        if not self._idle():
            self._head_is_there()

    def on_response_complete(self) -> None:
        self._silence.connections[self] = None
        # This takes the next request of a client that sends several at once.
        super().on_response_complete()
        if not self._idle():
            self._head_is_there()
        # An answer is complete when it was handed over, and may lie here for ever: a connection
        # that is closed still waits until all of it was taken.
        if self._untaken is None and self.transport.get_write_buffer_size():
            self._untaken = self.loop.call_later(self._silence.send_timeout_s, self._end_untaken)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        if self._untaken is not None:
            self._untaken.cancel()
        super().connection_lost(exc)

    def close_now(self) -> None:
        """Nobody waits for this client any more."""
        self._head_is_there()
        # Also one that is closing, which waits for its client.
        self._forget_unsent()
        self.transport.abort()

    def _end_untaken(self) -> None:
        self._untaken = None
        if self.transport.get_write_buffer_size():
            self.close_now()

    def _forget_unsent(self) -> None:
        """Have the system drop what the client never took, which it would else keep for minutes."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(self._silence.head_timeout_s, self.close_now)

    def _head_is_there(self) -> None:
        self._silence.connections.pop(self, None)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def room_for(connections_max: int) -> int:
    """As many connections as the system lets this process have, and at most so many.

    A process without a free file descriptor can accept nobody, not even to say no.
    """
    wanted = connections_max + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            log.warning("connections_bounded_by_system", files_max=soft, wanted=wanted)
            return max(1, soft - OTHER_FILES)
    return connections_max
