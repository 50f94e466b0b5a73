"""A browser's session: a cookie that no script reads and no foreign page can use."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest

from pokerarena.errors import ConfigurationError
from tests.api.arena import PASSWORD, Arena, ok, settings_for
from tests.api.asgi import Reply
from tests.api.conftest import NewArena

LOGIN = {"username": "alice", "password": PASSWORD, "client": "browser"}
OWN_PAGE = {
    "x-pokerarena-client": "browser",
    "origin": "http://arena.test",
    "sec-fetch-site": "same-origin",
}
COOKIE = "__Host-pokerarena_refresh"


async def browser_login(arena: Arena) -> tuple[Reply, str]:
    reply = await arena.anonymous.post("/v1/auth/login", LOGIN, headers=OWN_PAGE)
    return reply, cookie_of(reply)


def cookie_of(reply: Reply) -> str:
    return SimpleCookie(reply.headers["set-cookie"])[COOKIE].value


async def refresh(arena: Arena, cookie: str, headers: dict[str, str] = OWN_PAGE) -> Reply:
    return await arena.anonymous.post(
        "/v1/auth/refresh", headers=headers | {"cookie": f"{COOKIE}={cookie}"}
    )


async def test_a_browser_gets_its_refresh_token_where_no_script_reads_it(arena: Arena) -> None:
    await arena.user("alice")
    reply, cookie = await browser_login(arena)
    granted = ok(reply)
    assert granted["refresh_token"] is None
    assert cookie not in reply.body.decode()
    said = {part.strip().lower() for part in reply.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "secure", "samesite=strict", "path=/"} <= said
    assert not any(part.startswith("domain") for part in said)
    ok(await arena.anonymous.with_token(granted["access_token"]).get("/v1/me"))

    again = await refresh(arena, cookie)
    assert ok(again)["refresh_token"] is None
    assert cookie_of(again) != cookie
    assert (await refresh(arena, cookie)).code == "refresh_superseded"
    ok(await refresh(arena, cookie_of(again)))


@pytest.mark.parametrize(
    "changes",
    [
        {"x-pokerarena-client": ""},
        {"x-pokerarena-client": "program"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://arena.test.evil.example"},
        {"origin": "http://arena.test@evil.example"},
        {"origin": "http://arena.test:81"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"host": "", "origin": "http://"},
    ],
    ids=str,
)
async def test_a_foreign_page_can_neither_refresh_nor_log_its_visitor_in(
    arena: Arena, changes: dict[str, str]
) -> None:
    await arena.user("alice")
    _, cookie = await browser_login(arena)
    before = await arena.counts()
    foreign = OWN_PAGE | changes
    for reply in (
        await refresh(arena, cookie, foreign),
        await arena.anonymous.post("/v1/auth/login", LOGIN, headers=foreign),
    ):
        assert (reply.status, reply.code) == (403, "foreign_page")
        assert "set-cookie" not in reply.headers
    assert await arena.counts() == before
    # And nothing was used up by the attempt.
    ok(await refresh(arena, cookie))


async def test_an_old_browser_that_names_no_origin_is_served(arena: Arena) -> None:
    await arena.user("alice")
    _, cookie = await browser_login(arena)
    ok(await refresh(arena, cookie, {"x-pokerarena-client": "browser"}))


async def test_the_public_address_is_our_own_page_whatever_the_proxy_calls_us(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(public_url="https://poker.example")
    await arena.user("alice")
    headers = OWN_PAGE | {"origin": "https://poker.example", "host": "10.0.0.7:8080"}
    ok(await arena.anonymous.post("/v1/auth/login", LOGIN, headers=headers))


async def test_a_token_counts_only_where_it_was_given(arena: Arena) -> None:
    await arena.user("alice")
    _, cookie = await browser_login(arena)
    reply = await arena.anonymous.post("/v1/auth/refresh", {"refresh_token": cookie})
    assert (reply.status, reply.code) == (401, "refresh_invalid")
    ok(await refresh(arena, cookie))
    program = ok(
        await arena.anonymous.post("/v1/auth/login", {"username": "alice", "password": PASSWORD})
    )
    assert (await refresh(arena, program["refresh_token"])).code == "refresh_invalid"


async def test_logging_out_ends_the_session_and_clears_the_cookie(arena: Arena) -> None:
    await arena.user("alice")
    reply, cookie = await browser_login(arena)
    client = arena.anonymous.with_token(ok(reply)["access_token"])
    out = await client.post("/v1/auth/logout", headers=OWN_PAGE)
    ok(out, 204)
    assert "max-age=0" in out.headers["set-cookie"].lower()
    assert (await client.get("/v1/me")).code == "token_invalid"
    assert (await refresh(arena, cookie)).code == "refresh_invalid"


async def test_on_loopback_a_cookie_may_do_without_https(new_arena: NewArena) -> None:
    arena = await new_arena(cookie_secure=False)
    await arena.user("alice")
    reply = await arena.anonymous.post("/v1/auth/login", LOGIN, headers=OWN_PAGE)
    said = reply.headers["set-cookie"].lower()
    assert said.startswith("pokerarena_refresh=")
    assert "secure" not in said
    assert "httponly" in said and "samesite=strict" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cookie_secure": False, "public_url": "http://poker.example"}, "cookie_secure"),
        ({"cookie_secure": False, "public_url": "https://127.0.0.1.evil.example"}, "cookie_secure"),
        ({"public_url": "http://poker.example", "environment": "production"}, "public_url"),
        ({"public_url": "javascript:alert(1)"}, "PUBLIC_URL"),
        ({"signing_key_publish_s": 30, "signing_keys_refresh_s": 16}, "signing_key_publish_s"),
        ({"session_idle_s": 600, "session_max_s": 300}, "session_idle_s"),
        ({"api_trusted_proxies": "10.0.0.0/33"}, "10.0.0.0/33"),
    ],
)
def test_settings_that_would_open_a_door_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        settings_for("postgresql+psycopg://u@/d", **changes)
