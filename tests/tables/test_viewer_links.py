"""Viewer links: one seat's rights at one table, until they end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from pokerarena.auth import tokens
from pokerarena.auth.models import Role
from pokerarena.ids import IdKind, parse_id
from pokerarena.tables.models import ViewerLink
from pokerarena.tables.viewer_links import PREFIX
from tests.api.arena import Arena, new_table, ok, sit, viewer_link
from tests.api.asgi import Client
from tests.api.conftest import NewArena
from tests.api.stored import play_random_hand, set_status, store
from tests.api.test_redaction import RULES


async def seated(arena: Arena, **table: Any) -> tuple[Client, Client, str, str]:
    """A private table of alice's with her in seat 1 and bob in seat 2; bob's agent's id."""
    alice, bob = await arena.user("alice"), await arena.user("bob")
    table_id = await new_table(alice, visibility="unlisted", **table)
    await sit(alice, table_id, 1)
    agent_id = await sit(bob, table_id, 2)
    ok(await alice.patch(f"/v1/tables/{table_id}", {"visibility": "private"}))
    return alice, bob, table_id, agent_id


async def works(link: Client, table_id: str) -> bool:
    reply = await link.get(f"/v1/tables/{table_id}/state")
    if reply.status == 200:
        return True
    assert (reply.status, reply.code) == (401, "viewer_link_invalid"), reply
    assert reply.headers["www-authenticate"].startswith("Bearer")
    return False


async def test_a_link_opens_its_table_with_the_runs_and_hands_and_nothing_else(
    arena: Arena,
) -> None:
    alice, bob, table_id, _ = await seated(arena)
    run_id = ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 5}), 201)["id"]
    hand = play_random_hand(Random(1), RULES, (1, 2), hand_no=1)
    await store(arena.database, run_id, [hand])
    link = await viewer_link(bob, table_id, 2)
    for path in (
        f"/v1/tables/{table_id}",
        f"/v1/tables/{table_id}/seats",
        f"/v1/tables/{table_id}/state",
        f"/v1/tables/{table_id}/runs",
        f"/v1/runs/{run_id}",
        f"/v1/runs/{run_id}/results",
        f"/v1/runs/{run_id}/hands",
        f"/v1/hands/hand_{hand.id.hex}",
        f"/v1/hands/hand_{hand.id.hex}/actions",
        f"/v1/hands/hand_{hand.id.hex}/replay",
    ):
        # To the letter what the seat's owner is shown.
        assert ok(await link.get(path)) == ok(await bob.get(path)), path
    # Another table is not there, not even one that is open to all.
    open_table = await new_table(alice, visibility="public")
    await sit(alice, open_table, 1)
    await sit(bob, open_table, 2)
    other_run = ok(await alice.post(f"/v1/tables/{open_table}/runs", {"hands": 5}), 201)["id"]
    for path in (f"/v1/tables/{open_table}", f"/v1/runs/{other_run}"):
        assert (await link.get(path)).status == 404
    for method, path in (
        ("GET", "/v1/tables"),
        ("GET", "/v1/me"),
        ("GET", "/v1/viewer-links"),
        ("GET", f"/v1/runs/{run_id}/seats/2/sandbox"),
        ("POST", f"/v1/runs/{run_id}/stop"),
        ("DELETE", f"/v1/tables/{table_id}/seats/2"),
        ("DELETE", f"/v1/viewer-links/{link.id}"),
        ("POST", "/v1/auth/logout"),
    ):
        reply = await link.request(method, path)
        assert (reply.status, reply.code) == (403, "viewer_link_insufficient"), (method, path)


async def test_of_two_seats_in_one_hand_the_link_shows_its_own(arena: Arena) -> None:
    alice = await arena.user("alice")
    table_id = await new_table(alice)
    await sit(alice, table_id, 1)
    await sit(alice, table_id, 2)
    run_id = ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 5}), 201)["id"]
    link = await viewer_link(alice, table_id, 2)
    shown = ok(await link.get(f"/v1/runs/{run_id}"))
    assert shown["own_seats"] == [2]
    assert ok(await alice.get(f"/v1/runs/{run_id}"))["own_seats"] == [1, 2]
    # The maker owns the table; the link does not.
    await set_status(arena.database, run_id, "failed", 0)
    assert ok(await link.get(f"/v1/runs/{run_id}"))["failure_detail"] is None


