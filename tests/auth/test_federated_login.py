"""Logging in through a provider: what is refused of a hostile one, and of hostile browsers."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import func, select, text, update
from structlog.testing import capture_logs

from pokerarena.auth.federation import flow
from pokerarena.auth.federation.id_tokens import half_hash
from pokerarena.auth.models import FederatedLogin, Identity, LoginSession, Role, User
from pokerarena.errors import Invalid
from pokerarena.ids import new_id
from tests.api.arena import PASSWORD, Arena, ok
from tests.api.asgi import Client, Reply
from tests.api.conftest import NewArena
from tests.auth.browsing import LOGIN_COOKIE, ORIGIN, Browser
from tests.auth.hostile_provider import (
    ACCESS_TOKEN,
    CLIENT_ID,
    CLIENT_SECRET,
    HostileProvider,
    rsa_key,
    signed,
)
from tests.auth.test_second_factor import Authenticator, let_time_pass

Change = Callable[[HostileProvider], None]


@pytest.fixture
async def arena(new_arena: NewArena, provider: HostileProvider) -> Arena:
    return await make_arena(new_arena, provider)


async def make_arena(new_arena: NewArena, provider: HostileProvider, **changes: Any) -> Arena:
    return await new_arena(
        **{
            "public_url": ORIGIN,
            "oidc_allow_private": True,
            "oidc_providers": provider.configured(),
            "oidc_metadata_ttl_s": 3600,
            "registration": "closed",
        }
        | changes
    )


async def come_back(browser: Browser, provider: HostileProvider, **more: str) -> Reply:
    """To the provider and back."""
    return await browser.visit(provider.authorize(await browser.depart("hostile", **more)))


async def log_in(arena: Arena, provider: HostileProvider) -> Client:
    browser = Browser(arena.anonymous)
    back = await come_back(browser, provider)
    assert (back.status, back.headers["location"]) == (303, f"{ORIGIN}/tables"), back
    granted = ok(await browser.finish())
    client = arena.anonymous.with_token(granted["access_token"])
    client.id = granted["user"]["id"]
    return client


async def scalar(arena: Arena, query: Any) -> Any:
    async with arena.database.unit_of_work() as session:
        return await session.scalar(query)


async def nobody_got_in(arena: Arena) -> None:
    for model in (User, Identity, LoginSession):
        assert await scalar(arena, select(func.count()).select_from(model)) == 0, model


def token_signed_as_hmac(key: bytes) -> Change:
    def change(provider: HostileProvider) -> None:
        def sign(header: dict[str, Any], claims: dict[str, Any]) -> str:
            body = f"{part(header | {'alg': 'HS256'})}.{part(claims)}"
            return f"{body}.{part(hmac.digest(key, body.encode(), 'sha256'))}"

        provider.sign = sign

    return change


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(provider: HostileProvider) -> None:
    provider.sign = lambda header, claims: f"{part(header | {'alg': 'none'})}.{part(claims)}."


def claims(**changes: Any) -> Change:
    return lambda provider: provider.claims.update(changes)


def header(**changes: Any) -> Change:
    return lambda provider: provider.header.update(changes)


def response(**changes: str | None) -> Change:
    return lambda provider: provider.response.update(changes)


def foreign_key(provider: HostileProvider) -> None:
    """The right `kid`, and somebody else's signature."""
    provider.sign = lambda header, claims: signed(header, claims, rsa_key("foreign"))


def key_in_the_header(provider: HostileProvider) -> None:
    own = rsa_key("foreign")
    jwk = own.as_dict(private=False)
    provider.sign = lambda header, claims: signed(header | {"jwk": jwk, "kid": "new"}, claims, own)


def other_algorithm(provider: HostileProvider) -> None:
    """Signed as it should be, by the same key, and not as it was agreed."""
    provider.sign = lambda header, claims: signed(header | {"alg": "PS256"}, claims, provider.key)


def signed_by_hand(**more: Any) -> Change:
    """Signed rightly, whatever the header says; a library would not."""

    def change(provider: HostileProvider) -> None:
        key = provider.key.private_key
        assert isinstance(key, rsa.RSAPrivateKey)

        def sign(header: dict[str, Any], claims: dict[str, Any]) -> str:
            body = f"{part(header | more)}.{part(claims)}"
            return f"{body}.{part(key.sign(body.encode(), PKCS1v15(), SHA256()))}"

        provider.sign = sign

    return change


