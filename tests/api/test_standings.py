"""An owner sees why a version is suspended and asks for a check; operators suspend and lift."""

from __future__ import annotations

from pokerarena.auth.models import Role
from tests.api.arena import Arena, new_agent, new_table, ok, sit


async def test_an_owner_sees_the_reason_and_an_operator_lifts_it(arena: Arena) -> None:
    owner, operator = await arena.user("alice"), await arena.user("operator", Role.OPERATOR)
    table = await new_table(owner)
    agent, version = await new_agent(owner, "Feeble", visibility="public")
    seat = {"agent_id": agent, "version_id": version}
    ok(await owner.put(f"/v1/tables/{table}/seats/1", seat))
    await sit(owner, table, 2)
    path = f"/v1/agents/{agent}/versions/{version}/standing"
    fresh = ok(await owner.get(path))
    assert (fresh["suspended_at"], fresh["failing_runs"], fresh["checks_left"]) == (None, [], 5)

    assert (await operator.post(f"{path}/suspend", {"reason": ""})).status == 422
    shown = ok(await operator.post(f"{path}/suspend", {"reason": "It floods a table."}))
    assert (shown["cause"], shown["reason"]) == ("operator", "It floods a table.")
    assert ok(await owner.get(path))["reason"] == "It floods a table."
    assert (await arena.anonymous.get(path)).status == 401
    stranger = await arena.user("bob")
    assert (await stranger.get(path)).status == 404
    refused = await owner.post(f"/v1/tables/{table}/runs", {"hands": 3})
    assert (refused.status, refused.code) == (409, "version_suspended")
    assert refused.json["version_id"] == version
    assert (await owner.post(f"{path}/check")).code == "suspended_by_operator"
    assert (await owner.post(f"{path}/lift")).status == 403

    assert ok(await operator.post(f"{path}/lift"))["suspended_at"] is None
    assert (await operator.post(f"{path}/lift")).code == "version_not_suspended"
    ok(await owner.post(f"/v1/tables/{table}/runs", {"hands": 3}), 201)
    events = ok(await operator.get(f"/v1/audit?subject={version}"))["items"]
    assert [one["event"] for one in events] == ["version.reinstated", "version.suspended"]
    assert {one["actor_id"] for one in events} == {operator.id}
