"""The API as a process of its own, behind a real socket."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from pokerarena.api.server import run_api
from pokerarena.errors import ConfigurationError
from tests.api.arena import PASSWORD, settings_for
from tests.api.served import Server


@pytest.fixture
def serve(database_url: str) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(**environment: str) -> Server:
        servers.append(Server(database_url, **environment))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def test_it_serves_a_user_and_ends_quickly_with_a_stream_open(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    server.log_in("alice")
    assert server.ok("GET", "/readyz")["status"] == "ready"
    table = server.ok("POST", "/v1/tables", {"name": "Open", "visibility": "public"})
    status, _, headers = server.request("GET", f"/v1/tables/{table['id']}")
    assert status == 200
    assert "server" not in {name.lower() for name in headers}

    watching = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    watching.request("GET", f"/v1/tables/{table['id']}/live")
    stream = watching.getresponse()
    assert stream.status == 200
    assert stream.readline() == b"retry: 2000\n"

    began = time.monotonic()
    code, logged = server.stop()
    assert time.monotonic() - began < 10
    assert code == 0
    rest = stream.read()
    assert rest.endswith(b'event: end\ndata: {"reason":"shutdown"}\n\n'), rest
    watching.close()
    events = [line["event"] for line in logged]
    assert events[0] == "api_listening"
    assert events[-1] == "api_stopped"
    assert events.count("request") >= 5
    assert PASSWORD not in str(logged)
    assert server.token is not None
    assert server.token not in str(logged)
    assert {line["role"] for line in logged} == {"api"}


def test_a_refused_body_ends_the_connection_and_not_the_server(
    serve: Callable[..., Server],
) -> None:
    server = serve(POKERARENA_API_MAX_BODY_BYTES="2048", POKERARENA_API_BODY_TIMEOUT_S="1")
    head = b"POST /v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    smuggled = b"GET /v1/tables HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = server.raw(head + b"Content-Length: 999999999\r\n\r\n", smuggled)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1 ") == 1, "what follows is not taken for another request"
    chunk = b"400\r\n" + b" " * 0x400 + b"\r\n"
    answer = server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 3)
    assert answer.startswith(b"HTTP/1.1 413 ")
    began = time.monotonic()
    answer = server.raw(head + b"Content-Length: 100\r\n\r\n{", wait_s=10)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 8
    assert server.raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert server.ok("GET", "/healthz") == {"status": "ok"}
    code, _ = server.stop()
    assert code == 0


def test_an_address_in_use_is_told_in_one_line(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"cannot listen on 127\.0\.0\.1") as refused:
            run_api(settings_for(database_url), "127.0.0.1", port)
    assert "POKERARENA_API_PORT" in refused.value.message
    assert "\n" not in refused.value.message
