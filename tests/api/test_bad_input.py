"""Whatever is wrong with a request: a problem with a stable code, and nothing half-written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pokerarena.ids import IdKind, id_text, new_id
from tests.api.arena import Arena, new_agent, new_table, ok, settings_for, sit
from tests.api.asgi import Client, Reply

SECRET = "hunter2-hunter2-hunter2"


async def refused(
    arena: Arena, client: Client, method: str, path: str, body: Any, status: int, code: str
) -> Reply:
    """The request is refused with this problem, and no relation has a row more or less."""
    before = await arena.counts()
    reply = await client.request(method, path, body)
    assert (reply.status, reply.code) == (status, code), reply
    problem = reply.json
    assert problem["status"] == status
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert problem["type"] == f"urn:pokerarena:problem:{code}"
    assert len(problem["detail"]) > 20, "the detail is a sentence"
    assert await arena.counts() == before
    return reply


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"{", 400, "malformed_json"),
        (b'{"name": }', 400, "malformed_json"),
        (b"\xff\xfe\xfd", 400, "malformed_body"),
        (b"[" * 60_000, 422, "body_too_deep"),
        (b'{"name": ' + b"9" * 5000 + b"}", 400, "malformed_body"),
        (b'{"name": "x", "name": "y"}', 400, "duplicate_key"),
        (b'{"name": "x", "description": {"a": 1, "\\u0061": 2}}', 400, "duplicate_key"),
        (b'{"name": NaN}', 400, "malformed_json"),
        (b'{"name": -Infinity}', 400, "malformed_json"),
        (b'\xef\xbb\xbf{"name": "x"}', 400, "malformed_json"),
        ('{"name": "x"}'.encode("utf-16"), 400, "malformed_body"),
        ('{"name": "x"}'.encode("utf-16-le"), 400, "malformed_json"),
        (b'{"name": "\xc3\x28"}', 400, "malformed_body"),
        (b'{"name": "x"} {"name": "y"}', 400, "malformed_json"),
        (b"[]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b'"text"', 422, "invalid_request"),
        (b'{"name": "\\ud800"}', 422, "invalid_request"),
        (b'{"name": "a\\u0000b"}', 422, "invalid_request"),
        (b'{"\\ud800": 1, "name": "x"}', 422, "invalid_request"),
    ],
)
async def test_a_body_that_is_no_such_document_is_refused(
    arena: Arena, raw: bytes, status: int, code: str
) -> None:
    alice = await arena.user("alice")
    before = await arena.counts()
    reply = await alice.request("POST", "/v1/agents", raw=raw)
    assert (reply.status, reply.code) == (status, code), reply
    assert await arena.counts() == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surprise": 1}, "surprise"),
        ({"name": 7}, "name"),
        ({"name": ""}, "name"),
        ({"name": " padded"}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "\u202eesrever"}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": None}, "name"),
        ({"seat_count": 1}, "seat_count"),
        ({"seat_count": 11}, "seat_count"),
        ({"seat_count": "6"}, "seat_count"),
        ({"seat_count": 6.0}, "seat_count"),
        ({"seat_count": True}, "seat_count"),
        ({"small_blind": 0}, "small_blind"),
        ({"small_blind": -50}, "small_blind"),
        ({"big_blind": 10**30}, "big_blind"),
        ({"starting_stack": 10**10}, "starting_stack"),
        ({"ante": -1}, "ante"),
        ({"ante_kind": "some"}, "ante_kind"),
        ({"format": "turbo"}, "format"),
        ({"visibility": "secret"}, "visibility"),
        ({"reveal_policy": 1}, "reveal_policy"),
        ({"action_time_ms": 2**40}, "action_time_ms"),
        ({"blind_schedule": []}, "blind_schedule"),
        ({"blind_schedule": [{"hands": 1}]}, "blind_schedule.0.small_blind"),
    ],
)
async def test_a_wrong_field_is_named(arena: Arena, change: dict[str, Any], field: str) -> None:
    alice = await arena.user("alice")
    body = {"name": "Table"} | change
    reply = await refused(arena, alice, "POST", "/v1/tables", body, 422, "invalid_request")
    errors = reply.json["errors"]
    assert field in [error["field"] for error in errors], errors
    assert all(error["in"] == "body" and error["message"] for error in errors)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"small_blind": 200}, "blinds_order", "big_blind"),
        ({"starting_stack": 50}, "out_of_range", "starting_stack"),
        ({"ante": 101}, "out_of_range", "ante"),
        ({"action_time_ms": 0}, "out_of_range", "action_time_ms"),
        ({"action_time_ms": 999_999_999}, "out_of_range", "action_time_ms"),
        ({"time_bank_ms": 999_999_999}, "out_of_range", "time_bank_ms"),
        (
            {"blind_schedule": [{"hands": 5, "small_blind": 50, "big_blind": 100}]},
            "blind_schedule_unexpected",
            "blind_schedule",
        ),
        (
            {
                "format": "freezeout",
                "blind_schedule": [
                    {"hands": 5, "small_blind": 100, "big_blind": 200},
                    {"hands": 5, "small_blind": 50, "big_blind": 100},
                ],
            },
            "blinds_fall",
            "blind_schedule.1.big_blind",
        ),
    ],
)
async def test_rules_by_which_nobody_can_play_are_refused(
    arena: Arena, change: dict[str, Any], code: str, field: str
) -> None:
    alice = await arena.user("alice")
    body = {"name": "Table"} | change
    reply = await refused(arena, alice, "POST", "/v1/tables", body, 422, code)
    assert reply.json["field"] == field


@pytest.mark.parametrize(
    "url",
    [
        "ftp://agent.example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "agent.example.com",
        "https://user:password@agent.example.com/",
        "https://user@agent.example.com/",
        "http://127.0.0.1:9000/",
        "http://localhost:9000/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0.0.0.0/",
        "https://agent.example.com:22/",
        "https://agent.example.com/#part",
        "https://agent.example.com/\nHost: x",
    ],
)
async def test_a_callback_url_that_must_not_be_called_is_refused(arena: Arena, url: str) -> None:
    alice = await arena.user("alice")
    agent_id, _ = await new_agent(alice)
    reply = await refused(
        arena,
        alice,
        "POST",
        f"/v1/agents/{agent_id}/versions",
        {"kind": "http", "callback_url": url},
        422,
        "callback_url_refused",
    )
    assert reply.json["field"] == "callback_url"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"kind": "hosted"}, "upload_expected"),
        ({"kind": "house", "house_name": "genius"}, "house_name_unknown"),
        ({"kind": "house"}, "house_name_unknown"),
        (
            {"kind": "house", "house_name": "tight", "callback_url": "https://a.example.com/"},
            "callback_url_unexpected",
        ),
        ({"kind": "http"}, "callback_url_missing"),
        (
            {"kind": "http", "callback_url": "https://a.example.com/", "house_name": "tight"},
            "house_name_unexpected",
        ),
        ({"kind": "robot"}, "invalid_request"),
        ({"kind": "house", "house_name": "tight", "max_in_flight": 65}, "invalid_request"),
        ({"kind": "house", "house_name": "tight", "signing_secret": "x"}, "invalid_request"),
    ],
)
async def test_a_version_that_cannot_be_is_refused(
    arena: Arena, body: dict[str, Any], code: str
) -> None:
    alice = await arena.user("alice")
    agent_id, _ = await new_agent(alice)
    await refused(arena, alice, "POST", f"/v1/agents/{agent_id}/versions", body, 422, code)


async def test_seats_are_refused_to_whom_they_cannot_be_given(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    table_id = await new_table(alice, visibility="public", seat_count=3)
    agent_id, version_id = await new_agent(alice, "One")
    other_id, other_version_id = await new_agent(alice, "Two")
    foreign_id, foreign_version_id = await new_agent(bob, "Three", visibility="public")
    hidden_id, hidden_version_id = await new_agent(bob, "Four")
    seats = f"/v1/tables/{table_id}/seats"
    mine = {"agent_id": agent_id, "version_id": version_id}
    ok(await alice.put(f"{seats}/1", mine))

    async def no(path: str, body: Any, status: int, code: str) -> None:
        await refused(arena, alice, "PUT", f"{seats}/{path}", body, status, code)

    await no("1", {"agent_id": other_id, "version_id": other_version_id}, 409, "seat_taken")
    await no("2", mine | {"version_id": other_version_id}, 422, "version_not_of_agent")
    await no("2", mine | {"version_id": hidden_version_id}, 422, "version_not_of_agent")
    unknown = id_text(IdKind.VERSION, new_id())
    await no("2", mine | {"version_id": unknown}, 422, "version_not_of_agent")
    await no("2", mine | {"version_id": "ver_1"}, 422, "invalid_request")
    await no("2", mine | {"version_id": agent_id}, 422, "invalid_request")
    foreign = {"agent_id": foreign_id, "version_id": foreign_version_id}
    await no("2", foreign, 403, "not_agent_owner")
    await no("2", {"agent_id": hidden_id, "version_id": hidden_version_id}, 404, "not_found")
    await no("0", mine, 422, "seat_out_of_range")
    await no("4", mine, 422, "seat_out_of_range")
    await no("-1", mine, 422, "seat_out_of_range")
    await no("9" * 30, mine, 422, "seat_out_of_range")
    await no("one", mine, 404, "not_found")
    await no("2", {"agent_id": agent_id}, 422, "invalid_request")
    # To take one's own seat again is no mistake.
    assert ok(await alice.put(f"{seats}/1", mine))["seat_no"] == 1


async def test_runs_are_refused_where_nothing_can_be_played(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    table_id = await new_table(alice, visibility="public", format="duplicate")
    runs = f"/v1/tables/{table_id}/runs"
    await refused(arena, alice, "POST", runs, {"hands": 10}, 422, "too_few_seats")
    agent_id = await sit(alice, table_id, 1)
    await refused(arena, alice, "POST", runs, {"hands": 10}, 422, "too_few_seats")
    await sit(bob, table_id, 2)
    await refused(arena, alice, "POST", runs, {"hands": 0}, 422, "invalid_request")
    await refused(arena, alice, "POST", runs, {"hands": -5}, 422, "invalid_request")
    await refused(arena, alice, "POST", runs, {"hands": 10**12}, 422, "invalid_request")
    await refused(arena, alice, "POST", runs, {"hands": 2**31 - 1}, 422, "hands_out_of_range")
    await refused(arena, alice, "POST", runs, {"hands": 11}, 422, "hands_not_multiple")
    await refused(arena, alice, "POST", runs, {"hands": "10"}, 422, "invalid_request")
    await refused(arena, bob, "POST", runs, {"hands": 10}, 403, "not_table_owner")
    run = ok(await alice.post(runs, {"hands": 10}), 201)

    # While a run is active, nothing at its table moves.
    await refused(arena, alice, "POST", runs, {"hands": 10}, 409, "run_active")
    await refused(
        arena, alice, "PATCH", f"/v1/tables/{table_id}", {"big_blind": 200}, 409, "run_active"
    )
    before = await arena.counts()
    for method, path, body in (
        ("DELETE", f"/v1/tables/{table_id}/seats/1", None),
        ("POST", f"/v1/tables/{table_id}/archive", None),
    ):
        reply = await alice.request(method, path)
        assert (reply.status, reply.code) == (409, "run_active"), (path, body, reply)
    other_id, other_version = await new_agent(alice, "Other")
    reply = await alice.put(
        f"/v1/tables/{table_id}/seats/3", {"agent_id": other_id, "version_id": other_version}
    )
    assert (reply.status, reply.code) == (409, "run_active")
    reply = await alice.post(f"/v1/agents/{agent_id}/archive")
    assert (reply.status, reply.code) == (409, "agent_seated")
    after = await arena.counts()
    assert {name: after[name] for name in ("seats", "runs", "tables")} == {
        name: before[name] for name in ("seats", "runs", "tables")
    }

    ok(await alice.post(f"/v1/runs/{run['id']}/stop"))
    reply = await alice.post(f"/v1/runs/{run['id']}/resume")
    assert ok(reply)["status"] == "queued"
    reply = await alice.post(f"/v1/runs/{run['id']}/resume")
    assert (reply.status, reply.code) == (409, "run_not_resumable")
    for path in ("stop", "resume"):
        reply = await bob.post(f"/v1/runs/{run['id']}/{path}")
        assert (reply.status, reply.code) == (403, "not_table_owner")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_request"),
        ("limit=-1", "invalid_request"),
        ("limit=many", "invalid_request"),
        ("limit=100000", "limit_out_of_range"),
        ("limit=" + "9" * 400, "invalid_request"),
        ("cursor=x", "cursor_invalid"),
        ("cursor=%00%ff", "cursor_invalid"),
        ("cursor=" + "A" * 65, "invalid_request"),
        ("cursor=YWdlbnRz", "cursor_invalid"),
        ("surprise=1", "invalid_request"),
        ("mine=perhaps", "invalid_request"),
    ],
)
async def test_a_wrong_query_is_refused(arena: Arena, query: str, code: str) -> None:
    alice = await arena.user("alice")
    reply = await alice.get(f"/v1/tables?{query}")
    if query.startswith("limit=999"):
        assert reply.code in ("invalid_request", "limit_out_of_range")
    else:
        assert (reply.status, reply.code) == (422, code), reply


async def test_a_cursor_of_another_list_is_refused(arena: Arena) -> None:
    alice = await arena.user("alice")
    for number in range(3):
        await new_agent(alice, f"Agent {number}")
    cursor = ok(await alice.get("/v1/agents?limit=1"))["next_cursor"]
    assert ok(await alice.get(f"/v1/agents?limit=1&cursor={cursor}"))["items"]
    reply = await alice.get(f"/v1/tables?cursor={cursor}")
    assert (reply.status, reply.code) == (422, "cursor_invalid")


async def test_what_was_sent_is_not_told_back(arena: Arena) -> None:
    bodies: list[Any] = [
        {"username": "alice", "password": [SECRET]},
        {"username": "alice", "password": SECRET, "more": SECRET},
        {"username": {"a": SECRET}, "password": SECRET},
        {"username": "a", "password": SECRET},
    ]
    for body in bodies:
        for path in ("/v1/auth/login", "/v1/auth/register"):
            reply = await arena.anonymous.post(path, body)
            assert 400 <= reply.status < 500
            assert SECRET not in reply.body.decode(), reply
    raw = json.dumps({"username": "alice", "password": SECRET})[:-1].encode()
    reply = await arena.anonymous.request("POST", "/v1/auth/login", raw=raw)
    assert reply.code == "malformed_json"
    assert SECRET not in reply.body.decode()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"username": "al", "password": "a quiet evening at home"}, 422, "username_invalid"),
        ({"username": "al ice", "password": "a quiet evening at home"}, 422, "username_invalid"),
        ({"username": "álice", "password": "a quiet evening at home"}, 422, "username_invalid"),
        ({"username": "alice", "password": "short"}, 422, "password_too_short"),
        ({"username": "alice", "password": "x1!" * 50}, 422, "password_too_long"),
        ({"username": "alice", "password": "passwordpassword1"}, 422, "password_common"),
        ({"username": "alice", "password": "aaaaaaaaaaaaaaaaaa"}, 422, "password_common"),
        ({"username": "alicealicealice", "password": "alicealicealice"}, 422, "password_common"),
        ({"username": "ALICE2", "password": "a quiet evening at home"}, 409, "username_taken"),
    ],
)
async def test_an_account_that_cannot_be_is_refused(
    arena: Arena, body: dict[str, str], status: int, code: str
) -> None:
    await arena.user("alice2")
    await refused(arena, arena.anonymous, "POST", "/v1/auth/register", body, status, code)


async def test_tokens_that_would_be_too_much_are_refused(arena: Arena) -> None:
    alice = await arena.user("alice")
    good = {"name": "ci", "scopes": ["runs:read"], "expires_in_s": 3600}

    async def no(change: dict[str, Any], status: int, code: str) -> None:
        await refused(arena, alice, "POST", "/v1/tokens", good | change, status, code)

    await no({"scopes": ["operator"]}, 403, "scope_excess")
    await no({"scopes": []}, 422, "invalid_request")
    await no({"scopes": ["everything"]}, 422, "invalid_request")
    await no({"expires_in_s": 0}, 422, "invalid_request")
    await no({"expires_in_s": 3 * 366 * 86_400}, 422, "expiry_out_of_range")
    await no({"expires_in_s": None}, 422, "invalid_request")
    personal = arena.anonymous.with_token(ok(await alice.post("/v1/tokens", good), 201)["token"])
    await refused(arena, personal, "POST", "/v1/tokens", good, 403, "session_required")


async def test_quotas_hold_and_say_what_to_do(database_url: str, arena: Arena) -> None:
    alice = await arena.user("alice")
    small = settings_for(
        database_url,
        agents_per_user_max=2,
        versions_per_agent_max=1,
        tables_per_user_max=1,
        tokens_per_user_max=1,
    )
    parts = alice.app.state.parts
    object.__setattr__(parts, "settings", small)
    agent_id, _ = await new_agent(alice, "One")
    await new_agent(alice, "Two")
    await new_table(alice)
    token = {"name": "t", "scopes": ["runs:read"], "expires_in_s": 60}
    ok(await alice.post("/v1/tokens", token), 201)
    house = {"kind": "house", "house_name": "tight"}
    for path, body, code in (
        ("/v1/agents", {"name": "Three"}, "too_many_agents"),
        (f"/v1/agents/{agent_id}/versions", house, "too_many_versions"),
        ("/v1/tables", {"name": "Two"}, "too_many_tables"),
        ("/v1/tokens", token, "too_many_tokens"),
    ):
        await refused(arena, alice, "POST", path, body, 409, code)
    ok(await alice.post(f"/v1/agents/{agent_id}/archive"))
    ok(await alice.post("/v1/agents", {"name": "Three"}), 201)
