"""What only browsers need: their two cookies, and proof that our own page asks.

Both are HttpOnly (no script reads them), Secure, and bound to this host by their names' prefix, so
that no neighbouring site can plant one. That of the refresh token is SameSite=Strict, and a request
that relies on it must carry a header that no foreign page can send without asking us first, and must
not say that it comes from elsewhere. That of a login under way at a provider is Lax, since it comes
back from there. This module must never read the refresh token's cookie without that proof.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Response

from pokerarena.errors import Forbidden
from pokerarena.settings import Settings

COOKIE: Final = "pokerarena_refresh"
LOGIN_COOKIE: Final = "pokerarena_login"
PROOF_HEADER: Final = "x-pokerarena-client"
PROOF_VALUE: Final = "browser"


def cookie_name(settings: Settings, name: str = COOKIE) -> str:
    """A cookie's name: with the prefix that makes browsers bind it to this host alone."""
    return f"__Host-{name}" if settings.cookie_secure else name


def refresh_cookie(request: Request, settings: Settings) -> str | None:
    """The refresh token of our own page's browser; ``None`` where there is none."""
    text = request.cookies.get(cookie_name(settings))
    if text is not None:
        require_own_page(request, settings)
    return text


def set_refresh_cookie(response: Response, settings: Settings, text: str, *, lives_s: int) -> None:
    """Give a browser its refresh token."""
    _set(response, settings, COOKIE, text, lives_s)


def clear_refresh_cookie(response: Response, settings: Settings) -> None:
    """Make a browser forget its refresh token."""
    _set(response, settings, COOKIE, "", 0)


def login_cookie(request: Request, settings: Settings) -> str | None:
    """The secret of this browser's login at a provider; ``None`` where there is none."""
    return request.cookies.get(cookie_name(settings, LOGIN_COOKIE))


def set_login_cookie(response: Response, settings: Settings, text: str) -> None:
    """Give a browser the secret of the login that it begins at a provider."""
    _set(response, settings, LOGIN_COOKIE, text, 2 * settings.oidc_login_ttl_s)


def clear_login_cookie(response: Response, settings: Settings) -> None:
    """Make a browser forget the secret of a login that is over."""
    _set(response, settings, LOGIN_COOKIE, "", 0)


def _set(response: Response, settings: Settings, name: str, text: str, lives_s: int) -> None:
    """Set a cookie; a life of 0 seconds takes it away."""
    response.set_cookie(
        cookie_name(settings, name),
        text,
        max_age=lives_s,
        expires=0 if lives_s == 0 else None,
        path="/",
        secure=settings.cookie_secure,
        httponly=True,
        # A login must find its cookie when the provider sends the browser back to us.
        samesite="strict" if name == COOKIE else "lax",
    )


def require_own_page(request: Request, settings: Settings) -> None:
    """Raise `Forbidden` unless the request comes from a page of our own origin."""
    proof = request.headers.get(PROOF_HEADER) == PROOF_VALUE
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    if (
        not proof
        or site != "same-origin"
        or (origin is not None and not _own(origin, request, settings))
    ):
        raise Forbidden(
            "foreign_page", "A request with this cookie must come from the arena's own page."
        )


def _own(origin: str, request: Request, settings: Settings) -> bool:
    if origin == settings.public_url:
        return True
    # Behind a proxy the scheme may be another, but a browser's Host is the page's own.
    host = request.headers.get("host", "")
    return host != "" and urlsplit(origin).netloc.lower() == host.lower()
