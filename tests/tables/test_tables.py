"""Tables: made, changed, put away; and their seats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pokerarena.errors import Invalid
from pokerarena.tables.models import Format
from pokerarena.tables.rules import BlindLevel, TableRules, check_rules
from tests.api.arena import Arena, new_agent, new_table, ok, settings_for, sit

RULES: dict[str, Any] = {
    "name": "T", "seat_count": 6, "small_blind": 50, "big_blind": 100, "starting_stack": 10_000,
}  # fmt: skip


async def test_a_table_is_what_was_asked_for(arena: Arena) -> None:
    alice = await arena.user("alice")
    asked = {
        "name": "Freezeout ♠",
        "seat_count": 9,
        "small_blind": 25,
        "big_blind": 50,
        "ante": 5,
        "ante_kind": "big_blind",
        "starting_stack": 5_000,
        "format": "freezeout",
        "bust_policy": "leave",
        "visibility": "unlisted",
        "reveal_policy": "after_run",
        "blind_schedule": [
            {"hands": 10, "small_blind": 25, "big_blind": 50, "ante": 0},
            {"hands": 10, "small_blind": 50, "big_blind": 100, "ante": 100},
        ],
        "action_time_ms": 500,
        "time_bank_ms": 10_000,
        "sandbox_runtime": "runc",
    }
    made = ok(await alice.post("/v1/tables", asked), 201)
    read = ok(await alice.get(f"/v1/tables/{made['id']}"))
    assert read == made
    assert {name: read[name] for name in asked} == asked
    assert read["owner_id"] == alice.id
    assert read["created_at"].endswith("Z")


async def test_a_table_names_only_a_sandbox_runtime_that_the_deployment_has(arena: Arena) -> None:
    alice = await arena.user("alice")
    for runtime in ("runsc", "crun"):
        reply = await alice.post("/v1/tables", {"name": "T", "sandbox_runtime": runtime})
        assert (reply.status, reply.code) == (422, "runtime_not_available"), reply
    reply = await alice.post("/v1/tables", {"name": "T", "sandbox_runtime": "chroot"})
    assert reply.status == 422
    table_id = await new_table(alice, sandbox_runtime="runc")
    gone = ok(await alice.patch(f"/v1/tables/{table_id}", {"sandbox_runtime": None}))
    assert gone["sandbox_runtime"] is None


async def test_a_change_keeps_what_it_does_not_name(arena: Arena) -> None:
    alice = await arena.user("alice")
    schedule = [{"hands": 5, "small_blind": 50, "big_blind": 100, "ante": 0}]
    table_id = await new_table(alice, format="freezeout", blind_schedule=schedule)
    before = ok(await alice.get(f"/v1/tables/{table_id}"))
    after = ok(await alice.patch(f"/v1/tables/{table_id}", {"name": "New", "time_bank_ms": 7}))
    assert after == before | {"name": "New", "time_bank_ms": 7}
    assert ok(await alice.patch(f"/v1/tables/{table_id}", {})) == after
    # A schedule goes with its format, or when it is taken away.
    gone = ok(await alice.patch(f"/v1/tables/{table_id}", {"format": "reset"}))
    assert (gone["format"], gone["blind_schedule"]) == ("reset", None)
    again = {"format": "freezeout", "blind_schedule": schedule}
    assert ok(await alice.patch(f"/v1/tables/{table_id}", again))["blind_schedule"] == schedule
    none = ok(await alice.patch(f"/v1/tables/{table_id}", {"blind_schedule": None}))
    assert none["blind_schedule"] is None
    for name in ("name", "big_blind", "visibility", "format", "ante"):
        reply = await alice.patch(f"/v1/tables/{table_id}", {name: None})
        assert (reply.status, reply.json["errors"][0]["field"]) == (422, name), reply
    reply = await alice.patch(f"/v1/tables/{table_id}", {"big_blind": 20})
    assert (reply.status, reply.code) == (422, "blinds_order")
    assert ok(await alice.get(f"/v1/tables/{table_id}")) == none


async def test_a_table_does_not_shrink_below_its_taken_seats(arena: Arena) -> None:
    alice = await arena.user("alice")
    table_id = await new_table(alice, seat_count=6)
    await sit(alice, table_id, 5)
    reply = await alice.patch(f"/v1/tables/{table_id}", {"seat_count": 4})
    assert (reply.status, reply.code) == (409, "seats_in_use")
    assert ok(await alice.patch(f"/v1/tables/{table_id}", {"seat_count": 5}))["seat_count"] == 5


async def test_a_table_that_is_put_away_is_empty_and_takes_nobody(arena: Arena) -> None:
    alice = await arena.user("alice")
    table_id = await new_table(alice, visibility="public")
    agent_id = await sit(alice, table_id, 1)
    for _ in range(2):
        assert ok(await alice.post(f"/v1/tables/{table_id}/archive"))["archived_at"]
    assert ok(await alice.get(f"/v1/tables/{table_id}/seats"))["items"] == []
    assert ok(await alice.get("/v1/tables"))["items"] == []
    version = ok(await alice.get(f"/v1/agents/{agent_id}/versions"))["items"][0]["id"]
    body = {"agent_id": agent_id, "version_id": version}
    for method, path, more in (
        ("PUT", f"/v1/tables/{table_id}/seats/1", body),
        ("PATCH", f"/v1/tables/{table_id}", {"name": "x"}),
        ("POST", f"/v1/tables/{table_id}/runs", {"hands": 1}),
    ):
        reply = await alice.request(method, path, more)
        assert (reply.status, reply.code) == (409, "table_archived"), reply
    # Its agents are free again.
    assert ok(await alice.post(f"/v1/agents/{agent_id}/archive"))["archived_at"]


async def test_an_agent_in_its_seat_may_change_version_and_leave(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    table_id = await new_table(alice, visibility="public")
    agent_id, first = await new_agent(bob)
    order = {"kind": "house", "house_name": "tight"}
    second = ok(await bob.post(f"/v1/agents/{agent_id}/versions", order), 201)["id"]
    seat = f"/v1/tables/{table_id}/seats/2"
    for version_id, number in ((first, 1), (second, 2), (second, 2)):
        taken = ok(await bob.put(seat, {"agent_id": agent_id, "version_id": version_id}))
        assert (taken["version_number"], taken["owner_id"]) == (number, bob.id)
    assert len(ok(await alice.get(f"/v1/tables/{table_id}/seats"))["items"]) == 1
    reply = await bob.post(f"/v1/agents/{agent_id}/versions/{second}/retire")
    assert (reply.status, reply.code) == (409, "version_seated")
    for _ in range(2):
        ok(await bob.delete(seat), 204)
    for _ in range(2):
        assert ok(await bob.post(f"/v1/agents/{agent_id}/versions/{second}/retire"))["retired_at"]
    reply = await bob.put(seat, {"agent_id": agent_id, "version_id": second})
    assert (reply.status, reply.code) == (409, "version_retired")
    ok(await bob.put(seat, {"agent_id": agent_id, "version_id": first}))
    # The host may send a guest away.
    ok(await alice.delete(seat), 204)
    ok(await bob.post(f"/v1/agents/{agent_id}/archive"))
    reply = await bob.put(seat, {"agent_id": agent_id, "version_id": first})
    assert (reply.status, reply.code) == (409, "agent_archived")


async def test_of_many_who_want_one_seat_at_once_one_gets_it(arena: Arena) -> None:
    alice = await arena.user("alice")
    table_id = await new_table(alice, visibility="public")
    orders = []
    for number in range(6):
        agent_id, version_id = await new_agent(alice, f"Agent {number}")
        orders.append({"agent_id": agent_id, "version_id": version_id})
    replies = await asyncio.gather(
        *(alice.put(f"/v1/tables/{table_id}/seats/1", order) for order in orders)
    )
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409, 409, 409]
    seats = ok(await alice.get(f"/v1/tables/{table_id}/seats"))["items"]
    assert len(seats) == 1


async def test_of_many_runs_ordered_at_once_one_begins_with_a_whole_lineup(arena: Arena) -> None:
    alice = await arena.user("alice")
    table_id = await new_table(alice)
    await sit(alice, table_id, 1)
    await sit(alice, table_id, 2)
    agent_id, version_id = await new_agent(alice, "Late")
    late = {"agent_id": agent_id, "version_id": version_id}
    runs = f"/v1/tables/{table_id}/runs"
    replies = await asyncio.gather(
        alice.post(runs, {"hands": 5}),
        alice.put(f"/v1/tables/{table_id}/seats/3", late),
        alice.post(runs, {"hands": 5}),
        alice.patch(f"/v1/tables/{table_id}", {"big_blind": 500}),
        alice.post(runs, {"hands": 5}),
    )
    created = [reply for reply in replies if reply.status == 201]
    assert len(created) == 1, replies
    run = created[0].json
    seats = ok(await alice.get(f"/v1/tables/{table_id}/seats"))["items"]
    assert [seat["seat_no"] for seat in run["lineup"]] == [seat["seat_no"] for seat in seats]
    table = ok(await alice.get(f"/v1/tables/{table_id}"))
    assert run["rules"]["big_blind"] == table["big_blind"]
    assert all(reply.status in (200, 201, 409) for reply in replies), replies


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"big_blind": 50}, None),
        ({"starting_stack": 100}, None),
        ({"ante": 100}, None),
        ({"seat_count": 1}, "out_of_range"),
        ({"small_blind": 0}, "out_of_range"),
        ({"big_blind": 49}, "blinds_order"),
        ({"starting_stack": 99}, "out_of_range"),
        ({"starting_stack": 10**9 + 1}, "out_of_range"),
        ({"ante": 101}, "out_of_range"),
        ({"action_time_ms": 0}, "out_of_range"),
        ({"time_bank_ms": -1}, "out_of_range"),
        ({"format": Format.FREEZEOUT}, None),
        ({"blind_schedule": (BlindLevel(1, 50, 100),)}, "blind_schedule_unexpected"),
        ({"format": Format.FREEZEOUT, "blind_schedule": ()}, "blind_schedule_length"),
        (
            {"format": Format.FREEZEOUT, "blind_schedule": (BlindLevel(1, 50, 100),) * 101},
            "blind_schedule_length",
        ),
        ({"format": Format.FREEZEOUT, "blind_schedule": (BlindLevel(0, 50, 100),)}, "out_of_range"),
        ({"format": Format.FREEZEOUT, "blind_schedule": (BlindLevel(1, 50, 100),)}, None),
        ({"format": Format.FREEZEOUT, "blind_schedule": (BlindLevel(1, 20, 40),)}, "blinds_fall"),
        (
            {"format": Format.FREEZEOUT, "blind_schedule": (BlindLevel(1, 200, 100),)},
            "blinds_order",
        ),
    ],
)
def test_rules_are_checked_once_for_every_door(changes: dict[str, Any], code: str | None) -> None:
    settings = settings_for("postgresql+psycopg://u@/d")
    rules = TableRules(**RULES | changes)
    if code is None:
        check_rules(rules, settings)
        return
    with pytest.raises(Invalid) as refused:
        check_rules(rules, settings)
    assert refused.value.code == code
    assert refused.value.context["field"]
