"""Clients that hold on to a server without letting it finish, in every way that there is."""

from __future__ import annotations

import resource
import socket
from enum import Enum
from typing import Final

HALF_BODY: Final = (
    b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 60000\r\n\r\n" + b'{"username": "' + b"a" * 20_000
)
# More than the buffers of a connection take: what fits into them is sent, and no wait of the server's.
UNREAD: Final = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 40
RECEIVE_BUFFER_BYTES: Final = 4096


class Habit(Enum):
    """How a client dawdles: what it sends at first, and bit by bit afterwards."""

    SILENT = (b"", b"")
    HALF_A_LINE = (b"GET /hea", b"")
    ENDLESS_HEAD = (b"GET /healthz HTTP/1.1\r\nX: 1\r\n", b"Y")
    STALLED_BODY = (HALF_BODY, b"")
    DRIPPED_BODY = (HALF_BODY, b"b")
    NEVER_READS = (UNREAD, b"")


class Crowd:
    """Many slow clients at once, of all habits in turn, from several addresses."""

    def __init__(self, port: int, size: int) -> None:
        _raise_file_limit(size + 200)
        self._port = port
        self.clients: list[tuple[Habit, socket.socket]] = []
        habits = list(Habit)
        for number in range(size):
            self.join(habits[number % len(habits)], f"127.0.0.{2 + number % 50}")

    def join(self, habit: Habit, address: str = "127.0.0.1") -> None:
        """One more."""
        client = socket.socket()
        client.settimeout(20)
        if habit is Habit.NEVER_READS:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        client.bind((address, 0))
        client.connect(("127.0.0.1", self._port))
        client.setblocking(False)
        self.clients.append((habit, client))
        _send(client, habit.value[0])

    def drip(self) -> None:
        """Whoever sends bit by bit sends another bit."""
        for habit, client in self.clients:
            _send(client, habit.value[1])

    def let_go(self) -> int:
        """Forget those whom the server has let go; how many it still holds."""
        held = []
        for habit, client in self.clients:
            if _hung_up(client, reads=habit is not Habit.NEVER_READS):
                client.close()
            else:
                held.append((habit, client))
        self.clients = held
        return len(held)

    def close(self) -> None:
        """All of them leave."""
        for _, client in self.clients:
            client.close()
        self.clients = []


def _send(client: socket.socket, data: bytes) -> None:
    try:
        if data:
            client.send(data)
    except OSError:
        return


def _hung_up(client: socket.socket, *, reads: bool) -> bool:
    try:
        if reads:
            while client.recv(65_536):
                pass
            return True
        # It must not read: what has come stays where it is. A reset is seen without reading.
        return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
    except BlockingIOError:
        return False
    except OSError:
        return True


def _raise_file_limit(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        most = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
