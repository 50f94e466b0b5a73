"""A request that is sent again does once what it does, and is answered alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import text

from pokerarena.api.access import declared_permissions
from pokerarena.api.app import create_app
from pokerarena.api.idempotency import CHANGING_METHODS, IdempotentRoute, sweep
from pokerarena.auth.permissions import RULES, Who
from pokerarena.db import Database
from tests.api.arena import PASSWORD, Arena, new_table, ok, settings_for, sit
from tests.api.asgi import Client, Reply

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


async def until_answered(client: Client, path: str, body: Any) -> Reply:
    """As a client should: again while the first one is still in progress."""
    for _ in range(500):
        reply = await client.post(path, body, headers=KEY)
        if reply.code != "idempotency_in_progress":
            return reply
        await asyncio.sleep(0.01)
    raise AssertionError("the request is in progress for ever")


async def rows(arena: Arena, query: str) -> int:
    async with arena.database.unit_of_work() as session:
        return int((await session.execute(text(query))).scalar_one())


async def run_ready(client: Client) -> str:
    table = await new_table(client)
    await sit(client, table, 1)
    await sit(client, table, 2)
    return f"/v1/tables/{table}/runs"


async def test_the_same_order_50_times_at_once_makes_one_run_and_gets_one_answer(
    arena: Arena,
) -> None:
    client = await arena.user("alice")
    path = await run_ready(client)
    first = await asyncio.gather(*(client.post(path, {"hands": 3}, headers=KEY) for _ in range(50)))
    assert {reply.status for reply in first} <= {201, 409}
    assert {reply.code for reply in first} <= {None, "idempotency_in_progress"}
    replies = await asyncio.gather(*(until_answered(client, path, {"hands": 3}) for _ in range(50)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.body for reply in (*replies, *(r for r in first if r.status == 201))}) == 1
    assert {reply.headers["location"] for reply in replies} == {f"/v1/runs/{replies[0].json['id']}"}
    assert replies[-1].headers["idempotency-replayed"] == "true"
    assert await rows(arena, "SELECT count(*) FROM runs") == 1
    assert await rows(arena, "SELECT count(*) FROM procrastinate_jobs") == 1


async def test_a_crash_between_the_write_and_its_record_leaves_neither(arena: Arena) -> None:
    """The database ends the transaction's connection at that very moment."""
    client = await arena.user("alice")
    path = await run_ready(client)
    async with arena.database.unit_of_work() as session:
        for statement in (
            "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'",
            "CREATE TRIGGER crash BEFORE INSERT ON idempotency_records"
            " FOR EACH ROW EXECUTE FUNCTION crash()",
        ):
            await session.execute(text(statement))
    crashed = await client.post(path, {"hands": 3}, headers=KEY)
    assert (crashed.status, crashed.code) == (503, "database_unavailable")
    assert crashed.headers["retry-after"]
    assert await rows(arena, "SELECT count(*) FROM runs") == 0
    assert await rows(arena, "SELECT count(*) FROM idempotency_records") == 0
    async with arena.database.unit_of_work() as session:
        await session.execute(text("DROP TRIGGER crash ON idempotency_records"))
    replies = await asyncio.gather(*(until_answered(client, path, {"hands": 3}) for _ in range(10)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.body for reply in replies}) == 1
    assert await rows(arena, "SELECT count(*) FROM runs") == 1


async def test_another_request_under_the_same_key_is_refused_and_changes_nothing(
    arena: Arena,
) -> None:
    client = await arena.user("alice")
    ok(await client.post("/v1/tables", {"name": "one"}, headers=KEY), 201)
    for reply in (
        await client.post("/v1/tables", {"name": "two"}, headers=KEY),
        await client.post("/v1/agents", {"name": "one"}, headers=KEY),
        await client.post("/v1/tables?x=1", {"name": "one"}, headers=KEY),
    ):
        assert (reply.status, reply.code) == (422, "idempotency_key_reused")
    assert await rows(arena, "SELECT count(*) FROM tables") == 1


async def test_a_key_is_the_callers_own(arena: Arena) -> None:
    made = set()
    for name in ("alice", "bob"):
        client = await arena.user(name)
        made.add(ok(await client.post("/v1/tables", {"name": "one"}, headers=KEY), 201)["id"])
    assert len(made) == 2


async def test_a_refusal_is_not_kept(arena: Arena) -> None:
    client = await arena.user("alice")
    table = await new_table(client)
    path = f"/v1/tables/{table}/runs"
    assert (await client.post(path, {"hands": 3}, headers=KEY)).code == "too_few_seats"
    await sit(client, table, 1)
    await sit(client, table, 2)
    ok(await client.post(path, {"hands": 3}, headers=KEY), 201)


