"""Our own client sends a change under one key, again until it is answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pokerarena.errors import Invalid, Unavailable
from pokerarena.ops import api_client
from pokerarena.ops.api_client import ApiClient
from pokerarena.retrying import RetryPolicy

LOST: dict[str, Any] = {}
BUSY = {"status": 503, "code": "database_full", "detail": "Full.", "retry_after": "1"}
IN_PROGRESS = {"status": 409, "code": "idempotency_in_progress", "detail": "Still."}


def granted(number: int) -> dict[str, Any]:
    tokens = {"access_token": f"access {number}", "refresh_token": f"refresh {number}"}
    return {"status": 200, "expires_at": "2999-01-01T00:00:00Z", **tokens}


class Scripted:
    """Answers as it is told, and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.sent: list[tuple[str, str | None, str | None]] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
                scripted.sent.append((self.path, self.headers.get("Idempotency-Key"), token))
                answer = dict(scripted.answers.pop(0))
                if not answer:
                    self.close_connection = True
                    return
                body = json.dumps(answer).encode()
                self.send_response(answer["status"])
                if "retry_after" in answer:
                    self.send_header("Retry-After", answer["retry_after"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.client = ApiClient(f"http://127.0.0.1:{self.server.server_port}")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(api_client, "RETRIES", RetryPolicy(0.001, 0.001, attempts_max=4))
    monkeypatch.setattr(api_client, "RETRY_AFTER_MAX_S", 0.01)
    made = Scripted()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_change_is_sent_again_under_its_key_until_it_is_answered(scripted: Scripted) -> None:
    scripted.answers = [LOST, BUSY, IN_PROGRESS, {"status": 201, "id": "run_1"}]
    assert scripted.client.post("/v1/runs", {"hands": 3})["id"] == "run_1"
    keys = {key for _, key, _ in scripted.sent}
    assert len(scripted.sent) == 4
    assert len(keys) == 1
    scripted.answers = [{"status": 201}]
    scripted.client.post("/v1/runs", {"hands": 3})
    assert scripted.sent[-1][1] not in keys, "another order is another request"


def test_it_gives_up_with_what_was_said_last(scripted: Scripted) -> None:
    scripted.answers = [BUSY] * 4
    with pytest.raises(Invalid, match=r"Full\."):
        scripted.client.post("/v1/runs", {})
    scripted.answers = [LOST] * 4
    with pytest.raises(Unavailable):
        scripted.client.get("/v1/runs")


def test_a_refusal_is_not_sent_again(scripted: Scripted) -> None:
    scripted.answers = [{"status": 422, "code": "invalid_request", "detail": "No."}]
    with pytest.raises(Invalid, match=r"No\."):
        scripted.client.post("/v1/runs", {})
    assert len(scripted.sent) == 1


def test_a_session_survives_the_loss_of_the_answer_to_its_refresh(scripted: Scripted) -> None:
    client = scripted.client
    superseded = {"status": 409, "code": "refresh_superseded", "detail": "Another came first."}
    scripted.answers = [granted(1)]
    client.login("alice", "secret")
    client._refresh_at = 0.0
    # The first refresh was made; its answer never came. A new session begins.
    scripted.answers = [LOST, superseded, granted(2), {"status": 200}]
    client.get("/v1/me")
    assert scripted.sent[-1] == ("/v1/me", None, "access 2")


def test_a_session_survives_a_server_that_is_away_when_it_wants_to_refresh(
    scripted: Scripted,
) -> None:
    client = scripted.client
    scripted.answers = [granted(1)]
    client.login("alice", "secret")
    client._refresh_at = 0.0
    scripted.answers = [LOST] * 4
    with pytest.raises(Unavailable):
        client.get("/v1/me")
    scripted.answers = [granted(2), {"status": 200}]
    client.get("/v1/me")
    assert scripted.sent[-1] == ("/v1/me", None, "access 2")