async def test_only_the_owner_of_the_agent_in_the_seat_makes_a_link(arena: Arena) -> None:
    alice, bob, table_id, _ = await seated(arena)
    stranger, operator = await arena.user("eve"), await arena.user("operator", Role.OPERATOR)
    order = {"name": "x", "expires_in_s": 60}
    for caller, seat_no, status, code in (
        (alice, 2, 403, "not_seat_owner"),
        (operator, 2, 403, "not_seat_owner"),
        (stranger, 2, 404, "not_found"),
        (bob, 3, 404, "not_found"),
        (bob, 99_999, 422, "seat_out_of_range"),
    ):
        path = f"/v1/tables/{table_id}/seats/{seat_no}/viewer-links"
        reply = await caller.post(path, order)
        assert (reply.status, reply.code) == (status, code), reply
    link = await viewer_link(bob, table_id, 2)
    assert [one["id"] for one in ok(await bob.get("/v1/viewer-links"))["items"]] == [link.id]
    for caller in (alice, operator):
        assert ok(await caller.get("/v1/viewer-links"))["items"] == []
        assert (await caller.delete(f"/v1/viewer-links/{link.id}")).status == 404


Ending = Callable[[Arena, Client, Client, str, str, str], Awaitable[None]]


async def _revoked(
    arena: Arena, alice: Client, bob: Client, table_id: str, agent_id: str, link_id: str
) -> None:
    ok(await bob.delete(f"/v1/viewer-links/{link_id}"), 204)
    ok(await bob.delete(f"/v1/viewer-links/{link_id}"), 204)


async def _expired(
    arena: Arena, alice: Client, bob: Client, table_id: str, agent_id: str, link_id: str
) -> None:
    async with arena.database.unit_of_work() as session:
        await session.execute(
            text(
                "UPDATE viewer_links SET created_at = created_at - interval '1 day',"
                " expires_at = now() - interval '1 second'"
            )
        )


async def _left(
    arena: Arena, alice: Client, bob: Client, table_id: str, agent_id: str, link_id: str
) -> None:
    """Left, and taken again by the same agent: a new sitting."""
    version = ok(await bob.get(f"/v1/agents/{agent_id}/versions"))["items"][0]["id"]
    path = f"/v1/tables/{table_id}/seats/2"
    ok(await alice.patch(f"/v1/tables/{table_id}", {"visibility": "unlisted"}))
    ok(await alice.delete(path), 204)
    ok(await bob.put(path, {"agent_id": agent_id, "version_id": version}))


async def _given_to_another(
    arena: Arena, alice: Client, bob: Client, table_id: str, agent_id: str, link_id: str
) -> None:
    ok(await alice.delete(f"/v1/tables/{table_id}/seats/2"), 204)
    await sit(alice, table_id, 2, "Another")


async def _archived(
    arena: Arena, alice: Client, bob: Client, table_id: str, agent_id: str, link_id: str
) -> None:
    # The service lets nobody archive an agent in its seat; the link would not outlive it either.
    async with arena.database.unit_of_work() as session:
        await session.execute(text("UPDATE agents SET archived_at = now()"))


async def _table_archived(
    arena: Arena, alice: Client, bob: Client, table_id: str, agent_id: str, link_id: str
) -> None:
    ok(await alice.post(f"/v1/tables/{table_id}/archive"))


async def _disabled(
    arena: Arena, alice: Client, bob: Client, table_id: str, agent_id: str, link_id: str
) -> None:
    operator = await arena.user("operator", Role.OPERATOR)
    ok(await operator.post(f"/v1/users/{bob.id}/disable"))


@pytest.mark.parametrize(
    "ending",
    [_revoked, _expired, _left, _given_to_another, _archived, _table_archived, _disabled],
)
async def test_a_link_ends_with_what_it_stands_for(arena: Arena, ending: Ending) -> None:
    alice, bob, table_id, agent_id = await seated(arena)
    link = await viewer_link(bob, table_id, 2)
    assert await works(link, table_id)
    await ending(arena, alice, bob, table_id, agent_id, link.id)
    assert not await works(link, table_id)
    if ending is not _disabled:
        assert ok(await bob.get("/v1/viewer-links"))["items"] == []


async def test_another_version_of_the_agent_is_the_same_sitting(arena: Arena) -> None:
    _, bob, table_id, agent_id = await seated(arena)
    link = await viewer_link(bob, table_id, 2)
    made = {"kind": "house", "house_name": "tight"}
    version = ok(await bob.post(f"/v1/agents/{agent_id}/versions", made), 201)
    seat = {"agent_id": agent_id, "version_id": version["id"]}
    ok(await bob.put(f"/v1/tables/{table_id}/seats/2", seat))
    assert await works(link, table_id)


async def test_a_run_of_before_the_sitting_is_not_the_links(arena: Arena) -> None:
    """Whoever played in the seat before keeps what was played before."""
    alice, bob, table_id, _ = await seated(arena)
    run_id = ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 5}), 201)["id"]
    ok(await alice.post(f"/v1/runs/{run_id}/stop"))
    ok(await alice.delete(f"/v1/tables/{table_id}/seats/2"), 204)
    await sit(alice, table_id, 2, "Another")
    link = await viewer_link(alice, table_id, 2)
    assert (await link.get(f"/v1/runs/{run_id}")).status == 404
    assert ok(await link.get(f"/v1/tables/{table_id}/runs"))["items"] == []
    assert ok(await link.get(f"/v1/tables/{table_id}/state"))["run"] is None
    ok(await bob.get(f"/v1/runs/{run_id}"))


