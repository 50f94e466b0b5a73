"""Personal tokens: their text, how they are stored, and whom they stand for.

A token is ``pka_``, 30 random base62 characters and 6 base62 characters of their CRC-32, so that
secret scanners recognise one and a typing error needs no look-up. Only an HMAC under the pepper is
stored. This module must never log or store a token's text, and never tells an unknown token from a
revoked one.
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

from pokerarena.auth import accounts, audit
from pokerarena.auth.audit import Event
from pokerarena.auth.models import ApiToken, Role, SecondFactor, User
from pokerarena.auth.permissions import MEMBER_SCOPES, Principal, Scope, TokenKind, role_scopes
from pokerarena.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    QuotaExceeded,
    Unauthenticated,
)
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.settings import Settings

PREFIX = "pka_"
RANDOM_CHARACTERS = 30
CHECK_CHARACTERS = 6
# How stale `last_used_at` may be: a write for every request would cost more than it tells.
LAST_USED_GRAIN = timedelta(minutes=5)

_SCOPE_TEXTS = frozenset(scope.value for scope in Scope)
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def _check_characters(body: str) -> str:
    rest = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(CHECK_CHARACTERS):
        rest, digit = divmod(rest, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def new_text(prefix: str = PREFIX, *, fixed: str = "", random: int = RANDOM_CHARACTERS) -> str:
    """A new token's text; it exists nowhere else until its MAC is stored."""
    body = fixed + "".join(secrets.choice(_BASE62) for _ in range(random))
    return prefix + body + _check_characters(body)


def is_well_formed(text: str, prefix: str = PREFIX, *, random: int = RANDOM_CHARACTERS) -> bool:
    """Whether a text can be a token at all: prefix, length, alphabet and check characters."""
    length = len(prefix) + random + CHECK_CHARACTERS
    if len(text) != length or not text.startswith(prefix) or not text.isascii():
        return False
    body, check = text[len(prefix) : -CHECK_CHARACTERS], text[-CHECK_CHARACTERS:]
    return body.isalnum() and hmac.compare_digest(check, _check_characters(body))


class TokenMac:
    """The MAC under which tokens are stored, with the id of its pepper.

    Tokens that were stored under a previous pepper are still found, and move to the present one
    when they are used.
    """

    __slots__ = ("_peppers", "pepper_id")

    def __init__(self, pepper: bytes, previous: Sequence[bytes] = ()) -> None:
        self.pepper_id = _pepper_id(pepper)
        self._peppers = {_pepper_id(key): key for key in (pepper, *previous)}

    def of(self, text: str, pepper_id: bytes | None = None) -> bytes:
        """The MAC of a token's text, under the present pepper or the one of that id."""
        key = self._peppers[self.pepper_id if pepper_id is None else pepper_id]
        return hmac.digest(key, text.encode("ascii"), "sha256")

    @property
    def has_previous(self) -> bool:
        """Whether some tokens may still be stored under another pepper."""
        return len(self._peppers) > 1

    def candidates(self, text: str) -> list[bytes]:
        """Every MAC under which the token may be stored."""
        return [self.of(text, pepper_id) for pepper_id in self._peppers]


def _pepper_id(pepper: bytes) -> bytes:
    return hashlib.sha256(b"pokerarena pepper id" + pepper).digest()[:4]


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
    _check_ttl(ttl_s, ttl_max_s)
    await accounts.lock(session, user_id)
    await session.execute(
        delete(ApiToken).where(ApiToken.user_id == user_id, ApiToken.expires_at < func.now())
    )
    live = await session.scalar(
        select(func.count()).where(
            ApiToken.user_id == user_id,
            ApiToken.revoked_at.is_(None),
            ApiToken.expires_at > func.now(),
        )
    )
    if (live or 0) >= tokens_max:
        raise QuotaExceeded(
            "too_many_tokens", f"You have {live} tokens, the most allowed; revoke one first."
        )
    made = await _store(session, mac, user_id, name, wanted, ttl_s)
    audit.record(
        session, Event.TOKEN_CREATED, subject=_public(made.row.id), scopes=" ".join(sorted(wanted))
    )
    return made


def _check_ttl(ttl_s: int, ttl_max_s: int) -> None:
    if not 1 <= ttl_s <= ttl_max_s:
        raise Invalid(
            "expiry_out_of_range",
            f"A token lives from 1 to {ttl_max_s} seconds.",
            max_expires_in_s=ttl_max_s,
        )


