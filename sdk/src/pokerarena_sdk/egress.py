"""Reaching an approved host from a sandbox: HTTP through the arena's egress proxy.

Owns the way from a request to the proxy's socket. A sandbox has no network; a version whose manifest
declares hosts, and for which an operator approved them, finds a socket that speaks HTTP CONNECT. TLS
runs from the agent to the host: the proxy sees none of it. Where there is no such socket, as on one's
own machine, connections are made directly.

    from pokerarena_sdk import egress
    with egress.opener().open(request, timeout=1.5) as response: ...
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import urllib.request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET_PATH = "/run/egress.sock"
_MAX_REPLY_BYTES = 8 * 1024


class EgressRefused(OSError):
    """The proxy let the request not pass; the message says why."""


def available() -> bool:
    """Whether there is a way out: a host of the manifest was approved before this sandbox began."""
    return os.path.exists(SOCKET_PATH)  # noqa: PTH110 - pathlib is slow to import


def connect(host: str, port: int, timeout: float | None = None) -> socket.socket:
    """A connected socket to an approved host, as from `socket.create_connection`."""
    if not available():
        return socket.create_connection((host, port), timeout)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.settimeout(timeout)
        one.connect(SOCKET_PATH)
        name = f"{host}:{port}"
        one.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode("ascii"))
        status = _reply(one).split(b"\r\n", 1)[0].decode("latin-1")
        if status.split(" ")[1:2] != ["200"]:
            raise EgressRefused(f"the egress proxy says: {status.partition(' ')[2] or 'nothing'}")
    except BaseException:
        one.close()
        raise
    return one


class HTTPConnection(http.client.HTTPConnection):
    """As in `http.client`, through the proxy. Plain HTTP passes only where an operator allows it."""

    def connect(self) -> None:
        self.sock = connect(self.host, self.port, _seconds(self.timeout))


class HTTPSConnection(http.client.HTTPSConnection):
    """As in `http.client`, through the proxy; the host's certificate is checked as always."""

    def __init__(self, host: str, *rest: Any, context: ssl.SSLContext | None = None, **more: Any):
        self._through = context or ssl.create_default_context()
        super().__init__(host, *rest, context=self._through, **more)

    def connect(self) -> None:
        one = connect(self.host, self.port, _seconds(self.timeout))
        try:
            self.sock = self._through.wrap_socket(one, server_hostname=self.host)
        except BaseException:
            one.close()
            raise


def opener(context: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    """An opener of `urllib.request` whose requests go through the proxy."""
    return urllib.request.build_opener(
        # Proxies of the environment are somebody else's.
        urllib.request.ProxyHandler({}),
        _Plain(),
        _Secure(context=context or ssl.create_default_context()),
    )


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(HTTPConnection, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._through = context

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(HTTPSConnection, req, context=self._through)


def _reply(one: socket.socket) -> bytes:
    """The head of the proxy's reply, and not a byte of what comes after it."""
    reply = b""
    while not reply.endswith(b"\r\n\r\n"):
        byte = one.recv(1)
        if not byte or len(reply) >= _MAX_REPLY_BYTES:
            raise EgressRefused("the egress proxy hung up")
        reply += byte
    return reply


def _seconds(timeout: Any) -> float | None:
    """`http.client` marks a missing timeout with an object of its own."""
    return float(timeout) if isinstance(timeout, (int, float)) else None
