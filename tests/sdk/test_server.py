"""The SDK as an HTTP agent, checked against the arena's own signatures."""

import http.client
import json
import threading
from contextlib import contextmanager

import pytest

from pokerarena.protocol.signing import new_secret, sign
from pokerarena_sdk.practice import positions
from pokerarena_sdk.server import server

CALLBACK = next(positions())[1]
SECRET = new_secret()
NOW_S = 1_800_000_000


@contextmanager
def serving(**options):
    bound = server(lambda view: view.call(), "127.0.0.1:0", clock=lambda: NOW_S, **options)
    thread = threading.Thread(target=bound.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield bound.server_address[1]
    finally:
        bound.shutdown()
        bound.server_close()


def post(port, body, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/", body=body, headers=headers or {})
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


def signed(body, secret=SECRET, at_s=NOW_S):
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(at_s),
        "webhook-signature": sign(secret, "msg_1", at_s, body),
    }


def test_it_answers_one_callback_and_an_array():
    with serving() as port:
        one = post(port, json.dumps(CALLBACK))
        many = post(port, json.dumps([CALLBACK, CALLBACK | {"decision_id": "other"}]))
    assert one == (200, {"action": "call", "decision_id": CALLBACK["decision_id"]})
    assert [answer["decision_id"] for answer in many[1]] == [CALLBACK["decision_id"], "other"]


def test_what_the_arena_signs_is_accepted():
    body = json.dumps(CALLBACK).encode()
    with serving(secret=SECRET) as port:
        assert post(port, body, signed(body))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(b"another body"),
        signed(json.dumps(CALLBACK).encode(), secret=new_secret()),
        signed(json.dumps(CALLBACK).encode(), at_s=NOW_S - 301),
        signed(json.dumps(CALLBACK).encode(), at_s=NOW_S + 301),
    ],
    ids=["unsigned", "other body", "other secret", "old", "from the future"],
)
def test_nobody_else_gets_an_answer(headers):
    with serving(secret=SECRET) as port:
        status, content = post(port, json.dumps(CALLBACK).encode(), headers)
    assert status == 401
    assert "action" not in content


def test_bad_bodies_are_refused():
    with serving() as port:
        assert post(port, b"{")[0] == 400
        assert post(port, b"[" * 100_000)[0] == 400
        assert post(port, b"", {"content-length": str(1 << 30)})[0] == 413
        assert post(port, b"[3]") == (200, [{"error": "a callback is a JSON object"}])
