"""Bearer tokens: their text, how they are stored, and whom they stand for.

A token is ``pka_`` (personal) or ``pks_`` (session), 30 random base62 characters and 6 base62
characters of their CRC-32, so that secret scanners recognise one and a typing error needs no
look-up. Only an HMAC under the pepper is stored. This module must never log or store a token's
text, and never tells an unknown token from a revoked one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import accounts
from pokerarena.auth.models import ApiToken, Role, TokenKind, User
from pokerarena.auth.permissions import Principal, Scope, role_scopes
from pokerarena.errors import Forbidden, Invalid, NotFound, QuotaExceeded, Unauthenticated
from pokerarena.ids import new_id

PREFIXES = {TokenKind.PERSONAL: "pka_", TokenKind.SESSION: "pks_"}
RANDOM_CHARACTERS = 30
CHECK_CHARACTERS = 6
# How stale `last_used_at` may be: a write for every request would cost more than it tells.
LAST_USED_GRAIN = timedelta(minutes=5)
# What an account may have of live sessions; the oldest ends when another begins.
SESSIONS_PER_USER_MAX = 50

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_TEXT_LENGTH = 4 + RANDOM_CHARACTERS + CHECK_CHARACTERS


def _check_characters(body: str) -> str:
    rest = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(CHECK_CHARACTERS):
        rest, digit = divmod(rest, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def new_text(kind: TokenKind) -> str:
    """A new token's text; it exists nowhere else until its MAC is stored."""
    body = "".join(secrets.choice(_BASE62) for _ in range(RANDOM_CHARACTERS))
    return PREFIXES[kind] + body + _check_characters(body)


def is_well_formed(text: str) -> bool:
    """Whether a text can be a token at all: prefix, length, alphabet and check characters."""
    if len(text) != _TEXT_LENGTH or text[:4] not in PREFIXES.values() or not text.isascii():
        return False
    body, check = text[4:-CHECK_CHARACTERS], text[-CHECK_CHARACTERS:]
    return body.isalnum() and hmac.compare_digest(check, _check_characters(body))