def no_nonce_of_ours(provider: HostileProvider) -> None:
    provider.claims["nonce"] = "of another login"


HOSTILE: dict[str, tuple[str, Change]] = {
    "alg none": ("algorithm", unsigned),
    "HS256 with the client secret": ("algorithm", token_signed_as_hmac(CLIENT_SECRET.encode())),
    "HS256 with the public key": (
        "algorithm",
        lambda provider: token_signed_as_hmac(provider.key.as_pem(private=False))(provider),
    ),
    "another algorithm": ("algorithm", other_algorithm),
    "a foreign signature": ("signature", foreign_key),
    "a key in the header": ("key", key_in_the_header),
    "an unknown kid": ("key", header(kid="unknown")),
    "a critical extension": ("signature", signed_by_hand(crit=["x"], x=1)),
    "no token at all": ("form", lambda p: p.__dict__.update(sign=lambda *_: "a.b")),
    "a foreign issuer": ("issuer", claims(iss="https://elsewhere.example")),
    "our issuer with a slash": ("issuer", lambda p: p.claims.update(iss=p.issuer + "/")),
    "another audience": ("audience", claims(aud="another-client")),
    "an empty audience": ("audience", claims(aud=[])),
    "two audiences and no party": ("authorized_party", claims(aud=[CLIENT_ID, "another"])),
    "another party": ("authorized_party", claims(azp="another")),
    "expired": ("expired", claims(exp=int(time.time()) - 61)),
    "an expiry that is no number": ("form", claims(exp="9999999999")),
    "no expiry": ("form", claims(exp=...)),
    "issued before the login": ("issued_at", claims(iat=int(time.time()) - 120)),
    "issued in the future": ("issued_at", claims(iat=int(time.time()) + 100_000)),
    "not valid yet": ("not_yet", claims(nbf=int(time.time()) + 100_000)),
    "a wrong nonce": ("nonce", no_nonce_of_ours),
    "no nonce": ("form", claims(nonce=...)),
    "another access token's hash": ("access_token_hash", claims(at_hash=half_hash("another"))),
    "an endless subject": ("subject", claims(sub="x" * 256)),
    "an empty subject": ("subject", claims(sub="")),
    "a response of another issuer": ("response_issuer", response(iss="https://elsewhere.example")),
    "a response without the issuer": ("response_issuer", response(iss=None)),
    "a code that it does not know": ("code_refused", response(code="invented")),
    "no state": ("state", response(state=None)),
    "a forged state": ("state", response(state="A" * 43)),
}  # fmt: skip


