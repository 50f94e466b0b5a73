"""What is one member's own is not there for another."""

from __future__ import annotations

from typing import Any

import pytest

from pokerarena.api.access import declared_permissions
from pokerarena.auth.models import Role
from pokerarena.auth.permissions import RULES, Ownership
from pokerarena.engine.rules import Rules
from pokerarena.ids import IdKind, id_text
from tests.api.arena import Arena, new_agent, new_table, ok, sit, viewer_link
from tests.api.asgi import Client
from tests.api.stored import play_random_hand, store
from tests.api.test_routes import BODIES


async def private_world(arena: Arena, owner: Client) -> dict[str, str]:
    """One of everything, all of it private."""
    from random import Random

    agent_id, version_id = await new_agent(owner, "Hidden")
    table_id = await new_table(owner)
    ok(
        await owner.put(
            f"/v1/tables/{table_id}/seats/1", {"agent_id": agent_id, "version_id": version_id}
        )
    )
    await sit(owner, table_id, 2)
    run = ok(await owner.post(f"/v1/tables/{table_id}/runs", {"hands": 5}), 201)
    hand = play_random_hand(Random(1), Rules(50, 100), (1, 2), hand_no=1)
    await store(arena.database, run["id"], [hand])
    token = ok(
        await owner.post("/v1/tokens", {"name": "t", "scopes": ["runs:read"], "expires_in_s": 60}),
        201,
    )
    link = await viewer_link(owner, table_id, 1)
    return {
        "link_id": link.id,
        "agent_id": agent_id,
        "version_id": version_id,
        "table_id": table_id,
        "seat_no": "1",
        "run_id": run["id"],
        "hand_id": id_text(IdKind.HAND, hand.id),
        "token_id": token["id"],
        "session_id": ok(await owner.get("/v1/sessions"))["items"][0]["id"],
        "user_id": owner.id,
    }


