"""Personal tokens: their text, their storage, and their end."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, text, update

from pokerarena.auth import accounts, tokens
from pokerarena.auth.models import ApiToken, Role, User
from pokerarena.auth.passwords import PasswordHasher
from pokerarena.auth.permissions import Scope
from pokerarena.errors import Unauthenticated
from pokerarena.ids import IdKind, parse_id
from tests.api.arena import PASSWORD, Arena, ok
from tests.api.asgi import Client

BASE62 = string.digits + string.ascii_letters


async def personal(arena: Arena, owner: Client, **changes: Any) -> Client:
    """A client with a new personal token of this owner; the token's id is the client's."""
    body = {"name": "ci", "scopes": ["agents:read"], "expires_in_s": 3600} | changes
    made = ok(await owner.post("/v1/tokens", body), 201)
    client = arena.anonymous.with_token(made["token"])
    client.id = made["id"]
    return client


def test_a_token_is_prefix_and_30_random_and_6_check_characters() -> None:
    made = {tokens.new_text() for _ in range(200)}
    assert len(made) == 200
    for text_ in made:
        assert text_.startswith("pka_")
        assert len(text_) == 40
        assert set(text_[4:]) <= set(BASE62)
        assert tokens.is_well_formed(text_)


@given(st.data())
def test_one_wrong_character_is_noticed_without_a_look_up(data: st.DataObject) -> None:
    made = tokens.new_text()
    at = data.draw(st.integers(4, 39))
    other = data.draw(st.sampled_from(BASE62).filter(lambda char: char != made[at]))
    assert not tokens.is_well_formed(made[:at] + other + made[at + 1 :])


@given(st.text(max_size=60))
def test_any_other_text_is_no_token(text_: str) -> None:
    assert not tokens.is_well_formed(text_)
    assert not tokens.is_well_formed("pka_" + text_[:36].ljust(36, "\u0660"))


async def test_only_a_mac_is_stored_under_the_pepper_that_its_id_names(arena: Arena) -> None:
    alice = await personal(arena, await arena.user("alice"))
    assert alice.token is not None
    async with arena.database.unit_of_work() as session:
        row = (await session.scalars(select(ApiToken))).one()
        stored = (await session.execute(text("SELECT api_tokens::text FROM api_tokens"))).scalar()
    assert alice.token not in str(stored)
    assert alice.token[4:].encode().hex() not in str(stored)
    mac = tokens.TokenMac(arena.settings.token_pepper_bytes())
    assert row.mac == mac.of(alice.token)
    assert row.pepper_id == mac.pepper_id
    other = tokens.TokenMac(b"another pepper".ljust(32))
    assert other.of(alice.token) != row.mac
    assert other.pepper_id != row.pepper_id
    async with arena.database.unit_of_work() as session:
        with pytest.raises(Unauthenticated):
            await tokens.authenticate(
                session, other, alice.token, operators_need_second_factor=False
            )


async def expire(arena: Arena, token_id: str) -> None:
    async with arena.database.unit_of_work() as session:
        await session.execute(
            update(ApiToken)
            .where(ApiToken.id == parse_id(IdKind.TOKEN, token_id))
            .values(
                created_at=func.now() - timedelta(hours=2),
                expires_at=func.now() - timedelta(seconds=1),
            )
        )


async def test_a_token_ends_by_expiry_revocation_logout_and_with_its_account(arena: Arena) -> None:
    alice = await arena.user("alice")
    operator = await arena.user("operator", Role.OPERATOR)
    program = await personal(arena, alice)
    ok(await program.get("/v1/agents"))
    await expire(arena, program.id)
    reply = await program.get("/v1/agents")
    assert (reply.status, reply.code) == (401, "token_expired")
    assert ok(await alice.get("/v1/tokens"))["items"] == []

    program = await personal(arena, alice)
    for _ in range(2):
        ok(await alice.delete(f"/v1/tokens/{program.id}"), 204)
    reply = await program.get("/v1/agents")
    assert (reply.status, reply.code) == (401, "token_invalid")
    assert (await operator.delete(f"/v1/tokens/{program.id}")).status == 404

    program = await personal(arena, alice)
    ok(await program.post("/v1/auth/logout"), 204)
    assert (await program.get("/v1/agents")).code == "token_invalid"
    ok(await alice.get("/v1/me"))

    program = await personal(arena, alice)
    assert ok(await operator.post(f"/v1/users/{alice.id}/disable"))["disabled_at"]
    reply = await program.get("/v1/agents")
    assert (reply.status, reply.code) == (401, "token_invalid")
    reply = await arena.anonymous.post(
        "/v1/auth/login", {"username": "alice", "password": PASSWORD}
    )
    assert (reply.status, reply.code) == (401, "login_failed")
    reply = await operator.post(f"/v1/users/{operator.id}/disable")
    assert (reply.status, reply.code) == (409, "own_account")


async def test_a_rotated_token_works_on_for_the_grace_and_is_replaced_once(arena: Arena) -> None:
    alice = await arena.user("alice")
    old = await personal(arena, alice, scopes=["agents:read", "runs:read"])
    order = {"expires_in_s": 7200, "grace_s": 600}
    made = ok(await alice.post(f"/v1/tokens/{old.id}/rotate", order), 201)
    assert (made["name"], made["scopes"]) == ("ci", ["agents:read", "runs:read"])
    ok(await old.get("/v1/agents"))
    ok(await arena.anonymous.with_token(made["token"]).get("/v1/agents"))
    listed = {one["id"]: one for one in ok(await alice.get("/v1/tokens"))["items"]}
    assert listed[old.id]["rotated_at"] is not None
    left = datetime.fromisoformat(listed[old.id]["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=500) < left <= timedelta(seconds=610)
    again = await alice.post(f"/v1/tokens/{old.id}/rotate", order)
    assert (again.status, again.code) == (409, "token_rotated")
    await expire(arena, old.id)
    assert (await old.get("/v1/agents")).code == "token_expired"

    at_once = ok(await alice.post(f"/v1/tokens/{made['id']}/rotate", {"expires_in_s": 60}), 201)
    assert (await arena.anonymous.with_token(made["token"]).get("/v1/agents")).status == 401
    ok(await arena.anonymous.with_token(at_once["token"]).get("/v1/agents"))


async def test_a_rotation_never_prolongs_what_it_replaces_and_keeps_to_its_owner(
    arena: Arena,
) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    short = await personal(arena, alice, expires_in_s=30)
    path = f"/v1/tokens/{short.id}/rotate"
    assert (await bob.post(path, {"expires_in_s": 60})).status == 404
    reply = await short.post(path, {"expires_in_s": 60})
    assert (reply.status, reply.code) == (403, "session_required")
    for order, code in (
        ({"expires_in_s": 10 * 366 * 86_400}, "expiry_out_of_range"),
        ({"expires_in_s": 60, "grace_s": 8 * 86_400}, "grace_out_of_range"),
    ):
        reply = await alice.post(path, order)
        assert (reply.status, reply.code) == (422, code)
    before = ok(await alice.get("/v1/tokens"))["items"][0]["expires_at"]
    ok(await alice.post(path, {"expires_in_s": 60, "grace_s": 3600}), 201)
    after = {one["id"]: one["expires_at"] for one in ok(await alice.get("/v1/tokens"))["items"]}
    assert after[short.id] == before
    ok(await alice.delete(f"/v1/tokens/{short.id}"), 204)
    reply = await alice.post(path, {"expires_in_s": 60})
    assert (reply.status, reply.code) == (409, "token_ended")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer pka_x", "pka_" + "0" * 36]
)
async def test_a_header_that_is_no_token_is_401_where_a_token_counts(
    arena: Arena, header: str
) -> None:
    headers = {"authorization": header} if header else {}
    reply = await arena.anonymous.get("/v1/me", headers=headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    if header:
        # A wrong token is not the same as none: it is told, even where anyone may read.
        assert (await arena.anonymous.get("/v1/tables", headers=headers)).code == "token_invalid"
        # But a stale token is not in the way of what does not depend on the caller.
        ok(await arena.anonymous.get("/healthz", headers=headers))


async def test_a_role_that_was_taken_away_takes_its_scopes_with_it(arena: Arena) -> None:
    operator = await arena.user("operator", Role.OPERATOR)
    assert Scope.OPERATOR in ok(await operator.get("/v1/me"))["scopes"]
    ok(await operator.get("/v1/users"))
    async with arena.database.unit_of_work() as session:
        await session.execute(update(User).values(role="member"))
    assert Scope.OPERATOR not in ok(await operator.get("/v1/me"))["scopes"]
    assert (await operator.get("/v1/users")).code == "operator_required"


async def test_last_use_is_kept_coarsely(arena: Arena) -> None:
    program = await personal(arena, await arena.user("alice"))

    async def last_used() -> object:
        async with arena.database.unit_of_work() as session:
            return await session.scalar(select(ApiToken.last_used_at))

    assert await last_used() is None
    ok(await program.get("/v1/agents"))
    first = await last_used()
    assert first is not None
    ok(await program.get("/v1/agents"))
    assert await last_used() == first
    async with arena.database.unit_of_work() as session:
        await session.execute(
            update(ApiToken).values(last_used_at=func.now() - timedelta(minutes=6))
        )
    ok(await program.get("/v1/agents"))
    assert await last_used() != first


async def test_login_makes_a_weak_hash_strong(arena: Arena) -> None:
    await arena.user("alice")
    stronger = PasswordHasher(arena.settings.model_copy(update={"argon2_memory_kib": 16 * 1024}))

    async def stored() -> str:
        async with arena.database.unit_of_work() as session:
            return str(await session.scalar(select(User.password_hash)))

    before = await stored()
    with pytest.raises(Unauthenticated):
        await accounts.authenticate(
            arena.database, stronger, username="alice", password="not the password"
        )
    assert await stored() == before
    await accounts.authenticate(arena.database, stronger, username="ALICE", password=PASSWORD)
    after = await stored()
    assert "m=16384" in after
    assert (await stronger.verify(after, PASSWORD)) == (True, False)
    stronger.close()


async def test_a_changed_password_ends_other_sessions_only(arena: Arena) -> None:
    alice = await arena.user("alice")
    other = await arena.login("alice")
    program = await personal(arena, alice)
    change = {"current_password": "wrong", "new_password": "a new one for the winter"}
    assert (await alice.put("/v1/me/password", change)).code == "password_wrong"
    change["current_password"] = PASSWORD
    assert (
        await alice.put("/v1/me/password", change | {"new_password": "short"})
    ).code == "password_too_short"
    ok(await alice.put("/v1/me/password", change), 204)
    ok(await alice.get("/v1/me"))
    assert (await other.get("/v1/me")).code == "token_invalid"
    ok(await program.get("/v1/agents"))
    login = {"username": "alice", "password": PASSWORD}
    assert (await arena.anonymous.post("/v1/auth/login", login)).code == "login_failed"
    login["password"] = change["new_password"]
    ok(await arena.anonymous.post("/v1/auth/login", login))


async def test_registration_is_closed_unless_the_operator_opens_it(
    arena: Arena, database_url: str
) -> None:
    from pokerarena.api.app import create_app
    from tests.api.arena import settings_for
    from tests.api.asgi import Client

    body = {"username": "newcomer", "password": "a walk along the river"}
    closed = Client(create_app(settings_for(database_url, registration="closed"), arena.database))
    reply = await closed.post("/v1/auth/register", body)
    assert (reply.status, reply.code) == (403, "registration_closed")
    user = ok(await arena.anonymous.post("/v1/auth/register", body), 201)
    assert user["role"] == "member"
    assert ok(await arena.anonymous.post("/v1/auth/login", body))["user"]["id"] == user["id"]


async def test_an_operator_creates_and_lists_accounts(arena: Arena) -> None:
    operator = await arena.user("operator", Role.OPERATOR)
    body = {"username": "helper", "password": "a walk along the river", "role": "operator"}
    made = ok(await operator.post("/v1/users", body), 201)
    assert made["role"] == "operator"
    listed = ok(await operator.get("/v1/users?limit=1"))
    assert [user["id"] for user in listed["items"]] == [made["id"]]
    rest = ok(await operator.get(f"/v1/users?cursor={listed['next_cursor']}"))
    assert [user["username"] for user in rest["items"]] == ["operator"]
    assert "password" not in str(listed)
