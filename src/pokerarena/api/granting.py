"""What a login is answered with, whichever way it went: an access token, and a refresh token.

A browser gets its refresh token in its cookie and nowhere else. This module must never decide who
may log in.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

from fastapi import Request, Response

from pokerarena.api.browser import set_refresh_cookie
from pokerarena.api.context import Parts
from pokerarena.api.routes.users import UserShown
from pokerarena.api.shapes import SessionId, Shown
from pokerarena.auth import access_tokens
from pokerarena.auth.models import Client
from pokerarena.auth.sessions import Refreshed

DEVICE_MAX: Final = 120


class Granted(Shown):
    """An access token; for a program also the next refresh token, shown this once."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a scheme
    expires_at: datetime
    refresh_token: str | None
    session_id: SessionId
    user: UserShown


async def grant(parts: Parts, response: Response, got: Refreshed) -> Granted:
    """The answer to a login or a refresh."""
    now = datetime.now(UTC)
    settings = parts.settings
    access = access_tokens.issue(
        await parts.signing_keys.to_sign(now),
        issuer=settings.public_url,
        user_id=got.user.id,
        session_id=got.row.id,
        client=got.row.client,
        ttl_s=settings.access_token_ttl_s,
        now=now,
    )
    in_browser = got.row.client == Client.BROWSER.value
    if in_browser:
        lives_s = int((got.row.idle_expires_at - now).total_seconds())
        set_refresh_cookie(response, settings, got.refresh_text, lives_s=lives_s)
    return Granted(
        access_token=access.text,
        expires_at=access.expires_at,
        refresh_token=None if in_browser else got.refresh_text,
        session_id=got.row.id,
        user=UserShown.of(got.user),
    )


def device_of(request: Request) -> str:
    """What the client calls itself, for its user to recognise: visible ASCII, bounded."""
    agent = request.headers.get("user-agent", "")
    return "".join(character for character in agent if " " <= character <= "~")[:DEVICE_MAX]
