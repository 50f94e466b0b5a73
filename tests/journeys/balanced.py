"""API processes behind a balancer, and clients that keep their connections.

Owns: who is ready, what each client sent, and what came back that should not have. The balancer is
as simple as they are: it asks `/readyz` now and then, and sends nobody to a process that says no.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from typing import Any, Final

from tests.api.served import Server

LOOK_EVERY_S: Final = 0.1
# Far longer than the balancer, and a client between two requests, may take to notice.
DRAIN_S: Final = 3.0
START_WITHIN_S: Final = 60.0
SEND_TIMEOUT_S: Final = 30.0


class Balanced:
    """Some API processes on one database, replaced one by one."""

    def __init__(self, database_url: str, count: int) -> None:
        self._database_url = database_url
        self._over = threading.Event()
        self._turn = itertools.count()
        self.servers = [self._start() for _ in range(count)]
        self._ready: tuple[int, ...] = ()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    def _start(self) -> Server:
        return Server(
            self._database_url,
            POKERARENA_LOG_LEVEL="ERROR",
            POKERARENA_API_DRAIN_S=str(DRAIN_S),
            POKERARENA_TABLES_PER_USER_MAX="1000000",
        )

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            ready = []
            for server in list(self.servers):
                try:
                    if server.request("GET", "/readyz")[0] == http.client.OK:
                        ready.append(server.port)
                except (OSError, http.client.HTTPException):
                    continue
            self._ready = tuple(ready)

    def port(self) -> int:
        """One that is ready."""
        give_up_s = time.monotonic() + START_WITHIN_S
        while not (ready := self._ready):
            assert time.monotonic() < give_up_s, "nobody is ready"
            time.sleep(0.02)
        return ready[next(self._turn) % len(ready)]

    def is_ready(self, port: int) -> bool:
        return port in self._ready

    def restart_one_by_one(self) -> None:
        """As a rolling update does: the next one goes when the one before is replaced."""
        for at, server in enumerate(self.servers):
            server.process.terminate()
            assert server.process.wait(START_WITHIN_S) == 0
            server.process.communicate()
            self.servers[at] = self._start()
            give_up_s = time.monotonic() + START_WITHIN_S
            while not self.is_ready(self.servers[at].port):
                assert time.monotonic() < give_up_s, "the new one is never ready"
                time.sleep(0.05)

    def close(self) -> None:
        self._over.set()
        self._looking.join()
        for server in self.servers:
            server.process.kill()
            server.process.communicate()


class Client(threading.Thread):
    """Sends one request after the other over a connection that it keeps, until told to stop.

    A connection that broke after a request was sent is a failed request: it never sends one again.
    """

    def __init__(self, balanced: Balanced, token: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._balanced = balanced
        self._token = token
        self._over = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self.answers: Counter[int] = Counter()
        self.kept = 0
        self.failures: list[str] = []

    def run(self) -> None:
        for number in itertools.count():
            if self._over.is_set():
                break
            try:
                self._send("GET", "/v1/tables?mine=true&limit=5", None)
                self._send("POST", "/v1/tables", {"name": f"{self.name} {number}"})
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"request {number}: {type(error).__name__}: {error}")
                self._connection = None
            time.sleep(0.01)
        if self._connection is not None:
            self._connection.close()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _connect(self) -> http.client.HTTPConnection:
        while True:
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._balanced.port(), timeout=SEND_TIMEOUT_S
            )
            try:
                connection.connect()
            except ConnectionRefusedError:
                # Nothing was sent: every balancer takes another one then.
                time.sleep(0.02)
                continue
            return connection

    def _send(self, method: str, path: str, body: Any) -> None:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
        else:
            self.kept += 1
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        reply = connection.getresponse()
        answer = reply.read()
        self.answers[reply.status] += 1
        if reply.status == http.client.SERVICE_UNAVAILABLE and reply.getheader("Retry-After"):
            time.sleep(0.1)
        elif reply.status >= http.client.BAD_REQUEST:
            self.failures.append(f"{method} {path}: {reply.status} {answer[:200]!r}")
        if reply.will_close:
            connection.close()
            self._connection = None


class Watcher(threading.Thread):
    """Holds a live stream open, and opens another when it is told that this one ends."""

    def __init__(self, balanced: Balanced, path: str) -> None:
        super().__init__(name="watcher", daemon=True)
        self._balanced = balanced
        self._path = path
        self._over = threading.Event()
        self.streams = 0
        self.ends: list[str] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._over.is_set():
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._balanced.port(), timeout=SEND_TIMEOUT_S
            )
            try:
                connection.request("GET", self._path)
                reply = connection.getresponse()
                if reply.status == http.client.SERVICE_UNAVAILABLE:
                    assert reply.getheader("Retry-After")
                    time.sleep(0.1)
                    continue
                assert reply.status == http.client.OK, reply.read()
                self.streams += 1
                last = ""
                while not self._over.is_set() and (line := reply.readline()):
                    last = line.decode().strip() or last
                self.ends.append(last)
                if not self._over.is_set() and "shutdown" not in last:
                    self.failures.append(f"a stream broke off after {last!r}")
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            finally:
                connection.close()

    def stop(self) -> None:
        self._over.set()
        self.join()