def filled(path: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", value)
    return path


async def test_everything_private_of_one_is_404_for_another_and_for_nobody(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    ids = await private_world(arena, alice)
    own_agent, own_version = await new_agent(bob)
    bodies: dict[tuple[str, str], Any] = BODIES | {
        ("PUT", "/v1/tables/{table_id}/seats/{seat_no}"): {
            "agent_id": own_agent,
            "version_id": own_version,
        }
    }
    before = await arena.counts()
    tried = 0
    for (method, path), permission in declared_permissions(alice.app).items():
        if RULES[permission].ownership is Ownership.NONE or "{" not in path:
            continue
        tried += 1
        body = bodies.get((method, path))
        more = {} if body is None else {"body": body}
        for caller in (bob, arena.anonymous):
            reply = await caller.request(method, filled(path, ids), **more)
            expected = (404,) if caller is bob else (404, 401)
            assert reply.status in expected, (method, path, reply)
            assert "Hidden" not in reply.body.decode()
    assert tried > 20
    assert await arena.counts() == before
    # The same paths are there for their owner, so that the 404s above mean something.
    for path in (
        "/v1/agents/{agent_id}",
        "/v1/agents/{agent_id}/versions",
        "/v1/agents/{agent_id}/versions/{version_id}",
        "/v1/tables/{table_id}",
        "/v1/tables/{table_id}/seats",
        "/v1/tables/{table_id}/state",
        "/v1/tables/{table_id}/runs",
        "/v1/runs/{run_id}",
        "/v1/runs/{run_id}/results",
        "/v1/runs/{run_id}/hands",
        "/v1/hands/{hand_id}",
        "/v1/hands/{hand_id}/actions",
        "/v1/hands/{hand_id}/replay",
    ):
        ok(await alice.get(filled(path, ids)))


async def test_lists_show_ones_own_and_what_is_public(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    await new_agent(alice, "Private")
    await new_agent(alice, "Public", visibility="public")
    private, unlisted, public = [
        await new_table(alice, name=visibility, visibility=visibility)
        for visibility in ("private", "unlisted", "public")
    ]
    assert ok(await bob.get("/v1/agents"))["items"] == []
    assert [table["id"] for table in ok(await bob.get("/v1/tables"))["items"]] == [public]
    listed = ok(await arena.anonymous.get("/v1/tables"))["items"]
    assert [table["id"] for table in listed] == [public]
    assert ok(await bob.get("/v1/tables?mine=true"))["items"] == []
    mine = ok(await alice.get("/v1/tables?mine=true"))["items"]
    assert [table["id"] for table in mine] == [public, unlisted, private]
    assert ok(await bob.get(f"/v1/tables/{unlisted}"))["id"] == unlisted
    assert (await bob.get(f"/v1/tables/{private}")).status == 404
    reply = await arena.anonymous.get("/v1/tables?mine=true")
    assert (reply.status, reply.code) == (401, "authentication_required")


async def test_what_is_public_can_be_seen_but_not_changed_by_others(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    agent_id, version_id = await new_agent(alice, visibility="public")
    table_id = await new_table(alice, visibility="public")
    await sit(alice, table_id, 1)
    assert ok(await bob.get(f"/v1/agents/{agent_id}"))["owner_id"] == alice.id
    for method, path, body, code in (
        ("PATCH", f"/v1/agents/{agent_id}", {"name": "Mine"}, "not_agent_owner"),
        ("POST", f"/v1/agents/{agent_id}/archive", None, "not_agent_owner"),
        (
            "POST",
            f"/v1/agents/{agent_id}/versions",
            {"kind": "house", "house_name": "tight"},
            "not_agent_owner",
        ),
        ("POST", f"/v1/agents/{agent_id}/versions/{version_id}/retire", None, "not_agent_owner"),
        ("PATCH", f"/v1/tables/{table_id}", {"name": "Mine"}, "not_table_owner"),
        ("POST", f"/v1/tables/{table_id}/archive", None, "not_table_owner"),
        ("DELETE", f"/v1/tables/{table_id}/seats/1", None, "not_seat_owner"),
        ("POST", f"/v1/tables/{table_id}/runs", {"hands": 2}, "not_table_owner"),
    ):
        more = {} if body is None else {"body": body}
        reply = await bob.request(method, path, **more)
        assert (reply.status, reply.code) == (403, code), (method, path, reply)


async def test_where_callbacks_go_is_shown_to_the_owner_and_the_secret_once(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    operator = await arena.user("operator", Role.OPERATOR)
    agent_id, _ = await new_agent(alice, visibility="public")
    url = "https://agent.example.com/play?key=abc"
    versions = f"/v1/agents/{agent_id}/versions"
    made = ok(await alice.post(versions, {"kind": "http", "callback_url": url}), 201)
    secret = made["signing_secret"]
    assert secret.startswith("whsec_")
    for caller, shown in ((alice, url), (operator, url), (bob, None), (arena.anonymous, None)):
        for path in (versions, f"{versions}/{made['id']}"):
            reply = await caller.get(path)
            assert secret not in reply.body.decode()
            version = ok(reply)["items"][0] if path == versions else ok(reply)
            assert version["callback_url"] == shown
    async with arena.database.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT signing_secret_sealed FROM agent_versions")
        assert all(secret.encode() not in bytes(row[0]) for row in rows if row[0] is not None)


async def test_a_seat_at_a_table_that_turns_private_keeps_its_sight(arena: Arena) -> None:
    alice, bob, carol = [await arena.user(name) for name in ("alice", "bob", "carol")]
    table_id = await new_table(alice, visibility="unlisted")
    await sit(alice, table_id, 1)
    await sit(bob, table_id, 2)
    ok(await alice.patch(f"/v1/tables/{table_id}", {"visibility": "private"}))
    ok(await bob.get(f"/v1/tables/{table_id}"))
    assert (await carol.get(f"/v1/tables/{table_id}")).status == 404
    run = ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 2}), 201)
    assert ok(await bob.get(f"/v1/runs/{run['id']}"))["own_seats"] == [2]
    assert (await carol.get(f"/v1/runs/{run['id']}")).status == 404


@pytest.mark.parametrize(("then", "now"), [("private", "public"), ("public", "private")])
async def test_a_run_is_as_hidden_as_its_table_is_or_was(arena: Arena, then: str, now: str) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    table_id = await new_table(alice, visibility=then)
    await sit(alice, table_id, 1)
    await sit(alice, table_id, 2)
    run = ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 2}), 201)
    ok(await alice.post(f"/v1/runs/{run['id']}/stop"))
    ok(await alice.patch(f"/v1/tables/{table_id}", {"visibility": now}))
    assert (await bob.get(f"/v1/runs/{run['id']}")).status == 404
    ok(await alice.get(f"/v1/runs/{run['id']}"))
    if now == "public":
        assert ok(await bob.get(f"/v1/tables/{table_id}/runs"))["items"] == []
        assert ok(await bob.get(f"/v1/tables/{table_id}/state"))["run"] is None
    assert len(ok(await alice.get(f"/v1/tables/{table_id}/runs"))["items"]) == 1