async def test_what_is_shown_once_is_kept_sealed_and_shown_again_to_the_same_caller(
    arena: Arena,
) -> None:
    client = await arena.user("alice")
    body = {"name": "bot", "scopes": ["runs:read"], "expires_in_s": 60}
    first = ok(await client.post("/v1/tokens", body, headers=KEY), 201)
    again = ok(await client.post("/v1/tokens", body, headers=KEY), 201)
    assert first == again
    async with arena.database.unit_of_work() as session:
        kept = (await session.execute(text("SELECT answer_sealed FROM idempotency_records"))).all()
    assert len(kept) == 1
    assert first["token"].encode() not in kept[0][0]
    # And a token without the permission gets no replay either.
    stranger = arena.anonymous.with_token(first["token"])
    assert (await stranger.post("/v1/tokens", body, headers=KEY)).status == 403


async def test_an_answer_without_a_body_is_replayed_too(arena: Arena) -> None:
    client = await arena.user("alice")
    body = {"current_password": PASSWORD, "new_password": "another river card, a five"}
    for _ in range(2):
        reply = await client.put("/v1/me/password", body, headers=KEY)
        assert (reply.status, reply.body) == (204, b"")


@pytest.mark.parametrize("key", ['"', "with space", "é", "x" * 129, ""])
async def test_a_malformed_key_is_refused(arena: Arena, key: str) -> None:
    client = await arena.user("alice")
    # The test's client leaves out empty headers: a quoted nothing says the same.
    reply = await client.post(
        "/v1/tables", {"name": "one"}, headers={"Idempotency-Key": key or '""'}
    )
    assert (reply.status, reply.code) == (422, "idempotency_key_invalid")


async def test_quoted_and_bare_keys_are_the_same_key(arena: Arena) -> None:
    client = await arena.user("alice")
    bare = await client.post("/v1/tables", {"name": "one"}, headers=KEY)
    quoted = {"Idempotency-Key": f'"{KEY["Idempotency-Key"]}"'}
    assert (await client.post("/v1/tables", {"name": "one"}, headers=quoted)).body == bare.body


@pytest.fixture
async def forgetful(database_url: str) -> AsyncIterator[Arena]:
    settings = settings_for(database_url, idempotency_ttl_s=1, idempotency_answer_max_bytes=256)
    database = Database(settings, application_name="test")
    app = create_app(settings, database)
    async with app.router.lifespan_context(app):
        yield Arena(settings, database, Client(app))
    await database.close()


async def test_an_expired_key_is_new_again_and_expired_records_are_swept(forgetful: Arena) -> None:
    client = await forgetful.user("alice")
    first = ok(await client.post("/v1/agents", {"name": "one"}, headers=KEY), 201)
    async with forgetful.database.unit_of_work() as session:
        await session.execute(text("UPDATE idempotency_records SET expires_at = now()"))
    second = ok(await client.post("/v1/agents", {"name": "two"}, headers=KEY), 201)
    assert first["id"] != second["id"]
    assert await sweep(forgetful.database) == 0
    async with forgetful.database.unit_of_work() as session:
        await session.execute(text("UPDATE idempotency_records SET expires_at = now()"))
    assert await sweep(forgetful.database) == 1
    assert await rows(forgetful, "SELECT count(*) FROM idempotency_records") == 0


async def test_an_answer_too_large_to_keep_is_not_given_twice_and_nothing_is_done_twice(
    forgetful: Arena,
) -> None:
    client = await forgetful.user("alice")
    body = {"name": "t" * 80}
    ok(await client.post("/v1/tables", body, headers=KEY), 201)
    again = await client.post("/v1/tables", body, headers=KEY)
    assert (again.status, again.code) == (409, "idempotency_answer_not_kept")
    assert await rows(forgetful, "SELECT count(*) FROM tables") == 1


def test_every_route_that_changes_something_for_a_caller_takes_a_key(arena: Arena) -> None:
    app = arena.anonymous.app
    declared = declared_permissions(app)
    changing = 0
    for route in iter_route_contexts(app.routes):
        for method in CHANGING_METHODS & set(route.methods or ()):
            if RULES[declared[method, str(route.path)]].who is Who.ANYONE:
                continue
            changing += 1
            assert isinstance(route.original_route, APIRoute)
            assert isinstance(route.original_route, IdempotentRoute), (method, route.path)
    assert changing > 15