class TokenMac:
    """The MAC under which tokens are stored, with the id of its pepper.

    Tokens that were stored under a previous pepper are still found, and move to the present one
    when they are used.
    """

    __slots__ = ("_pepper", "_previous", "pepper_id")

    def __init__(self, pepper: bytes, previous: Sequence[bytes] = ()) -> None:
        self._pepper = pepper
        self._previous = tuple(previous)
        self.pepper_id = hashlib.sha256(b"pokerarena pepper id" + pepper).digest()[:4]

    def of(self, text: str) -> bytes:
        """The MAC of a token's text."""
        return hmac.digest(self._pepper, text.encode("ascii"), "sha256")

    @property
    def has_previous(self) -> bool:
        """Whether some tokens may still be stored under another pepper."""
        return bool(self._previous)

    def candidates(self, text: str) -> list[bytes]:
        """Every MAC under which the token may be stored."""
        encoded = text.encode("ascii")
        return [hmac.digest(key, encoded, "sha256") for key in (self._pepper, *self._previous)]


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made; `text` is shown once."""

    row: ApiToken
    text: str


async def create_personal(
    session: AsyncSession,
    mac: TokenMac,
    *,
    principal: Principal,
    name: str,
    scopes: Iterable[Scope],
    ttl_s: int,
    ttl_max_s: int,
    tokens_max: int,
) -> NewToken:
    """Make a personal token that can do no more than its maker."""
    user_id = principal.known_id()
    wanted = frozenset(scopes)
    if not wanted:
        raise Invalid("scopes_empty", "A token needs at least one scope.")
    if excess := sorted(wanted - principal.scopes):
        raise Forbidden(
            "scope_excess",
            f"You cannot give what you do not have: leave out {', '.join(excess)}.",
            scopes=excess,
        )
    if not 1 <= ttl_s <= ttl_max_s:
        raise Invalid(
            "expiry_out_of_range",
            f"A token lives from 1 to {ttl_max_s} seconds.",
            max_expires_in_s=ttl_max_s,
        )
    await accounts.lock(session, user_id)
    live = await session.scalar(
        select(func.count()).where(
            ApiToken.user_id == user_id,
            ApiToken.kind == TokenKind.PERSONAL.value,
            ApiToken.revoked_at.is_(None),
            ApiToken.expires_at > func.now(),
        )
    )
    if (live or 0) >= tokens_max:
        raise QuotaExceeded(
            "too_many_tokens", f"You have {live} tokens, the most allowed; revoke one first."
        )
    return await _store(session, mac, user_id, TokenKind.PERSONAL, name, wanted, ttl_s)


async def create_session(
    session: AsyncSession, mac: TokenMac, *, user: User, ttl_s: int
) -> NewToken:
    """Make the token of a login. Dead tokens of the user go; the oldest sessions end."""
    await accounts.lock(session, user.id)
    await session.execute(
        delete(ApiToken).where(ApiToken.user_id == user.id, ApiToken.expires_at < func.now())
    )
    surplus = (
        select(ApiToken.id)
        .where(ApiToken.user_id == user.id, ApiToken.kind == TokenKind.SESSION.value)
        .order_by(ApiToken.id.desc())
        .offset(SESSIONS_PER_USER_MAX - 1)
    )
    await session.execute(delete(ApiToken).where(ApiToken.id.in_(surplus)))
    scopes = role_scopes(Role(user.role))
    return await _store(session, mac, user.id, TokenKind.SESSION, "login", scopes, ttl_s)


async def _store(
    session: AsyncSession,
    mac: TokenMac,
    user_id: UUID,
    kind: TokenKind,
    name: str,
    scopes: frozenset[Scope],
    ttl_s: int,
) -> NewToken:
    text = new_text(kind)
    row = ApiToken(
        id=new_id(),
        user_id=user_id,
        kind=kind.value,
        name=name,
        scopes=sorted(scope.value for scope in scopes),
        pepper_id=mac.pepper_id,
        mac=mac.of(text),
        expires_at=func.now() + timedelta(seconds=ttl_s),
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return NewToken(row, text)


async def authenticate(session: AsyncSession, mac: TokenMac, text: str) -> Principal:
    """The principal that a token stands for; raises `Unauthenticated` for any other text."""
    if not is_well_formed(text):
        raise _invalid()
    principal = await _principal(session, ApiToken.mac.in_(mac.candidates(text)))
    if mac.has_previous:
        await session.execute(
            update(ApiToken)
            .where(ApiToken.id == principal.token_id, ApiToken.pepper_id != mac.pepper_id)
            .values(mac=mac.of(text), pepper_id=mac.pepper_id)
        )
    return principal


async def again(session: AsyncSession, principal: Principal) -> Principal:
    """The same principal as of now, for what outlives a request; raises when it is none any more."""
    if principal.token_id is None:
        return principal
    return await _principal(session, ApiToken.id == principal.token_id)


async def _principal(session: AsyncSession, which: ColumnElement[bool]) -> Principal:
    found = (
        await session.execute(
            select(
                ApiToken,
                User,
                (ApiToken.expires_at <= func.now()).label("expired"),
                (
                    ApiToken.last_used_at.is_(None)
                    | (ApiToken.last_used_at < func.now() - LAST_USED_GRAIN)
                ).label("stale"),
            )
            .join(User, User.id == ApiToken.user_id)
            .where(which)
        )
    ).one_or_none()
    if found is None:
        raise _invalid()
    token, user, expired, stale = found
    if token.revoked_at is not None or user.disabled_at is not None:
        raise _invalid()
    if expired:
        raise Unauthenticated(
            "token_expired", "This token has expired: log in again or make a new one."
        )
    if stale:
        await session.execute(
            update(ApiToken).where(ApiToken.id == token.id).values(last_used_at=func.now())
        )
    role = Role(user.role)
    known = {scope.value for scope in Scope}
    scopes = frozenset(Scope(text) for text in token.scopes if text in known)
    return Principal(
        user_id=user.id,
        username=user.username,
        role=role,
        token_id=token.id,
        token_kind=TokenKind(token.kind),
        # A role that was taken away takes its scopes from older tokens with it.
        scopes=scopes & role_scopes(role),
    )


def _invalid() -> Unauthenticated:
    return Unauthenticated(
        "token_invalid", "This token is not valid (any more): log in again or make a new one."
    )


async def list_live(
    session: AsyncSession, user_id: UUID, *, before: UUID | None, limit: int
) -> list[ApiToken]:
    """The user's tokens that still work, newest first."""
    query = (
        select(ApiToken)
        .where(
            ApiToken.user_id == user_id,
            ApiToken.revoked_at.is_(None),
            ApiToken.expires_at > func.now(),
        )
        .order_by(ApiToken.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(ApiToken.id < before)
    return list(await session.scalars(query))


async def revoke(session: AsyncSession, *, user_id: UUID, token_id: UUID) -> None:
    """Revoke one token of the user; to do it again changes nothing."""
    token = await session.get(ApiToken, token_id)
    if token is None or token.user_id != user_id:
        raise NotFound("token")
    if token.revoked_at is None:
        token.revoked_at = await session.scalar(select(func.now()))
        await session.flush()


async def end_sessions(session: AsyncSession, user_id: UUID, *, but: UUID | None) -> None:
    """Revoke every session of the user, except the one that asks for it."""
    change = update(ApiToken).where(
        ApiToken.user_id == user_id,
        ApiToken.kind == TokenKind.SESSION.value,
        ApiToken.revoked_at.is_(None),
    )
    if but is not None:
        change = change.where(ApiToken.id != but)
    await session.execute(change.values(revoked_at=func.now()))
