"""Clients that are slow, deep, long or curious: bounded, and no harm to others."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokerarena.api.json_shape import Excess, JsonShape
from pokerarena.api.patience import Patience
from tests.api.arena import Arena
from tests.api.crowd import Crowd
from tests.api.served import Server

DOCUMENTS = st.recursive(
    st.none() | st.text(alphabet='[]{}"\\a') | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[]{}'), inner),
    max_leaves=20,
)


def values(document: object) -> int:
    """As the shape counts: an empty list counts as if it held something."""
    inner: list[object] = []
    if isinstance(document, list):
        inner = document
    elif isinstance(document, dict):
        inner = list(document.values())
    else:
        return 1
    return 1 + max(1, sum(map(values, inner)))


def depth(document: object) -> int:
    if isinstance(document, list):
        return 1 + max(map(depth, document), default=0)
    if isinstance(document, dict):
        return 1 + max(map(depth, document.values()), default=0)
    return 0


@settings(deadline=None)
@given(DOCUMENTS, st.lists(st.integers(0, 200), max_size=6))
def test_depth_and_values_are_those_of_the_document_however_it_is_cut(
    document: object, cuts: list[int]
) -> None:
    body = json.dumps(document).encode()
    edges = sorted({0, *(min(cut, len(body)) for cut in cuts), len(body)})
    deep, many = depth(document), values(document)
    for depth_max, values_max, excess in (
        (deep, many, None),
        (deep - 1, 10**6, Excess.DEPTH if deep else None),
        (10**6, many - 1, Excess.VALUES if many > 1 else None),
    ):
        shape = JsonShape(depth_max, values_max)
        found = [shape.feed(body[begin:end]) for begin, end in itertools.pairwise(edges)]
        assert next(filter(None, found), None) is excess, body


async def test_a_body_that_nests_too_deep_is_refused(arena: Arena) -> None:
    user = await arena.user("deep")
    for chunks in ([b"[" * 40], [b"[" * 20, b"[" * 20], [b'{"a":' * 33 + b"1" + b"}" * 33]):
        headers = {"content-type": "application/json"}
        reply = await user.request("POST", "/v1/tables", raw=chunks, headers=headers)
        assert (reply.status, reply.code) == (422, "body_too_deep"), reply


async def test_a_body_of_too_many_values_is_refused(arena: Arena) -> None:
    user = await arena.user("many")
    headers = {"content-type": "application/json"}
    for raw in (b"[" + b"[]," * 5_000 + b"1]", b"{" + b'"a":1,' * 5_000 + b'"b":1}'):
        reply = await user.request("POST", "/v1/tables", raw=raw, headers=headers)
        assert (reply.status, reply.code) == (422, "body_too_many_values"), reply
        assert reply.headers["connection"] == "close"


async def test_a_url_that_is_too_long_is_refused(arena: Arena) -> None:
    reply = await arena.anonymous.get("/v1/tables?cursor=" + "x" * 5000)
    assert (reply.status, reply.code) == (414, "url_too_long")


async def test_no_other_site_may_ask_in_a_browser(arena: Arena) -> None:
    for method in ("OPTIONS", "GET", "POST"):
        reply = await arena.anonymous.request(
            method,
            "/v1/tables",
            headers={
                "origin": "https://elsewhere.example",
                "access-control-request-method": "POST",
            },
        )
        assert not [name for name in reply.headers if name.startswith("access-control-")]
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_thousand_slow_clients_disturb_nobody_and_are_let_go(database_url: str) -> None:
    """Silent, half a line, endless heads, bodies that stall or drip, answers that nobody takes."""
    server = Server(
        database_url,
        POKERARENA_API_HEADERS_TIMEOUT_S="4",
        POKERARENA_API_BODY_TIMEOUT_S="4",
        POKERARENA_API_SEND_TIMEOUT_S="4",
        POKERARENA_API_WAITS_MAX="200",
        POKERARENA_TABLES_PER_USER_MAX="10000",
        # Fewer than want to be worked on: whoever is only waited for takes nobody's place.
        POKERARENA_API_REQUESTS_MAX="300",
        POKERARENA_STREAM_MAX_PER_PROCESS="1",
        POKERARENA_API_CONNECTIONS_MAX="700",
        # Nobody reads its log, and it would wait for that.
        POKERARENA_LOG_LEVEL="ERROR",
    )
    crowd = None
    try:
        server.log_in("normal")
        crowd = Crowd(server.port, 1000)
        give_up_s = time.monotonic() + 90
        while held := crowd.let_go():
            assert time.monotonic() < give_up_s, f"{held} slow clients are still served"
            for _ in range(3):
                server.ok("GET", "/v1/tables")
            server.ok("POST", "/v1/tables", {"name": "Quick"})
            # A drip does not buy more time.
            crowd.drip()
            time.sleep(0.2)
    finally:
        if crowd is not None:
            crowd.close()
        server.stop()


def test_the_longest_wait_is_given_up_when_there_is_one_too_many() -> None:
    async def scenario() -> list[str]:
        patience, ends = Patience(2), []

        async def wait(name: str, asked: asyncio.Future[None]) -> None:
            one = patience.begin()
            try:
                await one.part(60, asked)
                ends.append(f"{name} answered")
            except TimeoutError:
                ends.append(f"{name} given up")
            finally:
                patience.end(one)

        loop = asyncio.get_running_loop()
        asked = [loop.create_future() for _ in range(3)]
        tasks = [asyncio.create_task(wait(str(no), future)) for no, future in enumerate(asked)]
        while len(ends) < 1:
            await asyncio.sleep(0)
        assert len(patience) == 2
        for future in asked[1:]:
            future.set_result(None)
        await asyncio.gather(*tasks)
        assert len(patience) == 0
        # Given up between two parts of it, a wait has no other part.
        one = patience.begin()
        one.give_up()
        with pytest.raises(TimeoutError):
            await one.part(60, loop.create_future())
        return ends

    assert asyncio.run(scenario()) == ["0 given up", "1 answered", "2 answered"]


def test_a_connection_that_is_used_again_may_take_its_time_between_requests(
    database_url: str,
) -> None:
    server = Server(database_url, POKERARENA_API_HEADERS_TIMEOUT_S="2")
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            for _ in range(2):
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while b'"ok"' not in answer:
                    chunk = client.recv(65_536)
                    assert chunk, answer
                    answer += chunk
                time.sleep(3)  # longer than a head may take, shorter than a connection may rest
    finally:
        server.stop()
