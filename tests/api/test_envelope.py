"""What every request is wrapped in: its id, its bounds, its log line, and problems for all errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
import structlog
from sqlalchemy import text

from pokerarena.api.access import needs
from pokerarena.api.app import create_app
from pokerarena.api.context import Session
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.db import Database
from pokerarena.errors import ConfigurationError
from tests.api.arena import PASSWORD, Arena, new_agent, new_table, ok, settings_for
from tests.api.asgi import Client

Nobody = Annotated[Principal, needs(Permission.PROGRAM_READ)]


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[Arena]:
    """An arena with tight bounds, and routes that fail as no route should."""
    settings = settings_for(
        database_url, api_max_body_bytes=1024, api_body_timeout_s=0.3, database_pool_wait_s=0.3,
        database_pool_size=1,
    )  # fmt: skip
    database = Database(settings, application_name="test")
    app = create_app(settings, database)

    @app.get("/broken")
    async def broken(_: Nobody) -> None:
        raise RuntimeError(f"holding {PASSWORD}")

    @app.get("/misconfigured")
    async def misconfigured(_: Nobody) -> None:
        raise ConfigurationError(f"key {PASSWORD}")

    @app.post("/written-then-broken")
    async def written(_: Nobody, session: Session) -> None:
        await session.execute(text("INSERT INTO live_watches VALUES (gen_random_uuid(), now())"))
        raise RuntimeError("after the write")

    @app.post("/refused-at-commit")
    async def refused(_: Nobody, session: Session) -> dict[str, bool]:
        await session.execute(
            text(
                "CREATE TEMP TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"
            )
        )
        await session.execute(text("INSERT INTO late VALUES (1), (1)"))
        return {"told_before_it_was_true": True}

    async with app.router.lifespan_context(app):
        yield Arena(settings, database, Client(app))
    await database.close()


async def test_a_sane_request_id_is_kept_and_any_other_replaced(arena: Arena) -> None:
    client = arena.anonymous
    given = "trace-1.2:ABC"
    reply = await client.get("/healthz", headers={"x-request-id": given})
    assert reply.headers["x-request-id"] == given
    seen = set()
    for bad in ("", "a" * 65, "two words", "x\r\nSet-Cookie: a=b", "<script>", "é"):
        reply = await client.get("/nothing", headers={"x-request-id": bad})
        made = reply.headers["x-request-id"]
        assert made != bad
        assert len(made) == 32
        assert reply.json["request_id"] == made
        seen.add(made)
    assert len(seen) == 6


async def test_each_request_is_one_log_line_without_what_is_secret(arena: Arena) -> None:
    alice = await arena.user("alice")
    table_id = await new_table(alice)
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
        await alice.get(f"/v1/tables/{table_id}/seats?cursor=abc")
        await alice.post("/v1/auth/login", {"username": "alice", "password": PASSWORD})
        await arena.anonymous.get("/healthz")
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in requests] == [
        ("GET", "/v1/tables/{table_id}/seats", 200),
        ("POST", "/v1/auth/login", 200),
        ("GET", "/healthz", 200),
    ]
    assert requests[0]["table_id"] == table_id
    assert requests[0]["user_id"] == alice.id
    assert "table_id" not in requests[2], "what a request bound does not stay for the next"
    assert all(line["duration_ms"] >= 0 and line["request_id"] for line in requests)
    logged = str(lines)
    assert PASSWORD not in logged
    assert alice.token is not None
    assert alice.token not in logged
    assert "cursor" not in logged


async def test_answers_carry_the_headers_that_cost_nothing(arena: Arena) -> None:
    for path in ("/healthz", "/v1/tables", "/nothing", "/v1/me"):
        headers = (await arena.anonymous.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers


async def test_a_path_or_method_that_is_not_there_is_a_problem(arena: Arena) -> None:
    reply = await arena.anonymous.get("/v1/nothing")
    assert (reply.status, reply.code) == (404, "route_not_found")
    reply = await arena.anonymous.get("/v1/tables/")
    assert (reply.status, reply.code) == (404, "route_not_found")
    reply = await arena.anonymous.delete("/v1/me")
    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert "GET" in reply.headers["allow"]
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert (await arena.anonymous.get(path)).status == 404


async def test_a_body_beyond_the_bound_is_refused_before_or_while_it_arrives(small: Arena) -> None:
    client = small.anonymous
    announced = await client.request(
        "POST", "/v1/auth/login", raw=b"{}", headers={"content-length": "2000000000"}
    )
    assert (announced.status, announced.code) == (413, "body_too_large")
    body = b'{"username": "' + b"a" * 2000 + b'", "password": "x"}'
    whole = await client.request("POST", "/v1/auth/login", raw=body)
    assert (whole.status, whole.code) == (413, "body_too_large")
    chunks = [body[at : at + 100] for at in range(0, len(body), 100)]
    streamed = await client.request("POST", "/v1/auth/login", raw=chunks)
    assert (streamed.status, streamed.code) == (413, "body_too_large")
    absurd = await client.request(
        "POST", "/v1/auth/login", raw=b"{}", headers={"content-length": "9" * 5000}
    )
    assert (absurd.status, absurd.code) == (413, "body_too_large")


async def test_a_body_that_never_ends_is_given_up(small: Arena) -> None:
    from tests.api.asgi import _scope

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
    async with asyncio.timeout(5):
        await small.anonymous.app(_scope("POST", "/v1/auth/login", headers), receive, send)
    assert sent[0]["status"] == 408
    assert b'"body_timeout"' in sent[1]["body"]


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonp"},
        {"content-encoding": "gzip"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": 'application/json;charset="latin-1"'},
    ],
)
async def test_a_body_of_another_kind_is_refused(arena: Arena, headers: dict[str, str]) -> None:
    reply = await arena.anonymous.request("POST", "/v1/auth/login", raw=b"{}", headers=headers)
    assert reply.status == 415, reply
    assert reply.code.removeprefix("unsupported_") in ("media_type", "encoding", "charset")
    assert reply.headers["connection"] == "close"
    reply = await arena.anonymous.request(
        "POST",
        "/v1/auth/login",
        raw=b"{}",
        headers={"content-type": "application/json; charset=utf-8"},
    )
    assert reply.status == 422


async def test_our_own_faults_say_nothing_of_the_inside(small: Arena) -> None:
    for path in ("/broken", "/misconfigured"):
        reply = await small.anonymous.get(path)
        assert (reply.status, reply.code) == (500, "internal_error")
        assert PASSWORD not in reply.body.decode()
        assert "Traceback" not in reply.body.decode()


async def test_a_failure_takes_back_what_was_written_and_success_is_told_after_the_commit(
    small: Arena,
) -> None:
    reply = await small.anonymous.post("/written-then-broken")
    assert reply.status == 500
    async with small.database.unit_of_work() as session:
        assert (await session.execute(text("SELECT count(*) FROM live_watches"))).scalar_one() == 0
    reply = await small.anonymous.post("/refused-at-commit")
    assert (reply.status, reply.code) == (409, "conflict")
    assert b"told_before" not in reply.body


async def test_without_a_database_requests_are_problems_that_say_when_to_try_again(
    empty_database_url: str,
) -> None:
    gone = empty_database_url.replace("/test_", "/no_such_database_test_")
    settings = settings_for(gone)
    app = create_app(settings)
    client = Client(app, "pka_" + "0" * 36)
    async with app.router.lifespan_context(app):
        assert (await client.get("/healthz")).status == 200
        for path in ("/readyz", "/v1/tables", "/v1/hands/hand_" + "0" * 32):
            reply = await client.with_token(None).get(path)
            assert (reply.status, reply.code) == (503, "database_unavailable"), reply
            assert int(reply.headers["retry-after"]) > 0
        reply = await client.post("/v1/auth/login", {"username": "a", "password": "b"})
        assert reply.status == 503


async def test_when_all_connections_are_in_use_requests_are_told_to_come_again(
    small: Arena,
) -> None:
    async with small.database.unit_of_work() as session:
        await session.execute(text("SELECT 1"))
        reply = await small.anonymous.get("/v1/tables")
    assert (reply.status, reply.code) == (503, "database_busy")
    assert (await small.anonymous.get("/v1/tables")).status == 200


async def test_a_statement_that_takes_too_long_is_given_up_and_said_so(
    database_url: str,
) -> None:
    settings = settings_for(database_url, database_statement_timeout_ms=200)
    database = Database(settings, application_name="test")
    app = create_app(settings, database)
    async with app.router.lifespan_context(app):
        alice = await Arena(settings, database, Client(app)).user("alice")
        table_id = await new_table(alice)
        async with database.unit_of_work() as session:
            await session.execute(text("SELECT 1 FROM tables FOR UPDATE"))
            reply = await alice.patch(f"/v1/tables/{table_id}", {"name": "Late"})
        assert (reply.status, reply.code) == (503, "database_contention")
        assert "retry-after" in reply.headers
        assert ok(await alice.get(f"/v1/tables/{table_id}"))["name"] == "Table"
    await database.close()


async def test_a_connection_that_dies_between_requests_is_replaced(arena: Arena) -> None:
    alice = await arena.user("alice")
    async with arena.database.unit_of_work() as session:
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    ok(await alice.get("/v1/me"))


async def test_ready_means_that_the_schema_is_the_programs_or_a_later_ones(
    arena: Arena, empty_database_url: str
) -> None:
    assert ok(await arena.anonymous.get("/readyz"))["status"] == "ready"
    move = text("UPDATE alembic_version SET version_num = :to")
    async with arena.database.unit_of_work() as session:
        await session.execute(move, {"to": "later_0001"})
    # A release that is still served while the next one migrates must not be taken out for it.
    assert ok(await arena.anonymous.get("/readyz"))["schema_revision"] == "later_0001"
    async with arena.database.unit_of_work() as session:
        await session.execute(move, {"to": "reliability_0001"})
    reply = await arena.anonymous.get("/readyz")
    assert (reply.status, reply.code) == (503, "schema_not_migrated")
    app = create_app(settings_for(empty_database_url))
    async with app.router.lifespan_context(app):
        reply = await Client(app).get("/readyz")
        assert (reply.status, reply.code) == (503, "schema_not_migrated")


async def test_more_requests_than_the_bound_are_turned_away(database_url: str) -> None:
    settings = settings_for(database_url, api_requests_max=1, stream_max_per_process=1)
    database = Database(settings, application_name="test")
    app = create_app(settings, database)
    client = Client(app)
    async with app.router.lifespan_context(app):
        replies = await asyncio.gather(*(client.get("/v1/tables") for _ in range(10)))
        assert {reply.status for reply in replies} == {200, 503}
        assert all(reply.code == "overloaded" for reply in replies if reply.status == 503)
        assert (await client.get("/v1/tables")).status == 200
    await database.close()


async def test_lists_come_in_pages_that_miss_and_repeat_nothing(arena: Arena) -> None:
    alice = await arena.user("alice")
    made = [(await new_agent(alice, f"Agent {number}"))[0] for number in range(7)]
    seen: list[str] = []
    cursor = ""
    for size in (3, 3, 1):
        page = ok(await alice.get(f"/v1/agents?limit=3{cursor}"))
        assert len(page["items"]) == size
        seen += [item["id"] for item in page["items"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert seen == made[::-1]


async def test_the_documents_describe_every_route_and_load_nothing(arena: Arena) -> None:
    document = ok(await arena.anonymous.get("/openapi.json"))
    assert document["openapi"].startswith("3.1")
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["x-permission"]
            assert operation["responses"]["default"]["content"].keys() == {
                "application/problem+json"
            }
    assert {"/v1/runs/{run_id}/results", "/v1/tables/{table_id}/live"} <= set(document["paths"])
    page = await arena.anonymous.get("/docs")
    text_of_page = page.body.decode()
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/tables/{table_id}/live" in text_of_page
    assert "<script" not in text_of_page
    assert "src=" not in text_of_page
    assert "https://" not in text_of_page
    schema = ok(await arena.anonymous.get("/v1/protocol/schema"))
    assert "Callback" in schema["messages"]["$defs"]
