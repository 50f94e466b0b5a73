"""Logins that are under way at a provider: bound to one browser, used once, soon over, bounded in number.

The browser holds one random secret in a cookie. State, nonce and code verifier follow from it, so
nothing that could complete a login is stored: a row is found by a MAC of the cookie, and says what
the login is for and how far it is. This module must never log or store the cookie's text.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth.federation.provider import Secrets
from pokerarena.auth.models import FederatedLogin
from pokerarena.auth.tokens import TokenMac, is_well_formed, new_text
from pokerarena.settings import Settings

PREFIX: Final = "pkf_"
RANDOM_CHARACTERS: Final = 43
OLD_AT_ONCE: Final = 100


class Linking(NamedTuple):
    """Whose identity this will be: the user, and the session that asked for it."""

    user_id: UUID
    session_id: UUID


class Begun(NamedTuple):
    """A login that came back from its provider; nobody else can bring it back again."""

    mac: bytes
    return_to: str
    linking: Linking | None
    created_at: datetime


def is_cookie(text: str) -> bool:
    """Whether a text can be the secret of a browser's login."""
    return is_well_formed(text, PREFIX, random=RANDOM_CHARACTERS)


def secrets_of(cookie: str) -> Secrets:
    """What the provider gets of a login: each tells nothing of the others, nor of the cookie."""
    verifier = _derived(cookie, "code verifier")
    challenge = hashlib.sha256(verifier.encode("ascii")).digest()
    return Secrets(
        state=_derived(cookie, "state"),
        nonce=_derived(cookie, "nonce"),
        code_verifier=verifier,
        code_challenge=_text(challenge),
    )


async def begin(
    session: AsyncSession,
    mac: TokenMac,
    settings: Settings,
    *,
    provider_id: str,
    return_to: str,
    linking: Linking | None,
) -> str:
    """Note that a browser goes to a provider; gives the secret for its cookie."""
    await _make_room(session, settings.oidc_logins_pending_max)
    cookie = new_text(PREFIX, random=RANDOM_CHARACTERS)
    session.add(
        FederatedLogin(
            mac=mac.of(cookie),
            provider_id=provider_id,
            return_to=return_to,
            user_id=linking.user_id if linking is not None else None,
            session_id=linking.session_id if linking is not None else None,
            expires_at=func.now() + timedelta(seconds=settings.oidc_login_ttl_s),
        )
    )
    await session.flush()
    return cookie


async def take(
    session: AsyncSession, mac: TokenMac, *, cookie: str, provider_id: str
) -> Begun | None:
    """Use a login up, as its browser comes back; None where it is none, over, or was used."""
    found = (
        await session.execute(
            update(FederatedLogin)
            .where(
                _found_by(mac, cookie),
                FederatedLogin.provider_id == provider_id,
                FederatedLogin.spent_at.is_(None),
                FederatedLogin.expires_at > func.now(),
            )
            .values(spent_at=func.now())
            .returning(
                FederatedLogin.mac,
                FederatedLogin.return_to,
                FederatedLogin.user_id,
                FederatedLogin.session_id,
                FederatedLogin.created_at,
            )
        )
    ).one_or_none()
    if found is None:
        return None
    stored_mac, return_to, user_id, session_id, created_at = found
    linking = None
    if user_id is not None and session_id is not None:
        linking = Linking(user_id, session_id)
    return Begun(stored_mac, return_to, linking, created_at)


async def prove(
    session: AsyncSession, settings: Settings, *, begun: Begun, identity_id: UUID
) -> None:
    """Remember who came back; the browser's page may now ask for the session."""
    await session.execute(
        update(FederatedLogin)
        .where(FederatedLogin.mac == begun.mac)
        .values(
            identity_id=identity_id,
            expires_at=func.now() + timedelta(seconds=settings.oidc_login_ttl_s),
        )
    )


async def drop(session: AsyncSession, *, begun: Begun) -> None:
    """Forget a login that has led to all that it was for."""
    await session.execute(delete(FederatedLogin).where(FederatedLogin.mac == begun.mac))


async def proven(session: AsyncSession, mac: TokenMac, *, cookie: str) -> UUID | None:
    """The identity that a browser has proven; None for no such login."""
    found: UUID | None = await session.scalar(
        select(FederatedLogin.identity_id).where(
            _found_by(mac, cookie), FederatedLogin.expires_at > func.now()
        )
    )
    return found


async def redeem(session: AsyncSession, mac: TokenMac, *, cookie: str) -> UUID | None:
    """The identity that a browser has proven, used up by this transaction; None for no such login.

    Two at once have one winner: the other waits for the row, and finds that it is gone.
    """
    found: UUID | None = await session.scalar(
        delete(FederatedLogin)
        .where(
            _found_by(mac, cookie),
            FederatedLogin.identity_id.is_not(None),
            FederatedLogin.expires_at > func.now(),
        )
        .returning(FederatedLogin.identity_id)
    )
    return found


async def _make_room(session: AsyncSession, pending_max: int) -> None:
    """Those that are over go, a bounded number at a time; then the oldest beyond the bound."""
    over = (
        select(FederatedLogin.mac)
        .where(FederatedLogin.expires_at <= func.now())
        .limit(OLD_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await session.execute(delete(FederatedLogin).where(FederatedLogin.mac.in_(over)))
    surplus = (
        select(FederatedLogin.mac)
        .order_by(FederatedLogin.expires_at.desc())
        .offset(pending_max - 1)
        .limit(OLD_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await session.execute(delete(FederatedLogin).where(FederatedLogin.mac.in_(surplus)))


def _found_by(mac: TokenMac, cookie: str) -> ColumnElement[bool]:
    return FederatedLogin.mac.in_(mac.candidates(cookie))


def _derived(cookie: str, purpose: str) -> str:
    return _text(hmac.digest(cookie.encode("ascii"), purpose.encode("ascii"), "sha256"))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
