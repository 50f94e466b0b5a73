"""Signing keys: published before they sign, believed while they may have signed, and then gone."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, text, update

from pokerarena.auth import signing_keys
from pokerarena.auth.models import SigningKey
from pokerarena.auth.signing_keys import Rotation, SigningKeys
from pokerarena.sealing import open_sealer
from tests.api.arena import Arena, ok
from tests.api.asgi import Client
from tests.api.conftest import NewArena
from tests.auth.test_access_tokens import parts_of
from tests.auth.test_sessions import log_in


async def rotate(arena: Arena, **how: Any) -> Rotation:
    sealer = open_sealer(arena.settings)
    async with arena.database.unit_of_work() as session:
        return await signing_keys.rotate(session, sealer, arena.settings, **how)


async def published(arena: Arena) -> list[str]:
    reply = await arena.anonymous.get("/.well-known/jwks.json")
    return [key["kid"] for key in ok(reply)["keys"]]


async def shift(arena: Arena, by: timedelta) -> None:
    """Let that much time pass for every key."""
    async with arena.database.unit_of_work() as session:
        await session.execute(
            update(SigningKey).values(
                use_from=SigningKey.use_from - by, verify_until=SigningKey.verify_until - by
            )
        )


def look_again(*arenas: Arena) -> None:
    """Let the time pass after which a process reads the keys."""
    for arena in arenas:
        keys: SigningKeys = arena.anonymous.app.state.parts.signing_keys
        keys._read_at = float("-inf")


def kid_of(granted: dict[str, Any]) -> str:
    return str(parts_of(granted["access_token"])[0]["kid"])


async def test_a_key_is_published_then_used_then_only_believed_then_gone(arena: Arena) -> None:
    await arena.user("alice")
    old = await log_in(arena)
    old_client = arena.anonymous.with_token(old["access_token"])
    assert await published(arena) == [kid_of(old)]

    rotation = await rotate(arena)
    look_again(arena)
    assert await published(arena) == [kid_of(old), rotation.kid]
    assert kid_of(await log_in(arena)) == kid_of(old), "it does not sign before its time"

    lead = timedelta(seconds=arena.settings.signing_key_publish_s)
    await shift(arena, lead)
    look_again(arena)
    new = await log_in(arena)
    assert kid_of(new) == rotation.kid
    assert await published(arena) == [kid_of(old), rotation.kid]
    ok(await old_client.get("/v1/me"))

    life = timedelta(seconds=arena.settings.access_token_ttl_s)
    await shift(arena, life)
    look_again(arena)
    ok(await old_client.get("/v1/me"))  # the last one that it signed is just expiring

    await shift(arena, timedelta(seconds=60))
    look_again(arena)
    assert await published(arena) == [rotation.kid]
    assert (await old_client.get("/v1/me")).code == "token_invalid"
    ok(await arena.anonymous.with_token(new["access_token"]).get("/v1/me"))

    await rotate(arena)
    async with arena.database.unit_of_work() as session:
        kids = set(await session.scalars(select(SigningKey.kid)))
    assert kid_of(old) not in kids


async def test_rotation_under_load_refuses_no_valid_request(new_arena: NewArena) -> None:
    changes = {"signing_key_publish_s": 1, "signing_keys_refresh_s": 0.3}
    one, two = await new_arena(**changes), await new_arena(**changes)
    await one.user("alice")
    rotations = [await rotate(one)]
    used: set[str] = set()
    refused: list[object] = []
    done = asyncio.Event()

    async def load(here: Arena, there: Arena) -> None:
        granted = await log_in(here)
        for turn in itertools.count():
            if done.is_set():
                return
            if turn % 3 == 0:
                reply = await here.anonymous.post(
                    "/v1/auth/refresh", {"refresh_token": granted["refresh_token"]}
                )
                granted = ok(reply)
                used.add(kid_of(granted))
            # What one process signed this moment, the other one has to believe at once.
            reply = await there.anonymous.with_token(granted["access_token"]).get("/v1/agents")
            if reply.status != 200:
                refused.append(reply)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(load(one, two)), asyncio.create_task(load(two, one))]
    async with asyncio.timeout(60):
        while not {rotation.kid for rotation in rotations} <= used or len(rotations) < 2:
            if rotations[-1].kid in used:
                rotations.append(await rotate(two))
            await asyncio.sleep(0.05)
        done.set()
        await asyncio.gather(*tasks)
    assert refused == []
    assert len(used) == 3


async def test_a_stolen_key_is_believed_by_nobody_once_it_is_known(new_arena: NewArena) -> None:
    one, two = await new_arena(), await new_arena()
    await one.user("alice")
    granted = await log_in(one)
    clients = [Client(arena.anonymous.app, granted["access_token"]) for arena in (one, two)]
    for client in clients:
        ok(await client.get("/v1/me"))
    rotation = await rotate(one, compromised=True)
    assert rotation.retired == 1
    look_again(one, two)
    for client in clients:
        assert (await client.get("/v1/me")).code == "token_invalid"
    assert await published(two) == [rotation.kid]
    # The session itself was not stolen: its refresh token gets one of the new key.
    refreshed = ok(
        await two.anonymous.post("/v1/auth/refresh", {"refresh_token": granted["refresh_token"]})
    )
    assert kid_of(refreshed) == rotation.kid


async def test_processes_that_begin_at_once_make_one_first_key(new_arena: NewArena) -> None:
    arenas = [await new_arena() for _ in range(4)]
    now = datetime.now(UTC)
    made = await asyncio.gather(
        *(arena.anonymous.app.state.parts.signing_keys.to_sign(now) for arena in arenas)
    )
    assert len({key.kid for key in made}) == 1
    async with arenas[0].database.unit_of_work() as session:
        assert await session.scalar(select(func.count()).select_from(SigningKey)) == 1


async def test_unknown_key_ids_do_not_cost_a_query_each(arena: Arena) -> None:
    await arena.user("alice")
    keys: SigningKeys = arena.anonymous.app.state.parts.signing_keys
    reads = 0
    read = keys._read

    async def counted() -> None:
        nonlocal reads
        reads += 1
        await read()

    keys._read = counted  # type: ignore[method-assign]
    keys._monotonic = lambda: keys._read_at + 0.5
    header, _, rest = (await log_in(arena))["access_token"].partition(".")
    forged = header[:-4] + "AAAA"
    for _ in range(20):
        reply = await arena.anonymous.with_token(f"{forged}.{rest}").get("/v1/me")
        assert reply.status == 401
    assert reads == 0


async def test_private_keys_are_sealed_and_open_under_their_own_row_only(arena: Arena) -> None:
    await arena.user("alice")
    async with arena.database.unit_of_work() as session:
        row = (await session.scalars(select(SigningKey))).one()
        stored = await session.scalar(text("SELECT signing_keys::text FROM signing_keys"))
    sealer = open_sealer(arena.settings)
    pem = await sealer.open(
        row.private_sealed, purpose=signing_keys.SEAL_PURPOSE, owner=row.id.bytes
    )
    assert b"PRIVATE KEY" in pem
    assert "PRIVATE KEY" not in row.public_pem
    for line in pem.splitlines()[1:-1]:
        # The public half is inside the private one; a line of its own is neither.
        assert line.decode() not in str(stored) or line.decode() in row.public_pem
    assert pem.hex() not in str(stored)
