"""Guessing: bounded per account, per address and for both, and blind to what exists."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from starlette.requests import Request

from pokerarena.api.addresses import client_address
from pokerarena.auth.models import LoginAttempts
from pokerarena.auth.passwords import PasswordHasher
from tests.api.arena import PASSWORD, Arena, ok, settings_for
from tests.api.asgi import Reply
from tests.api.conftest import NewArena

WRONG = "certainly not the password"
PROXY = {"api_trusted_proxies": ("127.0.0.0/8",)}


async def try_password(
    arena: Arena, name: str, password: str = WRONG, address: str = "192.0.2.1"
) -> Reply:
    return await arena.anonymous.post(
        "/v1/auth/login",
        {"username": name, "password": password},
        headers={"x-forwarded-for": address},
    )


def refused(reply: Reply) -> bool:
    if reply.status == 429:
        assert reply.code == "too_many_attempts"
        assert int(reply.headers["retry-after"]) == reply.json["retry_after_s"] > 0
        return True
    assert reply.status in (200, 401), reply
    return False


async def pass_window(arena: Arena) -> None:
    async with arena.database.unit_of_work() as session:
        await session.execute(
            update(LoginAttempts).values(window_ends_at=func.now() - timedelta(seconds=1))
        )


async def test_one_address_has_a_few_tries_for_an_account_and_a_right_password_waits_too(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(**PROXY, login_attempts_per_pair_max=3)
    await arena.user("alice")
    assert [refused(await try_password(arena, "alice")) for _ in range(5)] == [False] * 3 + [
        True
    ] * 2
    assert refused(await try_password(arena, "ALICE", PASSWORD)), "however it is capitalised"
    # Its owner comes in from elsewhere: what was refused did not use up the account's tries.
    ok(await try_password(arena, "alice", PASSWORD, "198.51.100.7"))
    await pass_window(arena)
    ok(await try_password(arena, "alice", PASSWORD))


async def test_an_account_has_so_many_tries_from_all_addresses_together(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(**PROXY, login_attempts_per_account_max=4)
    replies = [
        await try_password(arena, "alice", address=f"192.0.2.{number}") for number in range(6)
    ]
    assert [refused(reply) for reply in replies] == [False] * 4 + [True] * 2


async def test_an_address_has_so_many_tries_for_all_accounts_together(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(**PROXY, login_attempts_per_address_max=4)
    replies = [await try_password(arena, f"user{number}") for number in range(6)]
    assert [refused(reply) for reply in replies] == [False] * 4 + [True] * 2
    assert not refused(await try_password(arena, "user1", address="198.51.100.7"))
    # Of IPv6, a customer's whole network is one address.
    for number in range(4):
        assert not refused(await try_password(arena, f"v6-{number}", address=f"2001:db8::{number}"))
    assert refused(await try_password(arena, "v6-9", address="2001:db8::ffff:1"))
    assert not refused(await try_password(arena, "v6-9", address="2001:db8:0:1::1"))


async def test_a_thousand_tries_at_once_are_a_thousand_tries(new_arena: NewArena) -> None:
    one = await new_arena(**PROXY, login_attempts_per_pair_max=5)
    two = await new_arena(**PROXY, login_attempts_per_pair_max=5)
    replies = await asyncio.gather(
        *(try_password(arena, "alice") for _ in range(20) for arena in (one, two))
    )
    assert sum(not refused(reply) for reply in replies) == 5


async def test_success_gives_an_account_its_tries_back_and_an_address_only_its_own(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(
        **PROXY, login_attempts_per_pair_max=3, login_attempts_per_address_max=5
    )
    await arena.user("mallory")
    for _ in range(3):
        for _ in range(2):
            if refused(await try_password(arena, "alice")):
                break
        # An account of one's own does not help with somebody else's.
        reply = await try_password(arena, "mallory", PASSWORD)
        assert reply.status in (200, 429)
    assert refused(await try_password(arena, "alice"))
    # Three of the address's five were for alice, and none for mallory.
    assert [refused(await try_password(arena, "bob")) for _ in range(3)] == [False, False, True]


async def test_existing_and_unknown_accounts_cannot_be_told_apart(
    new_arena: NewArena, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = await new_arena(**PROXY, login_attempts_per_pair_max=3)
    await arena.user("alice")
    hashed: list[str] = []
    judge = PasswordHasher._judge

    def counted(self: PasswordHasher, stored_hash: str, password: str) -> Any:
        hashed.append(stored_hash.split("$")[3])
        return judge(self, stored_hash, password)

    monkeypatch.setattr(PasswordHasher, "_judge", counted)
    answers: dict[str, list[Any]] = {}
    for name in ("alice", "nobody"):
        hashed.clear()
        told = []
        for _ in range(5):
            reply = await try_password(arena, name)
            headers = {
                key: value
                for key, value in reply.headers.items()
                if key not in ("x-request-id", "retry-after")
            }
            body = {
                key: value
                for key, value in reply.json.items()
                if key not in ("request_id", "retry_after_s", "detail")
            }
            told.append((reply.status, headers, body))
        answers[name] = [told, list(hashed)]
    assert answers["alice"] == answers["nobody"]
    # The same work for each that was judged, none for the others.
    assert len(answers["nobody"][1]) == 3


async def test_what_was_tried_is_counted_under_no_readable_name_and_forgotten(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(**PROXY)
    await try_password(arena, "alice", address="192.0.2.77")
    async with arena.database.unit_of_work() as session:
        stored = "\n".join(
            await session.scalars(text("SELECT login_attempts::text FROM login_attempts"))
        )
    assert stored.count("\n") == 2
    for readable in ("alice", "192.0.2.77", b"alice".hex(), b"192.0.2.77".hex()):
        assert readable not in stored
    await pass_window(arena)
    await try_password(arena, "bob", address="192.0.2.78")
    async with arena.database.unit_of_work() as session:
        assert await session.scalar(select(func.count()).select_from(LoginAttempts)) == 3


async def test_whoever_took_over_a_session_cannot_guess_its_password(new_arena: NewArena) -> None:
    arena = await new_arena(login_attempts_per_pair_max=3)
    alice = await arena.user("alice")
    change = {"current_password": WRONG, "new_password": "a new one for the winter"}
    codes = [
        (await alice.put("/v1/me/password", change)).code,
        (await alice.post("/v1/me/second-factor", {"current_password": WRONG})).code,
        (await alice.put("/v1/me/password", change)).code,
        (await alice.put("/v1/me/password", change | {"current_password": PASSWORD})).code,
    ]
    assert codes == ["password_wrong"] * 3 + ["too_many_attempts"]
    # Which is no way to keep its owner from logging in.
    await arena.login("alice")


async def test_codes_cannot_be_guessed_either(new_arena: NewArena) -> None:
    from tests.auth.test_second_factor import enrol, let_time_pass, log_in

    arena = await new_arena(login_attempts_per_pair_max=3)
    alice = await arena.user("alice")
    phone, _ = await enrol(alice)
    await let_time_pass(arena)
    wrong = phone.wrong_code()
    assert [(await log_in(arena, wrong)).status for _ in range(4)] == [401, 401, 401, 429]
    assert (await log_in(arena, phone.code())).status == 429
    path = "/v1/me/second-factor/recovery-codes"
    assert [(await alice.post(path, {"code": wrong})).status for _ in range(4)] == [
        403, 403, 403, 429,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("10.0.0.9", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.9", "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("10.0.0.9", "192.0.2.1, 10.0.0.8", "192.0.2.1"),
        ("10.0.0.9", "10.0.0.7, 10.0.0.8", "10.0.0.7"),
        ("10.0.0.9", "", "10.0.0.9"),
        ("10.0.0.9", "unknown", "10.0.0.9"),
        ("10.0.0.9", "192.0.2.1, evil", "10.0.0.9"),
        ("203.0.113.5", "192.0.2.1", "203.0.113.5"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        (None, "192.0.2.1", ""),
        ("not an address", "192.0.2.1", "not an address"),
    ],
)
def test_only_named_proxies_are_believed_about_addresses(
    peer: str | None, forwarded: str, seen: str
) -> None:
    settings = settings_for(
        "postgresql+psycopg://u@/d", api_trusted_proxies=("10.0.0.0/8", "fd00::/8")
    )
    request = Request(
        {
            "type": "http",
            "headers": [(b"x-forwarded-for", forwarded.encode())] if forwarded else [],
            "client": (peer, 1) if peer is not None else None,
        }
    )
    assert client_address(request, settings) == seen
    closed = settings_for("postgresql+psycopg://u@/d")
    assert client_address(request, closed) == (peer or "")