async def rotate_personal(
    session: AsyncSession,
    mac: TokenMac,
    *,
    user_id: UUID,
    token_id: UUID,
    ttl_s: int,
    grace_s: int,
    settings: Settings,
) -> NewToken:
    """Replace a token by one with the same name and scopes; the old one works on for the grace."""
    _check_ttl(ttl_s, settings.token_max_ttl_s)
    if grace_s > settings.token_rotation_grace_max_s:
        raise Invalid(
            "grace_out_of_range",
            f"A replaced token works on for at most {settings.token_rotation_grace_max_s} seconds.",
            max_grace_s=settings.token_rotation_grace_max_s,
        )
    await accounts.lock(session, user_id)
    old = await session.get(ApiToken, token_id, with_for_update=True)
    now = await session.scalar(select(func.now()))
    if old is None or old.user_id != user_id or now is None:
        raise NotFound("token")
    if old.revoked_at is not None or old.expires_at <= now:
        raise Conflict("token_ended", "This token has ended; make a new one.")
    if old.rotated_at is not None:
        raise Conflict("token_rotated", "This token was replaced before; rotate its successor.")
    # What a role no longer allows is taken off when a token is used, not here.
    scopes = frozenset(Scope(text) for text in old.scopes if text in _SCOPE_TEXTS)
    made = await _store(session, mac, user_id, old.name, scopes, ttl_s)
    old.rotated_at = now
    if grace_s == 0:
        old.revoked_at = now
    else:
        old.expires_at = min(old.expires_at, now + timedelta(seconds=grace_s))
    await session.flush()
    audit.record(
        session, Event.TOKEN_ROTATED, subject=_public(old.id), successor=_public(made.row.id)
    )
    return made


async def _store(
    session: AsyncSession,
    mac: TokenMac,
    user_id: UUID,
    name: str,
    scopes: frozenset[Scope],
    ttl_s: int,
) -> NewToken:
    text = new_text()
    row = ApiToken(
        id=new_id(),
        user_id=user_id,
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


async def authenticate(
    session: AsyncSession, mac: TokenMac, text: str, *, operators_need_second_factor: bool
) -> Principal:
    """The principal that a token stands for; raises `Unauthenticated` for any other text."""
    if not is_well_formed(text):
        raise invalid()
    principal = await _principal(
        session, ApiToken.mac.in_(mac.candidates(text)), operators_need_second_factor
    )
    if mac.has_previous:
        await session.execute(
            update(ApiToken)
            .where(ApiToken.id == principal.token_id, ApiToken.pepper_id != mac.pepper_id)
            .values(mac=mac.of(text), pepper_id=mac.pepper_id)
        )
    return principal


async def again(
    session: AsyncSession, token_id: UUID, *, operators_need_second_factor: bool
) -> Principal:
    """The token's principal as of now, for what outlives a request."""
    return await _principal(session, ApiToken.id == token_id, operators_need_second_factor)


async def _principal(
    session: AsyncSession, which: ColumnElement[bool], operators_need_second_factor: bool
) -> Principal:
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
                SecondFactor.confirmed_at.is_not(None).label("has_second_factor"),
            )
            .join(User, User.id == ApiToken.user_id)
            .outerjoin(SecondFactor, SecondFactor.user_id == User.id)
            .where(which)
        )
    ).one_or_none()
    if found is None:
        raise invalid()
    token, user, expired, stale, has_second_factor = found
    if token.revoked_at is not None or user.disabled_at is not None:
        raise invalid()
    if expired:
        raise Unauthenticated(
            "token_expired", "This token has expired: log in again or make a new one."
        )
    if stale:
        await session.execute(
            update(ApiToken).where(ApiToken.id == token.id).values(last_used_at=func.now())
        )
    role = Role(user.role)
    lacks = operators_need_second_factor and role is Role.OPERATOR and not has_second_factor
    scopes = frozenset(Scope(text) for text in token.scopes if text in _SCOPE_TEXTS)
    return Principal(
        user_id=user.id,
        username=user.username,
        role=role,
        token_id=token.id,
        token_kind=TokenKind.PERSONAL,
        # A role that was taken away takes its scopes from older tokens with it.
        scopes=scopes & usable_scopes(role, lacks_second_factor=lacks),
        lacks_second_factor=lacks,
    )


def usable_scopes(role: Role, *, lacks_second_factor: bool) -> frozenset[Scope]:
    """What a role allows, without an operator's rights where a second factor is missing."""
    return MEMBER_SCOPES if lacks_second_factor else role_scopes(role)


def invalid() -> Unauthenticated:
    """The one answer to a token that is unknown, damaged, revoked, or its account's no more."""
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
        audit.record(session, Event.TOKEN_REVOKED, subject=_public(token.id))


def _public(token_id: UUID) -> str:
    return id_text(IdKind.TOKEN, token_id)
