"""Access tokens: the one form that is taken, and the forgeries that are not."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from pokerarena.auth.signing_keys import SigningKeys
from pokerarena.ids import IdKind, id_text, new_id
from tests.api.arena import Arena, ok
from tests.api.asgi import Client


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return json.loads(base64.urlsafe_b64decode(header + "==")), json.loads(
        base64.urlsafe_b64decode(claims + "==")
    )


class Forger:
    """Somebody who has a genuine token of their own and knows all that is public."""

    def __init__(self, token: str, genuine: ECKey) -> None:
        self.token = token
        self.header, self.claims = parts_of(token)
        self.genuine = genuine
        self.foreign = ECKey.generate_key("P-256")

    def signed(
        self, key: ECKey | None = None, header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """With the genuine key, unless said otherwise: so that what is wrong is one thing."""
        payload = {k: v for k, v in (self.claims | claims).items() if v is not ...}
        head = {k: v for k, v in (self.header | (header or {})).items() if v is not ...}
        body = f"{part(head)}.{part(payload)}"
        private = (key or self.genuine).private_key
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        der = private.sign(body.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(der)
        return f"{body}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def public_pem(self) -> bytes:
        return bytes(self.genuine.as_pem(private=False))


def unsigned(forger: Forger, alg: str) -> str:
    return f"{part(forger.header | {'alg': alg})}.{part(forger.claims)}."


def signed_with_the_public_key(forger: Forger, secret: bytes) -> str:
    body = f"{part(forger.header | {'alg': 'HS256'})}.{part(forger.claims)}"
    return f"{body}.{part(hmac.digest(secret, body.encode(), 'sha256'))}"


def signed_by_rsa(forger: Forger) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    body = f"{part(forger.header | {'alg': 'RS256'})}.{part(forger.claims)}"
    return f"{body}.{part(key.sign(body.encode(), PKCS1v15(), hashes.SHA256()))}"


def raw_public_point(forger: Forger) -> bytes:
    public = forger.genuine.public_key
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return public.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


def foreign_jwk(forger: Forger) -> dict[str, Any]:
    return dict(forger.foreign.as_dict(private=False))


NOW = time.time()
ATTACKS: dict[str, Callable[[Forger], str]] = {
    "alg none, no signature": lambda f: unsigned(f, "none"),
    "alg None, capitalised": lambda f: unsigned(f, "None"),
    "alg ES256, no signature": lambda f: unsigned(f, "ES256"),
    "alg none, genuine signature": lambda f: (
        f"{part(f.header | {'alg': 'none'})}.{f.token.split('.', 1)[1]}"
    ),
    "HS256 under the public key's PEM": lambda f: signed_with_the_public_key(f, f.public_pem()),
    "HS256 under the public point": lambda f: signed_with_the_public_key(f, raw_public_point(f)),
    "HS256 under nothing": lambda f: signed_with_the_public_key(f, b""),
    "RS256 by a key of one's own": signed_by_rsa,
    "ES384 named, ES256 signed": lambda f: f.signed(header={"alg": "ES384"}),
    "a foreign key under the genuine kid": lambda f: f.signed(key=f.foreign),
    "a foreign key under its own kid": lambda f: f.signed(
        key=f.foreign, header={"kid": f.foreign.thumbprint()}
    ),
    "an unknown kid": lambda f: f.signed(header={"kid": "0" * 43}),
    "a kid that is a path": lambda f: f.signed(header={"kid": "../../dev/null"}),
    "a kid that is SQL": lambda f: f.signed(header={"kid": "' OR 1=1 --"}),
    "a kid that is a list": lambda f: f.signed(header={"kid": [f.header["kid"]]}),
    "no kid": lambda f: f.signed(header={"kid": ...}),
    "a foreign key with its jku": lambda f: f.signed(
        key=f.foreign, header={"jku": "http://127.0.0.1:9/jwks.json"}
    ),
    "a genuine key with a jku": lambda f: f.signed(header={"jku": "https://arena.example/jwks"}),
    "a foreign key with its jwk": lambda f: f.signed(key=f.foreign, header={"jwk": foreign_jwk(f)}),
    "a foreign key with its x5u": lambda f: f.signed(
        key=f.foreign, header={"x5u": "http://127.0.0.1:9/cert.pem"}
    ),
    "a critical header": lambda f: f.signed(header={"crit": ["b64"], "b64": False}),
    "another audience": lambda f: f.signed(aud="pokerarena-worker"),
    "a list of audiences": lambda f: f.signed(aud=["pokerarena-api", "other"]),
    "no audience": lambda f: f.signed(aud=...),
    "another issuer": lambda f: f.signed(iss="https://arena.example"),
    "the issuer with a slash": lambda f: f.signed(iss=f.claims["iss"] + "/"),
    "no issuer": lambda f: f.signed(iss=...),
    "typ JWT": lambda f: f.signed(header={"typ": "JWT"}),
    "typ of an ID token's kin": lambda f: f.signed(header={"typ": "logout+jwt"}),
    "no typ": lambda f: f.signed(header={"typ": ...}),
    "another service's token": lambda f: f.signed(
        header={"typ": "service+jwt"}, aud="pokerarena-agent-host", sub="worker"
    ),
    "no expiry": lambda f: f.signed(exp=...),
    "an expiry that is a text": lambda f: f.signed(exp=str(int(NOW) + 600)),
    "an expiry that is no number": lambda f: f.signed(exp=float("nan")),
    "not yet valid": lambda f: f.signed(nbf=int(NOW) + 3600, exp=int(NOW) + 7200),
    "issued in the future": lambda f: f.signed(iat=int(NOW) + 3600, exp=int(NOW) + 7200),
    "no nbf": lambda f: f.signed(nbf=...),
    "another user's name": lambda f: f.signed(sub=id_text(IdKind.USER, new_id())),
    "a session that never was": lambda f: f.signed(sid=id_text(IdKind.SESSION, new_id())),
    "a user for a session": lambda f: f.signed(sid=f.claims["sub"]),
    "changed claims under a genuine signature": lambda f: ".".join(
        [
            f.token.split(".")[0],
            part(f.claims | {"exp": int(NOW) + 9_999_999}),
            f.token.split(".")[2],
        ]
    ),
    "no claims": lambda f: f"{f.token.split('.')[0]}.{part(b'')}.{f.token.split('.')[2]}",
    "claims that are no object": lambda f: ".".join(
        [f.token.split(".")[0], part([1]), f.token.split(".")[2]]
    ),
    "four parts": lambda f: f.token + ".AAAA",
    "two parts": lambda f: f.token.rpartition(".")[0],
    "five parts, as if encrypted": lambda f: f.token + ".AAAA.AAAA",
    "only dots": lambda f: "....",
    "too long": lambda f: f.signed(padding="x" * 3000),
    "not ASCII": lambda f: f.token + "é",
    "a header that is no JSON": lambda f: "e30x." + f.token.split(".", 1)[1],
    "an empty signature": lambda f: f.token.rpartition(".")[0] + ".",
    "a signature of zeros": lambda f: f.token.rpartition(".")[0] + "." + part(bytes(64)),
}


async def genuine_key(arena: Arena) -> ECKey:
    keys: SigningKeys = arena.anonymous.app.state.parts.signing_keys
    return (await keys.to_sign(datetime.now(UTC))).pair


@pytest.fixture
async def forger(arena: Arena) -> Forger:
    alice = await arena.user("alice")
    assert alice.token is not None
    return Forger(alice.token, await genuine_key(arena))


async def test_every_forgery_is_refused_with_one_and_the_same_answer(
    arena: Arena, forger: Forger
) -> None:
    ok(await arena.anonymous.with_token(forger.signed()).get("/v1/me"))
    answers = set()
    for name, forge in ATTACKS.items():
        # Also where anyone may read: what was sent is judged.
        for path in ("/v1/me", "/v1/tables"):
            reply = await arena.anonymous.with_token(forge(forger)).get(path)
            assert (reply.status, reply.code) == (401, "token_invalid"), (name, reply)
            assert reply.headers["www-authenticate"].startswith("Bearer"), name
            answers.add(reply.json["detail"])
    assert len(answers) == 1, answers


async def test_a_genuine_token_that_expired_is_told_so(arena: Arena, forger: Forger) -> None:
    expired = forger.signed(iat=int(NOW) - 700, nbf=int(NOW) - 700, exp=int(NOW) - 1)
    reply = await arena.anonymous.with_token(expired).get("/v1/me")
    assert (reply.status, reply.code) == (401, "token_expired")
    # But not to who only claims it to be genuine.
    forged = forger.signed(key=forger.foreign, exp=int(NOW) - 1)
    assert (await arena.anonymous.with_token(forged).get("/v1/me")).code == "token_invalid"


async def test_a_refresh_token_is_no_access_token(arena: Arena) -> None:
    await arena.user("alice")
    from tests.auth.test_sessions import log_in

    granted = await log_in(arena)
    reply = await arena.anonymous.with_token(granted["refresh_token"]).get("/v1/me")
    assert (reply.status, reply.code) == (401, "token_invalid")


async def test_a_token_of_another_arena_with_the_same_names_is_refused(
    arena: Arena, forger: Forger
) -> None:
    stranger = Forger(forger.token, forger.foreign)
    reply = await arena.anonymous.with_token(stranger.signed()).get("/v1/me")
    assert (reply.status, reply.code) == (401, "token_invalid")


async def test_a_token_says_what_rfc_9068_asks_for_and_nothing_of_rights(
    arena: Arena, forger: Forger
) -> None:
    assert forger.header == {"alg": "ES256", "typ": "at+jwt", "kid": forger.genuine.thumbprint()}
    assert set(forger.claims) == {
        "iss", "aud", "sub", "sid", "client_id", "jti", "iat", "nbf", "exp",
    }  # fmt: skip
    assert forger.claims["iss"] == arena.settings.public_url
    assert forger.claims["exp"] - forger.claims["iat"] == arena.settings.access_token_ttl_s == 600


async def test_anybody_can_verify_a_token_by_the_published_keys(
    arena: Arena, forger: Forger
) -> None:
    reply = await arena.anonymous.get("/.well-known/jwks.json")
    published = ok(reply)
    assert reply.headers["cache-control"] == "public, max-age=450"
    assert all("d" not in key for key in published["keys"])
    decoded = jwt.decode(forger.token, KeySet.import_key_set(published), algorithms=["ES256"])
    assert decoded.claims == forger.claims


@given(st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a_token_with_any_character_changed_stands_for_nobody(
    arena: Arena, forger: Forger, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(forger.token) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    other = data.draw(st.sampled_from(alphabet).filter(lambda one: one != forger.token[at]))
    changed = forger.token[:at] + other + forger.token[at + 1 :]
    reply = await Client(arena.anonymous.app, changed).get("/v1/me")
    assert reply.status == 401


async def test_a_token_has_one_spelling(arena: Arena, forger: Forger) -> None:
    """The last character of a signature carries four bits that mean nothing."""
    ok(await Client(arena.anonymous.app, forger.token).get("/v1/me"))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    at = alphabet.index(forger.token[-1])
    for other in range(at - at % 16, at - at % 16 + 16):
        if other != at:
            changed = forger.token[:-1] + alphabet[other]
            assert (await Client(arena.anonymous.app, changed).get("/v1/me")).status == 401
    # A length that no base64 has is no fault of ours either.
    for cut in range(1, 5):
        assert (await Client(arena.anonymous.app, forger.token[:-cut]).get("/v1/me")).status == 401
