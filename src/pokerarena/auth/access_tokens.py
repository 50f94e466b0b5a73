"""Access tokens: short-lived JWTs of RFC 9068, signed and judged here alone.

One algorithm is pinned, and a header may hold nothing but `alg`, `typ` and `kid`: what else a
header can say (`jku`, `x5u`, `jwk`, `crit`) can only tell us whose key to trust, which is nobody's
to tell. This module must never trust a claim before the signature, and never logs a token.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec
from joserfc import jws

from pokerarena.auth.signing_keys import ALGORITHM, CLOCK_LEEWAY_S, LoadedKey, SigningKeys
from pokerarena.auth.tokens import invalid
from pokerarena.errors import Invalid, Unauthenticated
from pokerarena.ids import IdKind, id_text, new_id, parse_id

TYPE: Final = "at+jwt"
AUDIENCE: Final = "pokerarena-api"
TEXT_MAX_BYTES: Final = 2048


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    alg: str
    typ: str
    kid: str


class _Claims(msgspec.Struct):
    iss: str
    aud: str
    sub: str
    sid: str
    client_id: str
    jti: str
    iat: int
    nbf: int
    exp: int


@dataclass(frozen=True, slots=True)
class Access:
    """What a valid access token says: which session of which user asks."""

    user_id: UUID
    session_id: UUID


@dataclass(frozen=True, slots=True)
class NewAccess:
    """A signed token and its end."""

    text: str
    expires_at: datetime


_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_UNREADABLE: Final = (ValueError, msgspec.DecodeError)
_SIGNATURE: Final = jws.JWSRegistry(algorithms=[ALGORITHM]).get_alg(ALGORITHM)
_header = msgspec.json.Decoder(_Header)
_claims = msgspec.json.Decoder(_Claims)
_encode = msgspec.json.Encoder().encode


def looks_like_one(text: str) -> bool:
    """Whether a bearer text claims to be a JWT, as no personal token can."""
    return "." in text


def issue(
    key: LoadedKey,
    *,
    issuer: str,
    user_id: UUID,
    session_id: UUID,
    client: str,
    ttl_s: int,
    now: datetime,
) -> NewAccess:
    """Sign a token for one session."""
    issued_at = int(now.timestamp())
    claims = _Claims(
        iss=issuer,
        aud=AUDIENCE,
        sub=id_text(IdKind.USER, user_id),
        sid=id_text(IdKind.SESSION, session_id),
        client_id=client,
        jti=new_id().hex,
        iat=issued_at,
        nbf=issued_at,
        exp=issued_at + ttl_s,
    )
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": key.kid}
    text = jws.serialize_compact(header, _encode(claims), key.pair, algorithms=[ALGORITHM])
    return NewAccess(text, datetime.fromtimestamp(claims.exp, UTC))


async def verify(keys: SigningKeys, text: str, *, issuer: str, now: datetime) -> Access:
    """What a token says; `Unauthenticated` unless every part of it is right."""
    if len(text) > TEXT_MAX_BYTES or not _FORM.fullmatch(text):
        raise invalid()
    signed, _, signature = text.rpartition(".")
    header_part, _, claims_part = signed.partition(".")
    try:
        header = _header.decode(_decoded(header_part))
    except _UNREADABLE:
        raise invalid() from None
    if header.alg != ALGORITHM or header.typ != TYPE:
        raise invalid()
    key = await keys.to_verify(header.kid, now)
    try:
        signature_bytes = _decoded(signature)
    except ValueError:
        raise invalid() from None
    # One text for one token: the last character has bits that mean nothing.
    if urlsafe_b64encode(signature_bytes).rstrip(b"=") != signature.encode("ascii"):
        raise invalid()
    # By the algorithm that we pinned, whatever the header had said.
    if not _SIGNATURE.verify(signed.encode("ascii"), signature_bytes, key.pair):
        raise invalid()
    try:
        claims = _claims.decode(_decoded(claims_part))
        access = Access(parse_id(IdKind.USER, claims.sub), parse_id(IdKind.SESSION, claims.sid))
    except (*_UNREADABLE, Invalid):
        raise invalid() from None
    if claims.iss != issuer or claims.aud != AUDIENCE:
        raise invalid()
    moment = now.timestamp()
    if max(claims.nbf, claims.iat) > moment + CLOCK_LEEWAY_S:
        raise invalid()
    if claims.exp <= moment:
        raise Unauthenticated("token_expired", "This access token has expired: refresh it.")
    return access


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
