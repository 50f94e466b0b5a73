"""The author of an agent gets told what is wrong, with what was asked, and an exit code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.ops.test_cli import here

Answer = Callable[[bytes], tuple[int, bytes]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    servers: list[ThreadingHTTPServer] = []

    def serve_agent(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                status, body = answer(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve_agent
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_agent_that_always_raises_to_one_is_shown_what_it_was_asked(
    serve: Callable[[Answer], str],
) -> None:
    url = serve(lambda _: (200, b'{"action": "raise", "amount": 1}'))
    done = here("agent", "check", url, "--hands", "2")
    assert done.returncode == 1
    assert "ERROR" in done.stdout
    assert '"legal_actions"' in done.stdout
    assert 'answered: {"action": "raise", "amount": 1}' in done.stdout
    assert "times more" in done.stdout, "the same mistake fills the page"
    assert done.stdout.splitlines()[-1].startswith("failed: ")


def test_what_an_agent_answers_cannot_write_to_the_terminal(
    serve: Callable[[Answer], str],
) -> None:
    url = serve(lambda _: (200, b"\x1b[2J\x07 not JSON"))
    done = here("agent", "check", url, "--hands", "1")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout


def test_an_agent_that_is_not_there_fails_at_once() -> None:
    done = here("agent", "check", "http://127.0.0.1:9/", "--time-ms", "300")
    assert done.returncode == 1
    assert "failed: " in done.stdout


def test_a_url_that_is_none_is_wrong_usage() -> None:
    done = here("agent", "check", "ftp://127.0.0.1/")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "scheme" in done.stderr
