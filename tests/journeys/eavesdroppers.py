"""Where telemetry and tokens go to, in the hands of somebody who keeps all of it."""

from __future__ import annotations

import http.client
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_JWT = re.compile(rb"eyJ[\w-]+\.[\w-]+\.[\w-]+")


class Overheard:
    """What came in so far, and the address to which it came."""

    def __init__(self) -> None:
        self.url = ""
        self.parts: list[bytes] = []

    def all(self) -> bytes:
        return b"\n".join(self.parts)


@contextmanager
def collector() -> Iterator[Overheard]:
    """A collector of traces over OTLP/HTTP: paths, headers and bodies as they come."""
    overheard = Overheard()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.headers.get("content-encoding") is None, "a packed body hides what is in it"
            overheard.parts += [self.path.encode(), str(self.headers).encode(), body]
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        overheard.url = f"http://127.0.0.1:{server.server_port}"
        with _serving(server):
            yield overheard


@contextmanager
def false_agent_host(socket_path: Path) -> Iterator[list[bytes]]:
    """Something that listens where an agent-host should: the tokens that workers show it."""
    tokens: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            tokens.extend(_JWT.findall(self.request.recv(16 * 1024)))
            self.request.sendall(b"\0\0\0\2no")

    with (
        socketserver.ThreadingUnixStreamServer(str(socket_path), Handler) as server,
        _serving(server),
    ):
        yield tokens


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def metrics_of(log: Path) -> bytes:
    """The metrics of the process that writes this log, from where the log says they are."""
    ports = [
        event["port"]
        for line in log.read_text().splitlines()
        if line.startswith("{") and (event := json.loads(line))["event"] == "metrics_listening"
    ]
    connection = http.client.HTTPConnection("127.0.0.1", ports[-1], timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()
    finally:
        connection.close()
