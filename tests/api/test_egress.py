"""Operators keep the egress lists and decide on hosts; registration heeds both at once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from pokerarena.auth.models import Role
from tests.api.arena import Arena, new_agent, ok
from tests.api.asgi import Client
from tests.api.test_uploads import an_agent, packed, upload

DESTINATION = "api.example.org:443"


async def add(operator: Client, effect: str, kind: str, value: str) -> dict[str, Any]:
    body = {"effect": effect, "kind": kind, "value": value}
    rule: dict[str, Any] = ok(await operator.post("/v1/egress/rules", body), 201)
    return rule


async def register(client: Client, agent_id: str, url: str) -> Any:
    body = {"kind": "http", "callback_url": url}
    return await client.post(f"/v1/agents/{agent_id}/versions", body)


async def test_a_rule_holds_at_the_next_registration_and_until_it_is_removed(arena: Arena) -> None:
    alice, operator = await arena.user("alice"), await arena.user("operator", Role.OPERATOR)
    agent_id, _ = await new_agent(alice)
    rule = await add(operator, "deny", "domain", ".Example.NET")
    assert (rule["value"], rule["created_by"]) == (".example.net", operator.id)
    # Twice is once.
    assert await add(operator, "deny", "domain", ".example.net") == rule
    for url in ("https://example.net/", "https://a.b.example.net/"):
        refused = await register(alice, agent_id, url)
        assert (refused.status, refused.code) == (422, "callback_url_refused")
        assert "the operator denies this host" in refused.json["detail"]
    ok(await register(alice, agent_id, "https://example.net.example.org/"), 201)
    await add(operator, "allow", "domain", "agent.example.org")
    await add(operator, "allow", "domain", ".example.net")
    await add(operator, "deny", "port", "8000-8999")
    await add(operator, "allow", "scheme", "https")
    for url, why in {
        "https://example.net/": "the operator denies this host",
        "https://x.agent.example.org/": "not on the operator's list",
        "https://1.1.1.1/": "an address instead of a name",
        "https://agent.example.org:8443/": "the operator denies port 8443",
        "http://agent.example.org/": "use https",
    }.items():
        assert why in (await register(alice, agent_id, url)).json["detail"]
    ok(await register(alice, agent_id, "https://agent.example.org/"), 201)
    listed = ok(await operator.get("/v1/egress/rules?limit=200"))["items"]
    assert [one["value"] for one in listed] == [
        "https", "8000-8999", ".example.net", "agent.example.org", ".example.net",
    ]  # fmt: skip
    for one in listed:
        ok(await operator.delete(f"/v1/egress/rules/{one['id']}"), 204)
    assert (await operator.delete(f"/v1/egress/rules/{rule['id']}")).status == 404
    ok(await register(alice, agent_id, "https://example.net/"), 201)
    events = ok(await operator.get("/v1/audit?event=egress.rule_added"))["items"]
    assert len(events) == 5
    assert events[-1]["details"] == {"effect": "deny", "kind": "domain", "value": ".example.net"}
    assert len(ok(await operator.get("/v1/audit?event=egress.rule_removed"))["items"]) == 5


MEANINGLESS = [
    ("deny", "domain", "https://example.org", "a name"),
    ("deny", "domain", "example.org/path", "a name alone"),
    ("deny", "domain", "example.org:8080", "a domain is a name"),
    ("deny", "domain", "*.example.org", "characters other than"),
    ("deny", "domain", "..example.org", "empty or too long"),
    ("deny", "domain", "127.1", "this is an address"),
    ("deny", "scheme", "ftp", "http or https"),
    ("deny", "port", "0", "ports are 1 to"),
    ("deny", "port", "9000-8000", "upwards"),
    ("deny", "port", "http", "a number"),
    ("deny", "network", "10.0.0.1/8", "a network is written"),
    ("allow", "network", "10.0.0.0/8", "denied only"),
]


async def test_a_rule_that_means_nothing_is_refused_with_what_it_should_be(arena: Arena) -> None:
    operator = await arena.user("operator", Role.OPERATOR)
    for effect, kind, value, says in MEANINGLESS:
        body = {"effect": effect, "kind": kind, "value": value}
        reply = await operator.post("/v1/egress/rules", body)
        assert (reply.status, reply.code) == (422, "egress_rule_invalid"), value
        assert says in reply.json["detail"].lower()


async def test_rules_are_bounded(new_arena: Any) -> None:
    arena = await new_arena(egress_rules_max=1)
    operator = await arena.user("operator", Role.OPERATOR)
    await add(operator, "deny", "port", "1025")
    reply = await operator.post(
        "/v1/egress/rules", {"effect": "deny", "kind": "port", "value": "1026"}
    )
    assert reply.code == "too_many_egress_rules"


async def test_a_declared_host_waits_for_an_operator_and_its_owner_sees_it(arena: Arena) -> None:
    alice, operator = await arena.user("alice"), await arena.user("operator", Role.OPERATOR)
    agent_id = await an_agent(alice)
    body = packed(egress=[DESTINATION, "b.example.org:8443"])
    version = ok(await upload(alice, agent_id, body, "application/zip"), 201)["id"]
    mine = f"/v1/agents/{agent_id}/versions/{version}/egress"

    async def states() -> dict[str, str]:
        hosts = ok(await alice.get(mine))["hosts"]
        return {f"{one['host']}:{one['port']}": one["state"] for one in hosts}

    assert await states() == {DESTINATION: "pending", "b.example.org:8443": "pending"}
    (request,) = ok(await operator.get("/v1/egress/requests"))["items"]
    assert (request["version_id"], request["agent_id"]) == (version, agent_id)

    async def decide(destination: str, state: str) -> Any:
        order = {"destination": destination, "state": state}
        return await operator.request("PUT", f"/v1/egress/requests/{version}", body=order)

    for _ in range(2):
        ok(await decide(DESTINATION, "approved"))
    assert await states() == {DESTINATION: "approved", "b.example.org:8443": "pending"}
    ok(await decide("b.example.org:8443", "denied"))
    assert ok(await operator.get("/v1/egress/requests"))["items"] == []
    assert len(ok(await operator.get("/v1/egress/requests?state=all"))["items"]) == 1
    assert (await decide("c.example.org:443", "approved")).status == 404
    assert (await decide("nonsense", "approved")).code == "destination_invalid"
    # Deny wins over an approval, and says so.
    await add(operator, "deny", "domain", ".example.org")
    ok(await decide(DESTINATION, "denied"))
    refused = await decide(DESTINATION, "approved")
    assert (refused.status, refused.code) == (409, "egress_host_refused")
    again = await upload(alice, agent_id, body, "application/zip")
    assert (again.status, again.code) == (422, "egress_host_refused")
    audited = ok(await operator.get("/v1/audit?event=egress.approved"))["items"]
    assert [(one["subject"], one["details"]) for one in audited] == [
        (version, {"destination": DESTINATION})
    ]
    async with arena.database.session() as session:
        revision = await session.scalar(text("SELECT revision FROM egress_revision"))
    assert revision is not None
    assert revision >= 5