async def test_what_a_hostile_provider_or_page_sends_is_refused_without_saying_why(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(new_arena, provider, oidc_keys_refetch_s=0)
    told = set()
    for name, (why, change) in HOSTILE.items():
        provider.__dict__.update(
            claims={}, header={}, response={}, sign=None, published=None, codes={}
        )
        change(provider)
        browser = Browser(arena.anonymous)
        with capture_logs() as logs:
            reply = await come_back(browser, provider)
        assert (reply.status, reply.code) == (401, "federated_login_failed"), (name, reply)
        assert "www-authenticate" in reply.headers, name
        assert "location" not in reply.headers, name
        told.add(reply.json["detail"])
        reasons = [one["why"] for one in logs if one["event"] == "federated_login_refused"]
        assert reasons == [why], name
        # And nothing was proven by the attempt.
        assert (await browser.finish()).code == "federated_login_failed", name
    assert len(told) == 1, "a caller learns what was wrong"
    await nobody_got_in(arena)
    # The honest one is believed by the very same process, with what is merely more than needed.
    provider.__dict__.update(claims={}, header={}, response={}, published=None)
    signed_by_hand(jku="https://evil.example/jwks", x=1)(provider)
    await log_in(arena, provider)


async def test_a_login_makes_an_account_once_and_finds_it_from_then_on(
    arena: Arena, provider: HostileProvider
) -> None:
    provider.claims["at_hash"] = half_hash(ACCESS_TOKEN)
    provider.claims["aud"] = [CLIENT_ID]
    first = await log_in(arena, provider)
    me = ok(await first.get("/v1/me"))["user"]
    assert (me["username"], me["role"]) == ("person-1", "member")
    provider.claims |= {"email_verified": False, "preferred_username": "Somebody Else"}
    again = await log_in(arena, provider)
    assert again.id == first.id
    assert "userinfo" not in str(provider.asked)
    (identity,) = ok(await again.get("/v1/me/identities"))["items"]
    assert (identity["provider_id"], identity["issuer"]) == ("hostile", provider.issuer)
    assert identity["email"] == "person-1@people.example"
    assert identity["last_login_at"] is not None
    # It has no password, so none is right.
    for password in ("none", "None", " "):
        body = {"username": "person-1", "password": password}
        assert (await arena.anonymous.post("/v1/auth/login", body)).code == "login_failed"


async def test_the_cookie_is_this_browsers_and_the_session_is_the_same_as_any(
    arena: Arena, provider: HostileProvider
) -> None:
    browser = Browser(arena.anonymous)
    begun = await browser.ask("POST", "/v1/auth/providers/hostile/login")
    (cookie,) = begun.cookies
    said = {piece.strip().lower() for piece in cookie.split(";")[1:]}
    assert {"httponly", "secure", "samesite=lax", "path=/"} <= said
    assert cookie.startswith(f"{LOGIN_COOKIE}=")
    assert not any(piece.startswith("domain") for piece in said)
    back = await browser.visit(provider.authorize(begun.json["authorization_url"]))
    assert back.headers["location"] == f"{ORIGIN}/"
    granted = ok(await browser.finish())
    assert granted["refresh_token"] is None
    assert LOGIN_COOKIE not in browser.cookies, "a login that is over leaves no cookie"
    ok(await browser.ask("POST", "/v1/auth/refresh"))
    client = arena.anonymous.with_token(granted["access_token"])
    (session,) = ok(await client.get("/v1/sessions"))["items"]
    assert (session["client"], session["device"]) == ("browser", "a browser of the tests")


async def test_a_callback_counts_once_and_in_its_own_browser_only(
    arena: Arena, provider: HostileProvider
) -> None:
    alice, mallory = Browser(arena.anonymous), Browser(arena.anonymous)
    path = provider.authorize(await alice.depart("hostile"))
    # Mallory has the link, with its code, and a login of her own, or none.
    assert (await mallory.visit(path)).code == "federated_login_failed"
    await mallory.depart("hostile")
    assert (await mallory.visit(path)).code == "federated_login_failed"
    # Or she sends Alice her own link, to have her logged in as somebody else.
    hers = provider.authorize(await mallory.depart("hostile"))
    assert (await alice.visit(hers)).code == "federated_login_failed"
    assert (await alice.visit(path)).status == 303
    assert (await alice.visit(path)).code == "federated_login_failed"
    # A replay neither helps nor harms.
    ok(await alice.finish())
    assert (await alice.finish()).code == "federated_login_failed"


async def test_of_two_at_once_one_wins(arena: Arena, provider: HostileProvider) -> None:
    browser = Browser(arena.anonymous)
    path = provider.authorize(await browser.depart("hostile"))
    back = await asyncio.gather(*(browser.visit(path) for _ in range(4)))
    assert sorted(one.status for one in back) == [303, 401, 401, 401]
    ended = await asyncio.gather(*(browser.finish() for _ in range(4)))
    assert sorted(one.status for one in ended) == [200, 401, 401, 401]
    assert await scalar(arena, select(func.count()).select_from(LoginSession)) == 1


async def test_a_code_is_asked_for_once_even_where_it_was_refused(
    arena: Arena, provider: HostileProvider
) -> None:
    browser = Browser(arena.anonymous)
    path = provider.authorize(await browser.depart("hostile"))
    provider.token_answer = (400, b'{"error": "invalid_grant"}')
    assert (await browser.visit(path)).code == "federated_login_failed"
    provider.token_answer = None
    assert (await browser.visit(path)).code == "federated_login_failed"
    assert provider.asked.count("/token") == 1


async def test_a_login_that_takes_too_long_is_over(arena: Arena, provider: HostileProvider) -> None:
    late = update(FederatedLogin).values(expires_at=func.now())
    browser = Browser(arena.anonymous)
    path = provider.authorize(await browser.depart("hostile"))
    async with arena.database.unit_of_work() as session:
        await session.execute(late)
    assert (await browser.visit(path)).code == "federated_login_failed"
    assert (await come_back(browser, provider)).status == 303
    async with arena.database.unit_of_work() as session:
        await session.execute(late)
    assert (await browser.finish()).code == "federated_login_failed"


async def test_logins_under_way_are_bounded_and_the_oldest_give_way(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(new_arena, provider, oidc_logins_pending_max=3)
    browsers = [Browser(arena.anonymous) for _ in range(5)]
    paths = [provider.authorize(await one.depart("hostile")) for one in browsers]
    assert await scalar(arena, select(func.count()).select_from(FederatedLogin)) == 3
    came = [await one.visit(path) for one, path in zip(browsers, paths, strict=True)]
    assert [one.status for one in came] == [401, 401, 303, 303, 303]


async def test_any_api_process_takes_back_whom_another_one_sent(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    processes = [await make_arena(new_arena, provider) for _ in range(3)]
    browser = Browser(processes[0].anonymous)
    path = provider.authorize(await browser.depart("hostile"))
    browser.arena = processes[1].anonymous
    assert (await browser.visit(path)).status == 303
    browser.arena = processes[0].anonymous
    assert (await browser.visit(path)).code == "federated_login_failed"
    browser.arena = processes[2].anonymous
    ok(await browser.finish())


async def test_nothing_that_completes_a_login_is_in_the_database(
    arena: Arena, provider: HostileProvider
) -> None:
    browser = Browser(arena.anonymous)
    url = await browser.depart("hostile")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    await browser.visit(provider.authorize(url))
    async with arena.database.unit_of_work() as session:
        rows = await session.execute(text("SELECT f::text FROM federated_logins f"))
        stored = str(rows.all())
    verifier = provider.forms[-1]["code_verifier"]
    for secret in (browser.cookies[LOGIN_COOKIE], asked["state"], asked["nonce"], verifier):
        assert len(secret) >= 43
        assert secret not in stored
        assert secret.encode().hex() not in stored


EMAIL = "person-1@people.example"
UNVERIFIED: tuple[tuple[dict[str, Any], dict[str, Any] | None], ...] = (
    ({"email": EMAIL, "email_verified": False}, None),
    ({"email": EMAIL, "email_verified": "true"}, None),
    ({"email": EMAIL}, None),
    ({"email": "no address", "email_verified": True}, None),
    ({"email": "a@" + "b" * 320, "email_verified": True}, None),
    ({}, {}),
    ({}, {"email": EMAIL}),
    ({}, {"email": EMAIL, "email_verified": False}),
    # What UserInfo says of a token's own address does not count.
    ({"email": EMAIL, "email_verified": False}, {"email": EMAIL, "email_verified": True}),
)


async def test_an_address_that_is_not_verified_makes_and_links_nothing(
    arena: Arena, provider: HostileProvider
) -> None:
    for said, userinfo in UNVERIFIED:
        provider.claims = {"email": ..., "email_verified": ...} | said
        provider.userinfo = None if userinfo is None else {"sub": "person-1"} | userinfo
        reply = await come_back(Browser(arena.anonymous), provider)
        assert (reply.status, reply.code) == (403, "email_unverified"), (said, userinfo, reply)
    await nobody_got_in(arena)


async def test_userinfo_gives_the_address_that_a_token_leaves_out(
    arena: Arena, provider: HostileProvider
) -> None:
    provider.claims |= {"email": ..., "email_verified": ..., "preferred_username": ...}
    provider.userinfo = {"sub": "person-2", "email": "x@people.example", "email_verified": True}
    assert (await come_back(Browser(arena.anonymous), provider)).code == "federated_login_failed"
    await nobody_got_in(arena)
    provider.userinfo["sub"] = "person-1"
    client = await log_in(arena, provider)
    (identity,) = ok(await client.get("/v1/me/identities"))["items"]
    assert identity["email"] == "x@people.example"


async def test_strangers_get_no_account_where_the_provider_makes_none(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(
        new_arena, provider, oidc_providers=provider.configured(creates_accounts=False)
    )
    reply = await come_back(Browser(arena.anonymous), provider)
    assert (reply.status, reply.code) == (403, "identity_not_linked")
    await nobody_got_in(arena)


async def test_an_address_never_finds_an_account(arena: Arena, provider: HostileProvider) -> None:
    """Names here look like addresses, and an account with one is still not the provider's."""
    victim = await arena.user("person-1")
    stranger = await log_in(arena, provider)
    assert stranger.id != victim.id
    name = ok(await stranger.get("/v1/me"))["user"]["username"]
    assert name.startswith("person-1-")
    # Nor does an address that another person at a provider has.
    provider.subject = "person-2"
    provider.claims["email"] = "person-1@people.example"
    assert (await log_in(arena, provider)).id not in (victim.id, stranger.id)


async def test_a_new_account_gets_a_name_like_the_one_there(
    arena: Arena, provider: HostileProvider
) -> None:
    for number, (wanted, made) in enumerate(
        (
            ("Bob.The-Builder_9", r"Bob\.The-Builder_9"),
            ("bob@people.example", "bob"),
            ("BOB", "BOB-[0-9a-f]{8}"),
            ("-_rob_-", "rob"),
            ("b\u00f6b <script>", "bbscript"),
            ("x", "player-[0-9a-f]{8}"),
            (None, "player-[0-9a-f]{8}"),
            ("n" * 200, "n{30}"),
        )
    ):
        provider.subject = f"person-{number}"
        provider.claims["preferred_username"] = wanted
        client = await log_in(arena, provider)
        name = ok(await client.get("/v1/me"))["user"]["username"]
        assert re.fullmatch(made, name), (wanted, name)


async def test_a_closed_account_is_refused_like_an_unknown_one(
    arena: Arena, new_arena: NewArena, provider: HostileProvider
) -> None:
    operator = await arena.user("operator", Role.OPERATOR)
    member = await log_in(arena, provider)
    waiting = Browser(arena.anonymous)
    assert (await come_back(waiting, provider)).status == 303
    ok(await operator.post(f"/v1/users/{member.id}/disable"))
    closed = await come_back(Browser(arena.anonymous), provider)
    provider.subject = "nobody"
    strict = await make_arena(
        new_arena, provider, oidc_providers=provider.configured(creates_accounts=False)
    )
    unknown = await come_back(Browser(strict.anonymous), provider)
    assert (closed.status, closed.code) == (403, "identity_not_linked")
    ids = ("request_id",)
    assert {k: v for k, v in closed.json.items() if k not in ids} == {
        k: v for k, v in unknown.json.items() if k not in ids
    }
    # Nor does somebody get in who came back just before.
    assert (await waiting.finish()).code == "federated_login_failed"


async def test_a_second_factor_is_asked_for_and_its_guesses_are_bounded(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(new_arena, provider, login_attempts_per_pair_max=3)
    client = await log_in(arena, provider)
    made = ok(await client.post("/v1/me/second-factor", {}), 201)
    phone = Authenticator(made["secret"])
    ok(await client.post("/v1/me/second-factor/confirm", {"code": phone.code()}))
    await let_time_pass(arena)
    browser = Browser(arena.anonymous)
    assert (await come_back(browser, provider)).status == 303
    missing = await browser.finish()
    assert (missing.status, missing.code) == (401, "second_factor_required")
    wrong = await browser.finish(code=phone.wrong_code())
    assert (wrong.status, wrong.code) == (401, "second_factor_wrong")
    granted = ok(await browser.finish(code=phone.code()))
    shown = arena.anonymous.with_token(granted["access_token"])
    sessions = ok(await shown.get("/v1/sessions"))["items"]
    assert [one["second_factor"] for one in sessions if one["current"]] == [True]
    guessing = Browser(arena.anonymous)
    assert (await come_back(guessing, provider)).status == 303
    codes = [(await guessing.finish(code=phone.wrong_code())).code for _ in range(4)]
    assert codes == ["second_factor_wrong"] * 3 + ["too_many_attempts"]


async def test_an_operator_who_comes_through_a_provider_needs_a_second_factor_still(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(new_arena, provider, second_factor_for_operators="always")
    operator = await arena.user("operator", Role.OPERATOR)
    await link(arena, provider, operator)
    again = await log_in(arena, provider)
    assert again.id == operator.id
    assert (await again.get("/v1/users")).code == "second_factor_required"


async def link(
    arena: Arena, provider: HostileProvider, client: Client, browser: Browser | None = None
) -> Reply:
    browser = browser or Browser(client)
    order = {"provider_id": "hostile", "current_password": PASSWORD, "return_to": "/me"}
    begun = ok(await browser.ask("POST", "/v1/me/identities", order))
    browser.arena = arena.anonymous
    return await browser.visit(provider.authorize(begun["authorization_url"]))


async def test_somebody_who_is_logged_in_links_an_identity_and_logs_in_with_it(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(
        new_arena, provider, oidc_providers=provider.configured(creates_accounts=False)
    )
    alice = await arena.user("alice")
    browser = Browser(alice)
    back = await link(arena, provider, alice, browser)
    assert (back.status, back.headers["location"]) == (303, f"{ORIGIN}/me")
    # Linking is no login.
    assert (await browser.finish()).code == "federated_login_failed"
    assert (await log_in(arena, provider)).id == alice.id
    # To do it again changes nothing; for another account it is refused.
    assert (await link(arena, provider, alice)).status == 303
    bob = await arena.user("bob")
    taken = await link(arena, provider, bob)
    assert (taken.status, taken.code) == (409, "identity_taken")
    assert ok(await bob.get("/v1/me/identities"))["items"] == []


async def test_linking_needs_the_password_and_a_session_that_goes_on(
    arena: Arena, provider: HostileProvider
) -> None:
    alice = await arena.user("alice")
    for password in ({}, {"current_password": "not the right one"}):
        reply = await alice.post("/v1/me/identities", {"provider_id": "hostile"} | password)
        assert (reply.status, reply.code) == (403, "password_wrong")
    browser = Browser(alice)
    order = {"provider_id": "hostile", "current_password": PASSWORD}
    begun = ok(await browser.ask("POST", "/v1/me/identities", order))
    path = provider.authorize(begun["authorization_url"])
    # Another's browser links nothing, even with the link.
    assert (await Browser(arena.anonymous).visit(path)).code == "federated_login_failed"
    ok(await alice.post("/v1/auth/logout"), 204)
    assert (await browser.visit(path)).code == "federated_login_failed"
    provider.claims["email_verified"] = False
    reply = await link(arena, provider, await arena.login("alice"))
    assert (reply.status, reply.code) == (403, "email_unverified")
    assert await scalar(arena, select(func.count()).select_from(Identity)) == 0


async def test_unlinking_ends_every_other_session_and_never_the_last_way_in(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(new_arena, provider)
    client, other = await log_in(arena, provider), await log_in(arena, provider)
    (identity,) = ok(await client.get("/v1/me/identities"))["items"]
    path = f"/v1/me/identities/{identity['id']}"
    last = await client.delete(path)
    assert (last.status, last.code) == (409, "last_way_in")
    # Whoever has no password sets the first one soon after a login, and not later.
    order = {"new_password": "a password at last, of 2026"}
    async with arena.database.unit_of_work() as session:
        await session.execute(
            update(LoginSession).values(created_at=func.now() - text("interval '1 hour'"))
        )
    assert (await client.put("/v1/me/password", order)).code == "login_not_fresh"
    assert (await client.post("/v1/me/second-factor", {})).code == "login_not_fresh"
    client, other = await log_in(arena, provider), await log_in(arena, provider)
    ok(await client.put("/v1/me/password", order), 204)
    assert (await client.put("/v1/me/password", order)).code == "password_wrong"
    other = await log_in(arena, provider)
    stranger = await arena.user("stranger")
    assert (await stranger.delete(path)).status == 404
    ok(await client.delete(path), 204)
    assert (await other.get("/v1/me")).code == "token_invalid"
    ok(await client.get("/v1/me"))
    assert (await client.delete(path)).status == 404
    # The same person is a stranger now.
    assert (await log_in(arena, provider)).id != client.id


async def test_an_identity_of_a_provider_that_is_gone_is_no_way_in(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(new_arena, provider)
    client = await log_in(arena, provider)
    async with arena.database.unit_of_work() as session:
        (row,) = (await session.scalars(select(Identity))).all()
        session.add(
            Identity(
                id=new_id(),
                user_id=row.user_id,
                issuer="https://gone.example",
                subject="person-1",
                email="x@people.example",
            )
        )
    items = ok(await client.get("/v1/me/identities"))["items"]
    assert {one["provider_id"] for one in items} == {"hostile", None}
    (mine,) = (one["id"] for one in items if one["provider_id"] == "hostile")
    assert (await client.delete(f"/v1/me/identities/{mine}")).code == "last_way_in"


@pytest.mark.parametrize(
    "return_to",
    [
        "//evil.example",
        "/\\evil.example",
        "\\evil.example",
        "https://evil.example",
        "https:evil.example",
        "evil.example",
        "/\t/evil.example",
        "/ /evil.example",
        "/%0d%0aSet-Cookie: x=y\r\n",
        "/tables\n",
        "javascript:alert(1)",
        "@evil.example",
        ".evil.example",
        "/" + "x" * 512,
        "",
    ],
)
def test_nobody_is_sent_on_to_another_site(return_to: str) -> None:
    with pytest.raises(Invalid, match="return_to"):
        flow.check_return_to(return_to)


async def test_one_goes_on_to_a_path_of_ours(arena: Arena, provider: HostileProvider) -> None:
    for path in ("/", "/tables", "/tables/table_1?tab=runs#hands", "/@evil.example", "/a//b"):
        begun = await come_back(Browser(arena.anonymous), provider, return_to=path)
        location = urlsplit(begun.headers["location"])
        assert f"{location.scheme}://{location.netloc}" == ORIGIN
        assert begun.headers["location"] == ORIGIN + path
    begun = await Browser(arena.anonymous).ask(
        "POST", "/v1/auth/providers/hostile/login", {"return_to": "//evil.example"}
    )
    assert (begun.status, begun.code, begun.cookies) == (422, "return_to_refused", ())


async def test_a_foreign_page_neither_begins_nor_ends_a_login(
    arena: Arena, provider: HostileProvider
) -> None:
    browser = Browser(arena.anonymous)
    foreign = {"origin": "https://evil.example"}
    begun = await browser.ask("POST", "/v1/auth/providers/hostile/login", {}, **foreign)
    assert (begun.status, begun.code, begun.cookies) == (403, "foreign_page", ())
    assert (await come_back(browser, provider)).status == 303
    ended = await browser.ask("POST", "/v1/auth/federated", {}, **foreign)
    assert (ended.status, ended.code, ended.cookies) == (403, "foreign_page", ())
    ok(await browser.finish())


async def test_whoever_declines_is_told_so_and_can_begin_again(
    arena: Arena, provider: HostileProvider
) -> None:
    provider.response |= {"error": "access_denied"}
    reply = await come_back(Browser(arena.anonymous), provider)
    assert (reply.status, reply.code) == (401, "federated_login_declined")
    assert "/token" not in provider.asked
    provider.response.clear()
    await log_in(arena, provider)


async def test_every_step_is_in_the_audit_and_refusals_are_too(
    new_arena: NewArena, provider: HostileProvider
) -> None:
    arena = await make_arena(new_arena, provider)
    operator = await arena.user("operator", Role.OPERATOR)
    client = await log_in(arena, provider)
    await link(arena, provider, operator)
    provider.claims["nonce"] = "another"
    await come_back(Browser(arena.anonymous), provider)
    provider.claims.clear()
    provider.subject = "person-2"
    await link(arena, provider, operator)
    for identity in ok(await operator.get("/v1/me/identities"))["items"]:
        ok(await operator.delete(f"/v1/me/identities/{identity['id']}"), 204)
    events = ok(await operator.get("/v1/audit"))["items"]
    found: dict[str, list[Any]] = {}
    for one in events:
        found.setdefault(one["event"], []).append(one)
    assert [one["details"]["code"] for one in found["identity.refused"]] == [
        "federated_login_failed",
        "identity_taken",
    ]
    linked = found["identity.linked"]
    assert [one["actor_id"] for one in linked] == [operator.id, client.id]
    assert all(one["subject"].startswith("ident_") for one in linked)
    assert found["identity.unlinked"][0]["details"]["issuer"] == provider.issuer
    through = [one["details"]["through"] for one in found["login.succeeded"]]
    assert through == [linked[1]["subject"], "password"]
    assert "people.example" not in str(events), "addresses stay out of what is never deleted"


async def test_providers_are_listed_by_the_names_that_the_operator_gave(
    arena: Arena, provider: HostileProvider
) -> None:
    listed = ok(await arena.anonymous.get("/v1/auth/providers"))
    assert listed == {"items": [{"id": "hostile", "name": "The Other Side"}]}
    assert provider.asked == [], "a list of names asks nobody"
    reply = await Browser(arena.anonymous).ask("POST", "/v1/auth/providers/other/login")
    assert reply.status == 404
