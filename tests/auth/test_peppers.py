"""A ring of peppers: tokens outlive their pepper when they are used in time, and only then."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pokerarena.api.app import create_app
from pokerarena.auth.models import Role
from pokerarena.db import Database
from tests.api.arena import PASSWORD, Arena, ok, settings_for
from tests.api.asgi import Client


@asynccontextmanager
async def arena_with(database_url: str, pepper: str, *previous: str) -> AsyncIterator[Arena]:
    settings = settings_for(
        database_url, token_pepper=pepper, token_peppers_previous=",".join(previous)
    )
    database = Database(settings, application_name="test")
    app = create_app(settings, database)
    async with app.router.lifespan_context(app):
        yield Arena(settings, database, Client(app))
    await database.close()


async def new_token(user: Client, name: str) -> str:
    order = {"name": name, "scopes": ["agents:read"], "expires_in_s": 3600}
    return str(ok(await user.post("/v1/tokens", order), 201)["token"])


async def refresh(arena: Arena, text: str) -> str | None:
    reply = await arena.anonymous.post("/v1/auth/refresh", {"refresh_token": text})
    return str(reply.json["refresh_token"]) if reply.status == 200 else None


async def status(arena: Arena, token: str) -> int:
    return (await arena.anonymous.with_token(token).get("/v1/me")).status


async def test_a_token_moves_to_the_present_pepper_when_it_is_used(database_url: str) -> None:
    old, new = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    async with arena_with(database_url, old) as arena:
        user = await arena.user("alice", Role.MEMBER)
        used, unused = await new_token(user, "used"), await new_token(user, "unused")
    async with arena_with(database_url, new, old) as arena:
        assert [await status(arena, used) for _ in range(2)] == [200, 200]
    async with arena_with(database_url, new) as arena:
        assert await status(arena, used) == 200
        assert await status(arena, unused) == 401
    async with arena_with(database_url, old) as arena:
        assert await status(arena, used) == 401
        assert await status(arena, unused) == 200


async def test_a_session_moves_to_the_present_pepper_when_it_is_refreshed(
    database_url: str,
) -> None:
    old, new = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    async with arena_with(database_url, old) as arena:
        await arena.user("alice", Role.MEMBER)
        login = {"username": "alice", "password": PASSWORD}
        first, second = [
            ok(await arena.anonymous.post("/v1/auth/login", login))["refresh_token"]
            for _ in range(2)
        ]
    async with arena_with(database_url, new, old) as arena:
        moved = await refresh(arena, first)
        assert moved is not None
    async with arena_with(database_url, new) as arena:
        latest = await refresh(arena, moved)
        assert latest is not None
        assert await refresh(arena, second) is None
        # What was used before its pepper changed is still known as used, and ends the family.
        assert await refresh(arena, first) is None
        assert await refresh(arena, latest) is None
