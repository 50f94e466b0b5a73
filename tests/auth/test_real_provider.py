"""Logging in at a real OpenID provider, as a browser does it: redirects, pages, cookies, PKCE.

The provider is the `oidc-provider` library on loopback, in a process of its own; scripts/setup
installs it. Its pages for logging in and consenting are filled in and sent.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.api.arena import PASSWORD, Arena, ok
from tests.api.conftest import NewArena
from tests.auth.browsing import ORIGIN, AtProvider, Browser, Form, Page

FOLDER = Path(__file__).with_name("identity_provider")
CLIENT_SECRET = "a secret of at least so many characters"
REDIRECT_URI = f"{ORIGIN}/v1/auth/providers/real/callback"


@contextmanager
def real_provider() -> Iterator[str]:
    """Its issuer, while it serves."""
    assert (FOLDER / "node_modules").is_dir(), "the provider is not installed: run make setup"
    process = subprocess.Popen(
        ["node", "provider.mjs"],
        cwd=FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    order = {
        "client_id": "arena",
        "client_secret": CLIENT_SECRET,
        "redirect_uris": [REDIRECT_URI],
    }
    try:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        issuer = process.stdout.readline().strip()
        assert issuer.startswith("http://127.0.0.1:"), "the provider did not start"
        yield issuer
    finally:
        # It ends with its input.
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with real_provider() as issuer:
        yield issuer


@pytest.fixture
async def arena(new_arena: NewArena, issuer: str) -> Arena:
    entry = {
        "id": "real",
        "name": "Real",
        "issuer": issuer,
        "client_id": "arena",
        "client_secret": CLIENT_SECRET,
        "creates_accounts": True,
    }
    return await new_arena(
        public_url=ORIGIN, oidc_allow_private=True, oidc_providers=json.dumps([entry])
    )


async def log_in(arena: Arena, name: str) -> tuple[Browser, str]:
    """The browser of somebody who was sent back, and the path on which that was."""
    browser = Browser(arena.anonymous)
    path = AtProvider().log_in(await browser.depart("real"), name)
    back = await browser.visit(path)
    assert (back.status, back.headers["location"]) == (303, f"{ORIGIN}/tables"), back
    return browser, path


async def test_somebody_logs_in_at_a_real_provider_and_comes_back_with_a_session(
    arena: Arena,
) -> None:
    browser, _ = await log_in(arena, "verified-anna")
    granted = ok(await browser.finish())
    client = arena.anonymous.with_token(granted["access_token"])
    assert ok(await client.get("/v1/me"))["user"]["username"] == "verified-anna"
    (identity,) = ok(await client.get("/v1/me/identities"))["items"]
    assert identity["email"] == "verified-anna@people.example"
    ok(await browser.ask("POST", "/v1/auth/refresh"))
    again, _ = await log_in(arena, "verified-anna")
    assert ok(await again.finish())["user"]["id"] == granted["user"]["id"]
    # Somebody else there is somebody else here.
    other, _ = await log_in(arena, "verified-bert")
    assert ok(await other.finish())["user"]["id"] != granted["user"]["id"]


async def test_a_real_providers_unverified_address_is_refused(arena: Arena) -> None:
    browser = Browser(arena.anonymous)
    path = AtProvider().log_in(await browser.depart("real"), "unverified-carl")
    reply = await browser.visit(path)
    assert (reply.status, reply.code) == (403, "email_unverified")
    assert (await browser.finish()).code == "federated_login_failed"


async def test_what_a_real_provider_gave_once_is_good_once(arena: Arena) -> None:
    browser, used = await log_in(arena, "verified-dora")
    assert (await browser.visit(used)).code == "federated_login_failed"
    spent = parse_qs(urlsplit(used).query)["code"][0]
    # In a new login with its own state, the spent code is the provider's to refuse: and so is one
    # that is fresh and belongs to another login, whose verifier we do not have.
    thief = AtProvider()
    for code in (spent, None):
        mallory, victim = Browser(arena.anonymous), Browser(arena.anonymous)
        stolen = code or _code_of(thief.log_in(await victim.depart("real"), "verified-dora"))
        state = parse_qs(urlsplit(await mallory.depart("real")).query)["state"][0]
        given = urlencode({"code": stolen, "state": state, "iss": _issuer(used)})
        reply = await mallory.visit(f"/v1/auth/providers/real/callback?{given}")
        assert (reply.status, reply.code) == (401, "federated_login_failed")


async def test_another_browser_or_a_forged_state_gets_nothing_of_a_real_login(
    arena: Arena,
) -> None:
    browser = Browser(arena.anonymous)
    path = AtProvider().log_in(await browser.depart("real"), "verified-emil")
    stranger = Browser(arena.anonymous)
    await stranger.depart("real")
    assert (await stranger.visit(path)).code == "federated_login_failed"
    state = parse_qs(urlsplit(path).query)["state"][0]
    forged = path.replace(state, state[:-1] + ("A" if state[-1] != "A" else "B"))
    assert (await browser.visit(forged)).code == "federated_login_failed"
    foreign = path.replace(urlencode({"iss": _issuer(path)}), "iss=https%3A%2F%2Fevil.example")
    assert foreign != path
    assert (await browser.visit(path)).status == 303
    other = Browser(arena.anonymous)
    path = AtProvider().log_in(await other.depart("real"), "verified-emil")
    foreign = path.replace(urlencode({"iss": _issuer(path)}), "iss=https%3A%2F%2Fevil.example")
    assert (await other.visit(foreign)).code == "federated_login_failed"


async def test_whoever_cancels_at_a_real_provider_is_told_so(arena: Arena) -> None:
    browser, there = Browser(arena.anonymous), AtProvider()
    page = there.open(await browser.depart("real"))
    assert isinstance(page, Page)
    path = there.open(Form(page).cancel)
    assert isinstance(path, str) and "error=access_denied" in path
    reply = await browser.visit(path)
    assert (reply.status, reply.code) == (401, "federated_login_declined")


async def test_an_account_with_a_password_links_a_real_identity(arena: Arena) -> None:
    alice = await arena.user("alice")
    browser = Browser(alice)
    order = {"provider_id": "real", "current_password": PASSWORD, "return_to": "/me"}
    begun = ok(await browser.ask("POST", "/v1/me/identities", order))
    back = await browser.visit(AtProvider().log_in(begun["authorization_url"], "verified-frida"))
    assert (back.status, back.headers["location"]) == (303, f"{ORIGIN}/me")
    again, _ = await log_in(arena, "verified-frida")
    assert ok(await again.finish())["user"]["username"] == "alice"


def _code_of(path: str) -> str:
    return parse_qs(urlsplit(path).query)["code"][0]


def _issuer(path: str) -> str:
    return parse_qs(urlsplit(path).query)["iss"][0]
