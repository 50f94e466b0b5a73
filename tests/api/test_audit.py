"""What happens to accounts, tokens and rights is in the audit, and operators can search it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.auth.models import Role
from pokerarena.ops.commands import admin
from tests.api.arena import PASSWORD, Arena, new_table, ok, sit, viewer_link
from tests.api.asgi import Client

SOURCE = Path(audit.__file__).parents[1]


async def events(arena: Arena, event: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """The events in their order, with their details."""
    async with arena.database.session() as session:
        rows = await session.execute(
            text("SELECT event, subject, actor_id, details FROM audit_records ORDER BY seq")
        )
        return [
            (row.event, {"subject": row.subject, "actor": row.actor_id, **json.loads(row.details)})
            for row in rows
            if event in (None, row.event)
        ]


async def names(arena: Arena) -> list[str]:
    return [name for name, _ in await events(arena)]


def test_every_event_is_recorded_somewhere() -> None:
    code = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    for event in Event:
        assert f"Event.{event.name}" in code, f"{event} is declared and never recorded"


async def test_the_life_of_an_account_is_recorded_with_who_did_what(arena: Arena) -> None:
    alice = await arena.user("alice")
    operator = await arena.user("operator", Role.OPERATOR)
    order = {"name": "ci", "scopes": ["agents:read"], "expires_in_s": 60}
    token = ok(await alice.post("/v1/tokens", order), 201)
    ok(await alice.delete(f"/v1/tokens/{token['id']}"), 204)
    change = {"current_password": PASSWORD, "new_password": "another river card, a nine"}
    ok(await alice.put("/v1/me/password", change), 204)
    ok(await operator.post(f"/v1/users/{alice.id}/disable"))
    found = await events(arena)
    assert [name for name, _ in found] == [
        "user.created",
        "login.succeeded",
        "user.created",
        "login.succeeded",
        "token.created",
        "token.revoked",
        "password.changed",
        "sessions.ended",
        "user.disabled",
    ]
    by_alice = [detail["actor"].hex for _, detail in found[4:8]]
    assert {f"user_{actor}" for actor in by_alice} == {alice.id}
    assert f"user_{found[8][1]['actor'].hex}" == operator.id
    assert found[4][1]["subject"] == token["id"]
    assert found[8][1]["subject"] == alice.id


async def test_a_failed_login_names_the_account_only_where_there_is_one(arena: Arena) -> None:
    alice = await arena.user("alice")
    for name in ("alice", "My-Password-In-The-Wrong-Field"):
        reply = await arena.anonymous.post(
            "/v1/auth/login", {"username": name, "password": "a wrong password"}
        )
        assert reply.status == 401
    failed = await events(arena, "login.failed")
    assert [detail["subject"] for _, detail in failed] == [alice.id, None]
    async with arena.database.session() as session:
        whole = await session.scalar(text("SELECT string_agg(r::text, ' ') FROM audit_records r"))
    assert "My-Password" not in whole
    assert "a wrong password" not in whole


async def test_refusals_are_recorded_within_bounds_and_the_rest_is_counted(
    new_arena: Callable[..., Any],
) -> None:
    arena: Arena = await new_arena(audit_refusals_per_minute=2)
    alice = await arena.user("alice")
    for _ in range(6):
        assert (await alice.get("/v1/users")).status == 403
    assert (await arena.anonymous.get("/v1/me")).status == 401
    assert (await arena.anonymous.with_token("pka_" + "0" * 36).get("/v1/me")).status == 401
    refused = await events(arena, "permission.refused")
    assert [(d["code"], d["route"]) for _, d in refused] == [
        ("operator_required", "GET /v1/users")
    ] * 2
    assert {f"user_{d['actor'].hex}" for _, d in refused} == {alice.id}
    assert [d["code"] for _, d in await events(arena, "token.refused")] == ["token_invalid"]


async def test_what_is_rolled_back_is_not_recorded(arena: Arena) -> None:
    alice = await arena.user("alice")
    table = await new_table(alice)
    before = await names(arena)
    assert (await alice.patch(f"/v1/tables/{table}", {"visibility": "secret"})).status == 422
    assert await names(arena) == before


async def test_a_scan_leaves_one_record_a_minute_whether_things_are_hidden_or_not_there(
    arena: Arena,
) -> None:
    alice, eve, mallory = [await arena.user(name) for name in ("alice", "eve", "mallory")]
    hidden = await new_table(alice)
    missing = "table_" + "0" * 32
    for first, scanner in ((hidden, eve), (missing, mallory)):
        assert (await scanner.get(f"/v1/tables/{first}")).status == 404
        for number in range(50):
            assert (await scanner.get(f"/v1/tables/table_{number:032x}")).status == 404
    assert (await arena.anonymous.get(f"/v1/tables/{hidden}")).status == 404
    told = await events(arena, "access.not_found")
    assert [(f"user_{d['actor'].hex}", d["subject"], d["route"]) for _, d in told] == [
        (eve.id, hidden, "GET /v1/tables/{table_id}"),
        (mallory.id, missing, "GET /v1/tables/{table_id}"),
    ]
    # Other refusals of the same caller have their own place.
    assert (await eve.get("/v1/users")).status == 403
    assert len(await events(arena, "permission.refused")) == 1


async def test_what_a_viewer_link_is_refused_is_recorded_under_the_link(arena: Arena) -> None:
    alice = await arena.user("alice")
    table, other = await new_table(alice), await new_table(alice)
    await sit(alice, table, 1)
    link = await viewer_link(alice, table, 1)
    assert (await link.get(f"/v1/tables/{other}")).status == 404
    assert (await link.get("/v1/me")).status == 403
    async with arena.database.session() as session:
        rows = (
            await session.execute(
                text(
                    "SELECT event, actor_id, credential_id, subject FROM audit_records"
                    " WHERE event IN ('access.not_found', 'permission.refused') ORDER BY seq"
                )
            )
        ).all()
    assert [(row.event, row.actor_id, row.subject) for row in rows] == [
        ("access.not_found", None, other),
        ("permission.refused", None, None),
    ]
    assert {f"link_{row.credential_id.hex}" for row in rows} == {link.id}


async def test_exposure_seats_and_an_operators_look_at_a_private_run_are_recorded(
    arena: Arena,
) -> None:
    alice = await arena.user("alice")
    operator = await arena.user("operator", Role.OPERATOR)
    table = await new_table(alice)
    for seat_no in (1, 2):
        await sit(alice, table, seat_no)
    run = ok(await alice.post(f"/v1/tables/{table}/runs", {"hands": 10}), 201)["id"]
    for caller in (alice, operator, operator):
        ok(await caller.get(f"/v1/runs/{run}"))
        ok(await caller.get(f"/v1/runs/{run}/results"))
    looks = await events(arena, "private_run.read")
    assert [(d["subject"], f"user_{d['actor'].hex}") for _, d in looks] == [(run, operator.id)]
    ok(await alice.post(f"/v1/runs/{run}/stop"))
    ok(await alice.delete(f"/v1/tables/{table}/seats/2"), 204)
    ok(await alice.patch(f"/v1/tables/{table}", {"visibility": "public"}))
    ok(await alice.patch(f"/v1/tables/{table}", {"visibility": "public", "name": "Same"}))
    tail = [(name, d["subject"]) for name, d in (await events(arena))[-2:]]
    assert tail == [("seat.left", table), ("table.exposure_changed", table)]


async def search(operator: Client, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = ok(await operator.get(f"/v1/audit{query}"))
    return found


async def test_operators_search_the_audit_page_by_page_and_nobody_else_does(arena: Arena) -> None:
    alice = await arena.user("alice")
    operator = await arena.user("operator", Role.OPERATOR)
    assert (await alice.get("/v1/audit")).code == "operator_required"
    assert (await arena.anonymous.get("/v1/audit")).status == 401
    found = await search(operator)
    assert [one["event"] for one in found["items"]][:2] == ["permission.refused", "login.succeeded"]
    assert [one["seq"] for one in found["items"]] == list(range(len(found["items"]), 0, -1))
    first = await search(operator, "?limit=2&event=login.succeeded")
    assert [one["actor_id"] for one in first["items"]] == [operator.id, alice.id]
    assert first["next_cursor"] is None
    page = await search(operator, "?limit=1&event=login.succeeded")
    page = await search(operator, f"?limit=1&event=login.succeeded&cursor={page['next_cursor']}")
    assert [one["actor_id"] for one in page["items"]] == [alice.id]
    assert (await search(operator, f"?subject={alice.id}"))["items"][0]["event"] == "user.created"
    mine = await search(operator, f"?actor_id={alice.id}")
    assert {one["actor_id"] for one in mine["items"]} == {alice.id}
    at = found["items"][0]["at"].replace("+", "%2B")
    since = await search(operator, f"?since={at}&event=permission.refused")
    assert len(since["items"]) == 1
    assert (await search(operator, f"?until={at}&event=permission.refused"))["items"] == []
    assert "audit.read" in await names(arena)
    for bad in ("?event=nothing", "?since=yesterday", "?since=2026-01-01T00:00:00", "?seq=1"):
        assert (await operator.get(f"/v1/audit{bad}")).status == 422, bad
    assert (await operator.get("/v1/audit?cursor=AAAA")).code == "cursor_invalid"


@pytest.fixture
def verify(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`pokerarena admin audit verify`, as the owner runs it."""
    monkeypatch.setenv("POKERARENA_DATABASE_URL", database_url)
    runner = CliRunner()
    return lambda *more: runner.invoke(admin.commands, ["audit", "verify", *more])


async def test_the_command_line_says_whether_the_chain_holds(
    arena: Arena, verify: Callable[..., Any]
) -> None:
    import asyncio

    await arena.user("alice")
    good = await asyncio.to_thread(verify)
    assert good.exit_code == 0, good.output
    assert good.output.startswith("2 records hold\nhead 2:")
    head = good.output.split()[-1]
    await arena.user("bob")
    assert (await asyncio.to_thread(verify, "--expect", head)).exit_code == 0
    forged = f"2:{'0' * 64}"
    refused = await asyncio.to_thread(verify, "--expect", forged)
    assert (refused.exit_code, "record 2 is not the record of the anchor" in refused.output) == (
        1,
        True,
    )
    async with arena.database.unit_of_work() as session:
        await session.execute(text("ALTER TABLE audit_records DISABLE TRIGGER USER"))
        await session.execute(text("UPDATE audit_records SET subject = 'x' WHERE seq = 3"))
    broken = await asyncio.to_thread(verify)
    assert broken.exit_code == 1
    assert "record 3 was changed" in broken.output
