"""What whoever has the database does to accounts and keys, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pokerarena.ops.api_client import ApiClient
from tests.api.arena import ok
from tests.api.conftest import NewArena, new_arena
from tests.auth.test_second_factor import enrol, log_in
from tests.auth.test_sessions import logged_in
from tests.auth.test_signing_keys import kid_of, look_again, published
from tests.ops.test_cli import here, one_line

__all__ = ["new_arena"]


@pytest.fixture
def with_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POKERARENA_DATABASE_URL", database_url)
    monkeypatch.setenv("POKERARENA_ARGON2_MEMORY_KIB", "8192")


async def in_thread(*arguments: str) -> Any:
    """The command has an event loop of its own."""
    import asyncio

    return await asyncio.to_thread(here, *arguments)


async def test_signing_keys_are_rotated_by_plan_and_at_once(
    with_database: None, new_arena: NewArena
) -> None:
    arena = await new_arena()
    granted = await logged_in(arena)
    client = arena.anonymous.with_token(granted["access_token"])
    done = await in_thread("admin", "rotate-signing-keys")
    assert done.returncode == 0, done.stderr
    look_again(arena)
    kids = await published(arena)
    assert kids[0] == kid_of(granted)
    assert done.stdout.startswith(f"key {kids[1]} signs from 20")
    assert done.stdout.endswith("; 1 retired\n")
    ok(await client.get("/v1/me"))

    done = await in_thread("admin", "rotate-signing-keys", "--compromised")
    assert done.returncode == 0, done.stderr
    look_again(arena)
    assert len(await published(arena)) == 1
    assert (await client.get("/v1/me")).code == "token_invalid"


async def test_a_lost_second_factor_is_taken_away_with_the_sessions_that_it_began(
    with_database: None, new_arena: NewArena
) -> None:
    arena = await new_arena()
    alice = await arena.user("alice")
    await enrol(alice)
    assert (await log_in(arena, None)).code == "second_factor_required"
    done = await in_thread("admin", "reset-second-factor", "Alice")
    assert (done.returncode, done.stdout) == (
        0,
        "Alice logs in without a second factor now\n",
    )
    ok(await log_in(arena, None))
    assert (await alice.get("/v1/me")).code == "token_invalid"
    done = await in_thread("admin", "reset-second-factor", "nobody")
    assert done.returncode == 1
    assert "no such user" in one_line(done)


def test_a_database_without_a_schema_is_one_line(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POKERARENA_DATABASE_URL", empty_database_url)
    done = here("admin", "rotate-signing-keys")
    assert done.returncode == 1
    assert "migrate up" in one_line(done)


def test_the_client_refreshes_its_session_before_it_expires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[str, str | None]] = []

    def granted(number: int) -> dict[str, Any]:
        return {
            "access_token": f"access {number}",
            "refresh_token": f"refresh {number}",
            "expires_at": "2100-01-01T00:00:00Z",
        }

    def called(self: ApiClient, method: str, path: str, body: Any) -> Any:
        self._keep_session()
        sent.append((path, self._token))
        if path == "/v1/auth/login":
            return granted(1)
        if path == "/v1/auth/refresh":
            assert body == {"refresh_token": "refresh 1"}
            return granted(2)
        return {}

    monkeypatch.setattr(ApiClient, "_call", called)
    client = ApiClient("http://127.0.0.1:1")
    client.login("alice", "secret")
    client.get("/v1/me")
    client._refresh_at = 0.0  # its time has come
    client.get("/v1/me")
    client.get("/v1/me")
    assert sent == [
        ("/v1/auth/login", None),
        ("/v1/me", "access 1"),
        ("/v1/auth/refresh", None),
        ("/v1/me", "access 2"),
        ("/v1/me", "access 2"),
    ]
