"""Sessions: one refresh token counts at a time, and an end is an end everywhere."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from pokerarena.auth import sessions
from pokerarena.auth.callers import Callers
from pokerarena.auth.models import Client as Held
from pokerarena.auth.models import LoginSession, Role
from pokerarena.auth.tokens import TokenMac
from pokerarena.errors import Unauthenticated
from pokerarena.ids import IdKind, parse_id
from pokerarena.tables.viewer_links import ViewerLinks
from tests.api.arena import PASSWORD, Arena, ok, settings_for
from tests.api.asgi import Client, Reply
from tests.api.conftest import NewArena

LOGIN = {"username": "alice", "password": PASSWORD}


async def logged_in(arena: Arena, name: str = "alice") -> dict[str, Any]:
    """What a login grants to a new account."""
    await arena.user(name)
    return await log_in(arena, name)


async def log_in(arena: Arena, name: str = "alice") -> dict[str, Any]:
    return dict(ok(await arena.anonymous.post("/v1/auth/login", LOGIN | {"username": name})))


async def refresh(arena: Arena, refresh_token: str) -> Reply:
    return await arena.anonymous.post("/v1/auth/refresh", {"refresh_token": refresh_token})


def client_of(arena: Arena, granted: dict[str, Any]) -> Client:
    return arena.anonymous.with_token(granted["access_token"])


async def rows(arena: Arena) -> list[LoginSession]:
    async with arena.database.unit_of_work() as session:
        return list(await session.scalars(select(LoginSession).order_by(LoginSession.id)))


async def age(arena: Arena, **values: Any) -> None:
    async with arena.database.unit_of_work() as session:
        await session.execute(update(LoginSession).values(**values))


async def test_each_refresh_gives_tokens_that_work_and_the_session_stays_the_same(
    arena: Arena,
) -> None:
    granted = await logged_in(arena)
    seen = {granted["refresh_token"]}
    for _ in range(3):
        before, granted = granted, ok(await refresh(arena, granted["refresh_token"]))
        assert granted["session_id"] == before["session_id"]
        assert granted["refresh_token"] not in seen
        assert sessions.is_refresh_token(granted["refresh_token"])
        seen.add(granted["refresh_token"])
        ok(await client_of(arena, granted).get("/v1/me"))
        # The access token of before is good until it expires: it belongs to the same session.
        ok(await client_of(arena, before).get("/v1/me"))


async def test_only_macs_of_refresh_tokens_are_stored(arena: Arena) -> None:
    granted = await logged_in(arena)
    token = granted["refresh_token"]
    async with arena.database.unit_of_work() as session:
        stored = "\n".join(await session.scalars(text("SELECT sessions::text FROM sessions")))
    mac = TokenMac(arena.settings.token_pepper_bytes())
    assert mac.of(token).hex() in stored
    for part in (token, token[4:26], token[26:56], granted["access_token"].split(".")[1]):
        assert part not in stored
        assert part.encode().hex() not in stored


async def test_a_refresh_token_that_comes_again_ends_its_whole_family(new_arena: NewArena) -> None:
    arena = await new_arena(refresh_grace_s=0)
    first = await logged_in(arena)
    other = await log_in(arena)
    second = ok(await refresh(arena, first["refresh_token"]))
    third = ok(await refresh(arena, second["refresh_token"]))
    ok(await client_of(arena, third).get("/v1/me"))
    reply = await refresh(arena, first["refresh_token"])
    assert (reply.status, reply.code) == (401, "refresh_invalid")
    # Neither the thief's nor the robbed one's tokens work; which is which, nobody knows.
    for granted in (first, second, third):
        assert (await client_of(arena, granted).get("/v1/me")).code == "token_invalid"
        assert (await refresh(arena, granted["refresh_token"])).code == "refresh_invalid"
    ok(await client_of(arena, other).get("/v1/me"))
    ended = [row for row in await rows(arena) if row.ended_at is not None]
    assert [row.end_reason for row in ended] == ["reuse"]


async def test_a_family_ends_by_a_token_before_the_last_even_within_the_grace(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(refresh_grace_s=60)
    first = await logged_in(arena)
    second = ok(await refresh(arena, first["refresh_token"]))
    reply = await refresh(arena, first["refresh_token"])
    assert (reply.status, reply.code) == (409, "refresh_superseded")
    ok(await refresh(arena, second["refresh_token"]))
    assert (await refresh(arena, first["refresh_token"])).code == "refresh_invalid"
    assert (await client_of(arena, second).get("/v1/me")).code == "token_invalid"


async def test_the_grace_passes(new_arena: NewArena) -> None:
    arena = await new_arena(refresh_grace_s=60)
    first = await logged_in(arena)
    second = ok(await refresh(arena, first["refresh_token"]))
    await age(arena, refreshed_at=func.now() - timedelta(seconds=61))
    assert (await refresh(arena, first["refresh_token"])).code == "refresh_invalid"
    assert (await refresh(arena, second["refresh_token"])).code == "refresh_invalid"


async def test_of_many_refreshes_at_once_one_wins_and_the_session_goes_on(arena: Arena) -> None:
    granted = await logged_in(arena)
    for _ in range(3):
        replies = await asyncio.gather(
            *(refresh(arena, granted["refresh_token"]) for _ in range(8))
        )
        assert sorted(reply.status for reply in replies) == [200] + [409] * 7
        granted = next(reply.json for reply in replies if reply.status == 200)
        ok(await client_of(arena, granted).get("/v1/me"))


async def test_of_two_refreshes_at_once_without_a_grace_one_wins_before_the_family_ends(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(refresh_grace_s=0)
    granted = await logged_in(arena)
    replies = await asyncio.gather(*(refresh(arena, granted["refresh_token"]) for _ in range(2)))
    assert sorted(reply.status for reply in replies) == [200, 401]
    winner = next(reply.json for reply in replies if reply.status == 200)
    assert (await refresh(arena, winner["refresh_token"])).code == "refresh_invalid"


async def test_a_transaction_that_began_before_the_other_refresh_is_no_race_for_that(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(refresh_grace_s=0)
    granted = await logged_in(arena)
    mac = TokenMac(arena.settings.token_pepper_bytes())
    async with arena.database.unit_of_work() as session:
        await session.execute(text("SELECT 1"))
        ok(await refresh(arena, granted["refresh_token"]))
        outcome = await sessions._refresh(
            session, mac, granted["refresh_token"], Held.PROGRAM, arena.settings
        )
    assert isinstance(outcome, Unauthenticated)


async def test_a_session_ends_when_it_is_idle_and_when_it_is_old(arena: Arena) -> None:
    granted = await logged_in(arena)
    [row] = [one for one in await rows(arena) if one.previous_mac is None][-1:]
    assert row.idle_expires_at - row.created_at == timedelta(days=14)
    assert row.expires_at - row.created_at == timedelta(days=90)
    await age(arena, expires_at=func.now() + timedelta(days=3), idle_expires_at=func.now())
    assert (await refresh(arena, granted["refresh_token"])).code == "refresh_invalid"

    await age(arena, idle_expires_at=func.now() + timedelta(days=1))
    granted = ok(await refresh(arena, granted["refresh_token"]))
    assert all(one.idle_expires_at <= one.expires_at for one in await rows(arena))
    moment = func.now() - timedelta(seconds=1)
    await age(arena, expires_at=moment, idle_expires_at=moment)
    assert (await refresh(arena, granted["refresh_token"])).code == "refresh_invalid"
    assert (await client_of(arena, granted).get("/v1/me")).code == "token_invalid"


@pytest.mark.parametrize(
    "text_", ["", "pkr_", "pkr_" + "0" * 58, "pka_" + "0" * 36, "x" * 100, "pkr_" + "\u0660" * 58]
)
async def test_what_is_no_refresh_token_refreshes_nothing(arena: Arena, text_: str) -> None:
    reply = await refresh(arena, text_)
    assert (reply.status, reply.code) in ((401, "refresh_invalid"), (422, "invalid_request"))


async def test_neither_an_access_token_nor_a_stranger_to_the_pepper_refreshes(
    arena: Arena, new_arena: NewArena
) -> None:
    granted = await logged_in(arena)
    # An access token is longer than what a refresh token may be at all.
    assert (await refresh(arena, granted["access_token"])).status == 422
    elsewhere = await new_arena(token_pepper="QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
    assert (await refresh(elsewhere, granted["refresh_token"])).code == "refresh_invalid"
    assert (await arena.anonymous.post("/v1/auth/refresh")).code == "refresh_missing"
    assert (await arena.anonymous.post("/v1/auth/refresh", {})).code == "refresh_missing"


async def test_one_sees_and_ends_ones_own_sessions_only(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    second = await log_in(arena)
    listed = ok(await alice.get("/v1/sessions"))["items"]
    assert listed[0]["id"] == second["session_id"]
    assert [one["current"] for one in listed] == [False, True]
    assert {one["client"] for one in listed} == {"program"}
    page = ok(await alice.get("/v1/sessions?limit=1"))
    rest = ok(await alice.get(f"/v1/sessions?cursor={page['next_cursor']}"))["items"]
    assert page["items"] + rest == listed

    path = f"/v1/sessions/{second['session_id']}"
    assert (await bob.delete(path)).status == 404
    ok(await client_of(arena, second).get("/v1/me"))
    for _ in range(2):
        ok(await alice.delete(path), 204)
    assert (await client_of(arena, second).get("/v1/me")).code == "token_invalid"
    assert (await refresh(arena, second["refresh_token"])).code == "refresh_invalid"
    assert len(ok(await alice.get("/v1/sessions"))["items"]) == 1

    third = await log_in(arena)
    ok(await alice.delete("/v1/sessions?keep_current=true"), 204)
    assert (await client_of(arena, third).get("/v1/me")).status == 401
    ok(await alice.delete("/v1/sessions"), 204)
    assert (await alice.get("/v1/me")).status == 401
    ok(await bob.get("/v1/me"))


async def test_a_device_is_told_by_its_name_as_far_as_that_can_be_shown(arena: Arena) -> None:
    alice = await arena.user("alice")
    await arena.anonymous.post(
        "/v1/auth/login", LOGIN, headers={"user-agent": "Agent/1.0 \x07\xff" + "x" * 500}
    )
    device = ok(await alice.get("/v1/sessions"))["items"][0]["device"]
    assert device.startswith("Agent/1.0 xxx")
    assert len(device) == 120


async def test_a_changed_password_ends_what_was_begun_with_the_old_one(arena: Arena) -> None:
    alice = await arena.user("alice")
    other = await log_in(arena)
    change = {"current_password": PASSWORD, "new_password": "a new one for the winter"}
    ok(await alice.put("/v1/me/password", change), 204)
    ok(await alice.get("/v1/me"))
    assert (await client_of(arena, other).get("/v1/me")).code == "token_invalid"
    assert (await refresh(arena, other["refresh_token"])).code == "refresh_invalid"


async def test_a_closed_account_has_no_session(arena: Arena) -> None:
    operator = await arena.user("operator", Role.OPERATOR)
    granted = await logged_in(arena)
    ok(await operator.post(f"/v1/users/{granted['user']['id']}/disable"))
    assert (await client_of(arena, granted).get("/v1/me")).code == "token_invalid"
    assert (await refresh(arena, granted["refresh_token"])).code == "refresh_invalid"


async def test_sessions_of_one_account_are_bounded(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_USER_MAX", 3)
    first = await arena.user("alice")
    later = [await arena.login("alice") for _ in range(3)]
    assert (await first.get("/v1/me")).code == "token_invalid"
    for client in later:
        ok(await client.get("/v1/me"))


async def end_by_logout(one: Arena, operator: Client, granted: dict[str, Any]) -> None:
    ok(await client_of(one, granted).post("/v1/auth/logout"), 204)


async def end_by_revocation(one: Arena, operator: Client, granted: dict[str, Any]) -> None:
    ok(await client_of(one, granted).delete(f"/v1/sessions/{granted['session_id']}"), 204)


async def end_by_password(one: Arena, operator: Client, granted: dict[str, Any]) -> None:
    change = {"current_password": PASSWORD, "new_password": "a new one for the winter"}
    ok(await (await one.login("alice")).put("/v1/me/password", change), 204)


async def end_by_closing(one: Arena, operator: Client, granted: dict[str, Any]) -> None:
    ok(await operator.post(f"/v1/users/{granted['user']['id']}/disable"))


async def end_by_reuse(one: Arena, operator: Client, granted: dict[str, Any]) -> None:
    ok(await refresh(one, granted["refresh_token"]))
    assert (await refresh(one, granted["refresh_token"])).status == 401


@pytest.mark.parametrize(
    "end", [end_by_logout, end_by_revocation, end_by_password, end_by_closing, end_by_reuse]
)
async def test_an_ended_session_fails_on_every_process_within_the_stated_bound(
    new_arena: NewArena, end: Any
) -> None:
    bound_s = 20
    one = await new_arena(session_staleness_s=bound_s, refresh_grace_s=0)
    two = await new_arena(session_staleness_s=bound_s, refresh_grace_s=0)
    clock = 1000.0
    two.anonymous.app.state.parts.callers._monotonic = lambda: clock
    operator = await one.user("operator", Role.OPERATOR)
    granted = await logged_in(one)
    here, there = client_of(one, granted), client_of(two, granted)
    for client in (here, there):
        ok(await client.get("/v1/agents"))

    await end(one, operator, granted)
    # The process that ended it knows at once, and so does every route that matters most.
    assert (await here.get("/v1/agents")).code == "token_invalid"
    clock += bound_s - 0.1
    ok(await there.get("/v1/agents"))
    assert (await there.get("/v1/tokens")).code == "token_invalid"
    # That look-up was also the last that the other process believed.
    assert (await there.get("/v1/agents")).code == "token_invalid"


async def test_what_another_process_remembers_of_a_session_does_not_outlive_the_bound(
    new_arena: NewArena,
) -> None:
    one, two = await new_arena(), await new_arena(session_staleness_s=20)
    clock = 1000.0
    two.anonymous.app.state.parts.callers._monotonic = lambda: clock
    granted = await logged_in(one)
    there = client_of(two, granted)
    ok(await there.get("/v1/agents"))
    await end_by_logout(one, there, granted)
    clock += 19.9
    # It was asked for meanwhile, which must not prolong what is remembered.
    ok(await there.get("/v1/agents"))
    clock += 0.1
    assert (await there.get("/v1/agents")).code == "token_invalid"


async def test_an_answer_from_before_an_end_is_not_remembered_after_it(arena: Arena) -> None:
    granted = await logged_in(arena)
    session_id = parse_id(IdKind.SESSION, granted["session_id"])
    parts = arena.anonymous.app.state.parts
    callers = Callers(
        settings_for("postgresql+psycopg://u@/d", session_staleness_s=60),
        parts.token_mac,
        parts.signing_keys,
        ViewerLinks(parts.token_mac),
    )

    async def asked(*, ended_meanwhile: bool) -> int:
        """How many queries two requests take, the first of which is overtaken by an end or not."""
        queries = 0
        async with arena.database.unit_of_work() as session:
            execute = session.execute

            async def overtaken(*args: Any) -> Any:
                nonlocal queries
                queries += 1
                result = await execute(*args)
                if ended_meanwhile and queries == 1:
                    callers.forget()
                return result

            session.execute = overtaken  # type: ignore[method-assign, assignment]
            for _ in range(2):
                await callers.principal(session, granted["access_token"], fresh=False)
        return queries

    callers.forget()
    assert await asked(ended_meanwhile=True) == 2
    assert callers._recall(session_id) is not None
    callers.forget()
    assert await asked(ended_meanwhile=False) == 1


async def test_a_process_forgets_a_session_when_its_end_is_committed_and_not_before(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(session_staleness_s=60)
    granted = await logged_in(arena)
    client = client_of(arena, granted)
    ok(await client.get("/v1/agents"))
    callers: Callers = arena.anonymous.app.state.parts.callers
    async with arena.database.unit_of_work() as session:
        await sessions.end_all(
            session,
            parse_id(IdKind.USER, granted["user"]["id"]),
            but=None,
            reason=sessions.EndReason.REVOKED,
        )
        callers.forget_once_committed(session)
        callers.forget()
        # Until the commit the session goes on, and may be remembered so.
        ok(await client.get("/v1/agents"))
        assert callers._remembered
    assert not callers._remembered
    assert (await client.get("/v1/agents")).code == "token_invalid"
