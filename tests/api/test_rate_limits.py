"""Whoever asks too often is told so, exactly, and nobody else notices."""

from __future__ import annotations

import asyncio
import concurrent.futures
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from pokerarena.api.access import declared_permissions
from pokerarena.api.app import create_app
from pokerarena.api.pacing import Pace
from pokerarena.api.rate_limits import CLASSES, EndpointClass, RateLimits, class_of
from pokerarena.errors import ConfigurationError
from tests.api.arena import Arena, new_table, settings_for
from tests.api.asgi import Client
from tests.api.conftest import NewArena
from tests.api.redis_server import redis_server
from tests.api.served import Server


async def limited(database_url: str, **changes: Any) -> tuple[FastAPI, Arena]:
    settings = settings_for(database_url, **changes)
    app = create_app(settings)
    return app, Arena(settings, app.state.parts.database, Client(app))


def test_every_class_that_is_named_is_that_of_a_route(database_url: str) -> None:
    routes = set(declared_permissions(create_app(settings_for(database_url))))
    assert set(CLASSES) <= routes
    assert class_of("POST", "/v1/tables") is EndpointClass.WRITE
    assert class_of("GET", "/v1/tables") is EndpointClass.READ


async def test_a_token_has_its_limit_to_the_request(database_url: str) -> None:
    app, arena = await limited(database_url, rate_read_per_min=7)
    async with app.router.lifespan_context(app):
        user = await arena.user("eager")
        replies = [await user.get("/v1/me") for _ in range(10)]
        assert [reply.status for reply in replies] == [200] * 7 + [429] * 3
        assert replies[0].headers["ratelimit-policy"] == '"read";q=7;w=60'
        assert [reply.headers["ratelimit"].split(";")[1] for reply in replies[:7]] == [
            f"r={left}" for left in range(6, -1, -1)
        ]
        refused = replies[-1]
        assert refused.code == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await user.post("/v1/tables", {"name": "T"})).status == 201, "another class"
        other = await arena.user("calm")
        assert (await other.get("/v1/me")).status == 200, "another user"
        again = await arena.login("eager")
        assert (await again.get("/v1/me")).status == 200, "another token has its own"


async def test_all_tokens_of_a_user_have_twice_what_one_has(database_url: str) -> None:
    app, arena = await limited(database_url, rate_read_per_min=5, rate_address_factor=100)
    async with app.router.lifespan_context(app):
        await arena.user("many")
        tokens = [await arena.login("many") for _ in range(4)]
        statuses = [(await token.get("/v1/me")).status for token in tokens for _ in range(5)]
        assert statuses.count(200) == 10


async def test_an_address_that_guesses_is_stopped_before_anything_is_looked_up(
    database_url: str,
) -> None:
    app, arena = await limited(database_url, rate_auth_per_min=5)
    async with app.router.lifespan_context(app):
        body = {"username": "nobody", "password": "wrong horse battery staple"}
        replies = [await arena.anonymous.post("/v1/auth/login", body) for _ in range(7)]
        assert [reply.status for reply in replies] == [401] * 5 + [429] * 2
        assert (await arena.anonymous.get("/healthz")).status == 200


async def test_only_a_trusted_proxy_says_who_asks(database_url: str) -> None:
    """Else everybody could have as many addresses as they can write."""
    body = {"username": "nobody", "password": "wrong horse battery staple"}

    async def ask(client: Client, claimed: str) -> int:
        headers = {"x-forwarded-for": claimed}
        return (await client.request("POST", "/v1/auth/login", body, headers=headers)).status

    for trusted, expected in ((), [401, 401, 429, 429]), (("127.0.0.0/8",), [401] * 4):
        app, arena = await limited(database_url, rate_auth_per_min=2, api_trusted_proxies=trusted)
        async with app.router.lifespan_context(app):
            got = [await ask(arena.anonymous, f"198.51.100.{number}") for number in range(4)]
            assert got == expected, trusted


def test_three_processes_with_one_store_keep_one_limit(database_url: str, tmp_path: Path) -> None:
    limit = 40
    with redis_server(tmp_path) as store:
        servers = [
            Server(
                database_url,
                POKERARENA_RATE_READ_PER_MIN=str(limit),
                POKERARENA_RATE_LIMIT_STORE=store.url,
            )
            for _ in range(3)
        ]
        try:
            servers[0].log_in("spread")
            for server in servers:
                server.token = servers[0].token

            def ask(number: int) -> int:
                return servers[number % 3].request("GET", "/v1/me")[0]

            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                statuses = list(pool.map(ask, range(limit + 50)))
            assert statuses.count(200) == limit
            assert statuses.count(429) == 50

            store.kill()
            assert ask(0) == 200, "without its store an API goes on"
        finally:
            for server in servers:
                server.stop()


async def test_without_its_store_requests_are_let_through_and_it_is_logged(
    database_url: str,
) -> None:
    app, arena = await limited(
        database_url, rate_read_per_min=1, rate_limit_store="redis://127.0.0.1:1/0"
    )
    async with app.router.lifespan_context(app):
        user = await arena.user("lucky")
        statuses = {(await user.get("/v1/me")).status for _ in range(3)}
        assert statuses == {200}
        await new_table(user)


def test_a_store_of_an_unknown_kind_is_refused_at_the_start(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="RATE_LIMIT_STORE must begin with"):
        RateLimits(settings_for(database_url, rate_limit_store="memcached://x"))


async def test_a_flood_of_requests_at_once_is_counted_as_exactly(database_url: str) -> None:
    app, arena = await limited(database_url, rate_write_per_min=10)
    async with app.router.lifespan_context(app):
        user = await arena.user("flood")
        replies = await asyncio.gather(
            *(user.post("/v1/tables", {"name": f"T{number}"}) for number in range(30))
        )
        assert sorted(reply.status for reply in replies) == [201] * 10 + [429] * 20


def test_a_pace_grants_a_burst_and_then_one_after_the_other() -> None:
    now = [100.0]
    pace = Pace(10, 3, lambda: now[0])
    assert [pace.wait_s("a") for _ in range(5)] == pytest.approx([0, 0, 0, 0, 0.1])
    assert pace.wait_s("b") == 0.0, "another caller has its own"
    for _ in range(18):
        assert pace.wait_s("a") is not None
    refused = [pace.wait_s("a") for _ in range(5)]
    assert refused[-2:] == [None, None], "what would wait too long is refused, and waits no longer"
    now[0] += 60
    assert pace.wait_s("a") == 0.0
    assert Pace(0, 1).wait_s("a") == 0.0


async def test_what_comes_far_too_fast_is_refused_before_anything_is_looked_up(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(rate_pace_per_s=0.001, rate_pace_burst=2, rate_address_factor=1000)
    client = arena.anonymous.with_token("pka_" + "0" * 36)
    statuses = [(await client.get("/v1/tables")).status for _ in range(5)]
    assert statuses[:2] == [401, 401]
    reply = await client.get("/v1/tables")
    assert (statuses[-1], reply.status, reply.code) == (429, 429, "rate_limited")
    assert reply.headers["connection"] == "close"
    assert int(reply.headers["retry-after"]) > 0
    # Those who watch the process, and other callers, are not held up: not even one whose token
    # begins like the other's, as signed ones do.
    other = arena.anonymous.with_token("pka_" + "0" * 35 + "1")
    assert (await other.get("/v1/tables")).status == 401
    assert (await client.get("/healthz")).status == 200
    assert (await arena.anonymous.get("/v1/tables")).status == 200