async def test_a_stream_ends_within_one_recheck_of_the_revocation(new_arena: NewArena) -> None:
    # Nothing else wakes the stream: neither news nor a keep-alive.
    arena = await new_arena(stream_recheck_s=0.5, stream_keepalive_s=120)
    _, bob, table_id, _ = await seated(arena)
    link = await viewer_link(bob, table_id, 2)
    async with link.stream(f"/v1/tables/{table_id}/live") as stream:
        assert await stream.next_event("") == "keep-alive"
        ok(await bob.delete(f"/v1/viewer-links/{link.id}"), 204)
        assert await stream.next_event("end") == {"reason": "viewer_link_invalid"}
        assert await stream.next_event_or_end() is None


async def test_bounds_of_links_are_settings(new_arena: NewArena) -> None:
    arena = await new_arena(viewer_link_max_ttl_s=60, viewer_links_per_user_max=1)
    _, bob, table_id, _ = await seated(arena)
    path = f"/v1/tables/{table_id}/seats/2/viewer-links"
    reply = await bob.post(path, {"name": "x", "expires_in_s": 61})
    assert (reply.status, reply.code) == (422, "expiry_out_of_range")
    first = await viewer_link(bob, table_id, 2, expires_in_s=60)
    reply = await bob.post(path, {"name": "x", "expires_in_s": 60})
    assert (reply.status, reply.code) == (409, "too_many_viewer_links")
    ok(await bob.delete(f"/v1/viewer-links/{first.id}"), 204)
    await viewer_link(bob, table_id, 2, expires_in_s=60)


async def test_a_link_is_stored_as_a_mac_shown_once_and_audited(new_arena: NewArena) -> None:
    old = "cG9rZXJhcmVuYSB0ZXN0IHBlcHBlciBudW1iZXIgMSE="  # pragma: allowlist secret
    new = "cG9rZXJhcmVuYSB0ZXN0IHBlcHBlciBudW1iZXIgMiE="  # pragma: allowlist secret
    arena = await new_arena(token_pepper=old)
    _, bob, table_id, agent_id = await seated(arena)
    link = await viewer_link(bob, table_id, 2)
    assert link.token is not None
    assert link.token.startswith(PREFIX)
    assert tokens.is_well_formed(link.token, PREFIX)
    listed = ok(await bob.get("/v1/viewer-links"))["items"][0]
    assert "token" not in listed
    assert listed["last_used_at"] is None
    assert await works(link, table_id)
    assert ok(await bob.get("/v1/viewer-links"))["items"][0]["last_used_at"] is not None
    # A pepper that is rotated takes no link with it: it moves when it is used.
    rotated = await new_arena(token_pepper=new, token_peppers_previous=old)
    there = rotated.anonymous.with_token(link.token)
    async with arena.database.unit_of_work() as session:
        before = await session.get_one(ViewerLink, parse_id(IdKind.VIEWER_LINK, link.id))
        session.expunge(before)
    assert await works(there, table_id)
    async with arena.database.unit_of_work() as session:
        after = await session.get_one(ViewerLink, parse_id(IdKind.VIEWER_LINK, link.id))
        assert after.mac != before.mac
        rows = await session.execute(text("SELECT v::text FROM viewer_links v"))
        assert all(link.token[4:34] not in row for row in rows.scalars())
    assert await works(there, table_id)
    ok(await bob.delete(f"/v1/viewer-links/{link.id}"), 204)
    operator = await arena.user("operator", Role.OPERATOR)
    for event in ("viewer_link.created", "viewer_link.revoked"):
        [found] = ok(await operator.get(f"/v1/audit?event={event}"))["items"]
        assert (found["subject"], found["actor_id"]) == (link.id, bob.id)
        assert found["details"]["seat_no"] == 2
        assert found["details"]["table"] == table_id
        assert found["details"]["agent"] == agent_id


@pytest.mark.parametrize("wrong", ["pkv_", "pkv_" + "0" * 36, "pka_" + "0" * 36, "pkv_x"])
async def test_any_other_text_is_no_link(arena: Arena, wrong: str) -> None:
    reply = await arena.anonymous.with_token(wrong).get("/v1/tables")
    assert reply.status == 401
    assert wrong not in reply.body.decode()


async def test_an_account_that_is_closed_takes_its_links_along_in_other_processes(
    arena: Arena, new_arena: NewArena
) -> None:
    _, bob, table_id, _ = await seated(arena)
    link = await viewer_link(bob, table_id, 2)
    other = await new_arena(session_staleness_s=60)
    there = other.anonymous.with_token(link.token)
    assert await works(there, table_id)
    operator = await arena.user("operator", Role.OPERATOR)
    ok(await operator.post(f"/v1/users/{bob.id}/disable"))
    assert not await works(there, table_id)
