"""Uploading a hosted agent: what is taken, what is refused, what is kept, and who sees what of it."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from pokerarena.agents.models import CheckStatus
from pokerarena.agents.packages import settle_check
from pokerarena.api.app import create_app
from pokerarena.ids import IdKind, parse_id
from tests.api.arena import Arena, new_table, ok
from tests.api.asgi import Client, Reply
from tests.api.test_audit import events

BOT = "def act(view): return view.check_or_call()\n"
REPORT = {
    "findings": [{"severity": "error", "code": "malformed", "where": "a hand", "sentence": "x"}],
    "errors": 1, "warnings": 0, "decisions": 9, "hands": 1, "median_ms": 0.5, "slowest_ms": 2.0,
    "starts": 1, "cpu_ms": 80, "memory_peak_bytes": 9_000_000, "stderr": "my own words",
    "stray_lines": 0, "ends": [],
}  # fmt: skip


def packed(source: str = BOT, **manifest: Any) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr(
            "agent.json", json.dumps({"runtime": "python3", "entry_point": "bot.py"} | manifest)
        )
        archive.writestr("bot.py", source)
    return raw.getvalue()


async def upload(
    client: Client, agent_id: str, body: bytes, kind: str = "application/zip", query: str = ""
) -> Reply:
    path = f"/v1/agents/{agent_id}/versions{query}"
    return await client.post(path, raw=body, headers={"content-type": kind})


async def an_agent(client: Client, name: str = "Boxed") -> str:
    body = {"name": name, "visibility": "public"}
    return str(ok(await client.post("/v1/agents", body), 201)["id"])


async def settle(arena: Arena, version: dict[str, Any], status: CheckStatus) -> bool:
    version_id: UUID = parse_id(IdKind.VERSION, version["id"])
    async with arena.database.unit_of_work() as session:
        return await settle_check(session, version_id, status, REPORT)


async def packages(arena: Arena) -> int:
    async with arena.database.session() as session:
        count = await session.execute(text("SELECT count(*) FROM agent_packages"))
        return int(count.scalar_one())


async def test_a_version_takes_a_seat_only_after_its_check(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    agent_id = await an_agent(alice)
    version = ok(await upload(alice, agent_id, packed(max_in_flight=200, events=True)), 201)
    assert (version["kind"], version["check_status"]) == ("hosted", "pending")
    assert (version["max_in_flight"], version["wants_events"]) == (64, True)
    assert version["manifest"]["max_in_flight"] == 200
    assert len(version["package_sha256"]) == 64
    async with arena.database.session() as session:
        jobs = await session.execute(
            text("SELECT args->>'version_id' FROM procrastinate_jobs WHERE queue_name = 'checks'")
        )
        assert [UUID(row[0]) for row in jobs] == [parse_id(IdKind.VERSION, version["id"])]
    seat = f"/v1/tables/{await new_table(alice)}/seats/1"
    order = {"agent_id": agent_id, "version_id": version["id"]}
    assert (await alice.put(seat, order)).code == "version_unchecked"
    assert await settle(arena, version, CheckStatus.FAILED)
    assert (await alice.put(seat, order)).code == "version_unfit"
    # The first verdict stands.
    assert not await settle(arena, version, CheckStatus.PASSED)
    path = f"/v1/agents/{agent_id}/versions/{version['id']}"
    assert ok(await alice.get(path))["check_report"]["stderr"] == "my own words"
    seen = ok(await bob.get(path))
    assert seen["check_status"] == "failed"
    inside = ("check_report", "manifest", "package_sha256", "package_size")
    assert [seen[name] for name in inside] == [None] * len(inside)

    fit = ok(await upload(alice, agent_id, packed()), 201)
    assert fit["number"] == 2
    assert await settle(arena, fit, CheckStatus.PASSED)
    ok(await alice.put(seat, order | {"version_id": fit["id"]}))


async def test_the_same_content_is_stored_once_and_goes_with_its_last_version(
    arena: Arena,
) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    one, two = await an_agent(alice), await an_agent(bob)
    first = ok(await upload(alice, one, packed()), 201)
    second = ok(await upload(bob, two, packed()), 201)
    assert first["package_sha256"] == second["package_sha256"]
    assert await packages(arena) == 1
    ok(await alice.post(f"/v1/agents/{one}/versions/{first['id']}/retire"))
    assert await packages(arena) == 1
    ok(await bob.post(f"/v1/agents/{two}/archive"))
    assert await packages(arena) == 0
    again = ok(await upload(alice, one, packed()), 201)
    assert again["package_sha256"] == first["package_sha256"]
    assert await packages(arena) == 1


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"PK\x03\x04 and nothing more", "application/zip", 422, "archive_corrupt"),
        (b"\x1f\x8b and nothing more", "application/gzip", 422, "archive_corrupt"),
        (b"", "application/zip", 422, "archive_empty"),
        (packed(surprise=1), "application/zip", 422, "manifest_invalid"),
        (packed(egress=["api.example.org:25"]), "application/zip", 422, "egress_host_refused"),
        (BOT.encode(), "text/x-python", 415, "unsupported_media_type"),
    ],
)
async def test_what_is_no_agent_is_refused_and_nothing_is_kept(
    arena: Arena, body: bytes, kind: str, status: int, code: str
) -> None:
    alice = await arena.user("alice")
    agent_id = await an_agent(alice)
    reply = await upload(alice, agent_id, body, kind)
    assert (reply.status, reply.code) == (status, code)
    assert await packages(arena) == 0
    assert ok(await alice.get(f"/v1/agents/{agent_id}/versions"))["items"] == []


async def test_an_upload_may_be_larger_than_other_bodies_up_to_its_own_bound(
    arena: Arena,
) -> None:
    alice = await arena.user("alice")
    agent_id = await an_agent(alice)
    large = BOT.encode() + b"#" * arena.settings.api_max_body_bytes
    version = ok(
        await upload(alice, agent_id, large, "application/octet-stream", "?file_name=mine.py"), 201
    )
    assert version["manifest"]["entry_point"].endswith(".py")
    bound = arena.settings.upload_max_bytes
    reply = await alice.post(
        f"/v1/agents/{agent_id}/versions",
        raw=b"x",
        headers={"content-type": "application/zip", "content-length": str(bound + 1)},
    )
    assert (reply.status, reply.code) == (413, "body_too_large")
    # Elsewhere an archive is no body at all.
    reply = await alice.post("/v1/tables", raw=b"x", headers={"content-type": "application/zip"})
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


async def test_an_upload_that_is_sent_again_makes_one_version(arena: Arena) -> None:
    alice = await arena.user("alice")
    agent_id = await an_agent(alice)
    path, key = f"/v1/agents/{agent_id}/versions", {"idempotency-key": "once"}

    async def send(body: bytes) -> Reply:
        headers = {"content-type": "application/zip", **key}
        return await alice.post(path, raw=body, headers=headers)

    body = packed()
    first, again = await send(body), await send(body)
    assert ok(again, 201) == ok(first, 201)
    assert again.headers["idempotency-replayed"] == "true"
    assert (await send(packed(events=True))).code == "idempotency_key_reused"
    assert len(ok(await alice.get(path))["items"]) == 1
    # The audit says once who uploaded what.
    [(_, upload)] = await events(arena, "version.uploaded")
    assert upload["subject"] == first.json["id"]
    assert (f"user_{upload['actor'].hex}", upload["agent"]) == (alice.id, agent_id)
    assert len(upload["package_sha256"]) == 64


async def test_brackets_in_an_archive_are_no_nesting(arena: Arena) -> None:
    alice = await arena.user("alice")
    source = BOT + f"# {'[' * 2 * arena.settings.api_json_depth_max}\n"
    reply = await upload(
        alice,
        await an_agent(alice),
        source.encode(),
        "application/octet-stream",
        "?file_name=mine.py",
    )
    ok(reply, 201)


async def test_nobody_uploads_to_an_agent_of_another(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    agent_id = await an_agent(alice)
    assert (await upload(bob, agent_id, packed())).code == "not_agent_owner"
    assert (await upload(arena.anonymous, agent_id, packed())).status == 401
    assert await packages(arena) == 0


async def test_a_users_packages_have_a_quota_that_retired_versions_leave(arena: Arena) -> None:
    alice = await arena.user("alice")
    agent_id = await an_agent(alice)
    first = ok(await upload(alice, agent_id, packed()), 201)
    settings = arena.settings.model_copy(
        update={"package_bytes_per_user_max": first["package_size"] + 100}
    )
    narrow = Client(create_app(settings, arena.database), alice.token)
    other = packed(BOT + "# another\n")
    reply = await upload(narrow, agent_id, other)
    assert reply.code == "too_many_bytes"
    # The same content costs nothing more.
    ok(await upload(narrow, agent_id, packed()), 201)
    for version in ok(await alice.get(f"/v1/agents/{agent_id}/versions"))["items"]:
        ok(await alice.post(f"/v1/agents/{agent_id}/versions/{version['id']}/retire"))
    ok(await upload(narrow, agent_id, other), 201)
