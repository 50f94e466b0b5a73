"""ID tokens: what a provider says of somebody, judged (OpenID Connect Core, 3.1.3.7).

One algorithm is pinned for each provider, and the key comes from the provider's own document, by
its id: what a header says beside that (`jku`, `jwk`, `x5u`) is never looked at. This module must
never trust a claim before the signature, and never log a token. Why one is refused is for our own
log alone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from pokerarena.auth.federation.keys import PublicKey
from pokerarena.federation_settings import IdTokenAlgorithm

TEXT_MAX_BYTES: Final = 16 * 1024
HEADER_MAX_BYTES: Final = 4 * 1024
_SUBJECT: Final = re.compile(r"[ -~]{1,255}")

FindKey = Callable[[str | None], Awaitable[PublicKey | None]]


class Why(StrEnum):
    """Why an answer of a provider, or a token, is not believed. Never told to the caller."""

    STATE = "state"
    SPENT = "spent"
    RESPONSE_ISSUER = "response_issuer"
    CODE_REFUSED = "code_refused"
    FORM = "form"
    ALGORITHM = "algorithm"
    KEY = "key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    AUTHORIZED_PARTY = "authorized_party"
    EXPIRED = "expired"
    ISSUED_AT = "issued_at"
    NOT_YET = "not_yet"
    NONCE = "nonce"
    ACCESS_TOKEN_HASH = "access_token_hash"  # noqa: S105 - a reason
    SUBJECT = "subject"


class Disbelieved(Exception):
    """Something that a provider is supposed to have said is not true, or not for us."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


@dataclass(frozen=True, slots=True)
class Expected:
    """What the token of one login must say."""

    issuer: str
    client_id: str
    nonce: str
    algorithm: IdTokenAlgorithm
    # Seconds since 1970: when the login began, and now.
    begun_at_s: float
    now_s: float
    leeway_s: int
    access_token: str


class Claims(msgspec.Struct, frozen=True):
    """What is read of a token."""

    iss: str
    sub: str
    aud: str | list[str]
    exp: float
    iat: float
    nonce: str
    nbf: float | None = None
    azp: str | None = None
    at_hash: str | None = None
    email: str | None = None
    # Some say it as a text; only the JSON truth value is one.
    email_verified: bool | str = False
    preferred_username: str | None = None


class _Registry(jws.JWSRegistry):
    max_header_length = HEADER_MAX_BYTES
    max_payload_length = TEXT_MAX_BYTES


_claims: Final = msgspec.json.Decoder(Claims)


async def judge(text: str, find_key: FindKey, expected: Expected) -> Claims:
    """What a token says; raises `Disbelieved` unless every part of it is right."""
    claims = _read(await _signed(text, find_key, expected.algorithm))
    if claims.iss != expected.issuer:
        raise Disbelieved(Why.ISSUER)
    _check_audience(claims, expected.client_id)
    _check_times(claims, expected)
    if not hmac.compare_digest(claims.nonce.encode(), expected.nonce.encode()):
        raise Disbelieved(Why.NONCE)
    if claims.at_hash is not None and not hmac.compare_digest(
        claims.at_hash.encode(), half_hash(expected.access_token).encode()
    ):
        raise Disbelieved(Why.ACCESS_TOKEN_HASH)
    if not _SUBJECT.fullmatch(claims.sub):
        raise Disbelieved(Why.SUBJECT)
    return claims


async def _signed(text: str, find_key: FindKey, algorithm: IdTokenAlgorithm) -> bytes:
    """The payload of a token that the provider signed."""
    if len(text) > TEXT_MAX_BYTES or not text.isascii():
        raise Disbelieved(Why.FORM)
    # Tolerant of further members, which are not used; of a `crit` that it does not know it is not.
    registry = _Registry(algorithms=[algorithm.value], strict_check_header=False)
    try:
        header = jws.extract_compact(text.encode("ascii"), registry=registry).headers()
    except (JoseError, ValueError, RecursionError):
        raise Disbelieved(Why.FORM) from None
    if header.get("alg") != algorithm.value:
        raise Disbelieved(Why.ALGORITHM)
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise Disbelieved(Why.FORM)
    key = await find_key(kid)
    if key is None:
        raise Disbelieved(Why.KEY)
    try:
        return jws.deserialize_compact(text, key, registry=registry).payload
    except (JoseError, ValueError, RecursionError):
        raise Disbelieved(Why.SIGNATURE) from None


def _read(payload: bytes) -> Claims:
    try:
        return _claims.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Disbelieved(Why.FORM) from None


def _check_audience(claims: Claims, client_id: str) -> None:
    audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if client_id not in audience:
        raise Disbelieved(Why.AUDIENCE)
    if len(audience) > 1 and claims.azp is None:
        # For several, and nobody says for whom of them.
        raise Disbelieved(Why.AUTHORIZED_PARTY)
    if claims.azp is not None and claims.azp != client_id:
        raise Disbelieved(Why.AUTHORIZED_PARTY)


def _check_times(claims: Claims, expected: Expected) -> None:
    leeway_s = expected.leeway_s
    # Written so that what is no number at all is refused.
    if not claims.exp > expected.now_s - leeway_s:
        raise Disbelieved(Why.EXPIRED)
    # A token of before this login answers another question.
    if not expected.begun_at_s - leeway_s <= claims.iat <= expected.now_s + leeway_s:
        raise Disbelieved(Why.ISSUED_AT)
    if claims.nbf is not None and not claims.nbf <= expected.now_s + leeway_s:
        raise Disbelieved(Why.NOT_YET)


def half_hash(text: str) -> str:
    """The left half of the SHA-256 of an access token: `at_hash` of every algorithm that we take."""
    digest = hashlib.sha256(text.encode("ascii", "replace")).digest()
    return urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode("ascii")
