"""Registering, logging in, refreshing and logging out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response
from pydantic import Field, StringConstraints

from pokerarena.api.access import needs
from pokerarena.api.addresses import client_address
from pokerarena.api.browser import (
    clear_refresh_cookie,
    refresh_cookie,
    require_own_page,
)
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.granting import Granted, device_of, grant
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.routes.users import UserShown
from pokerarena.api.shapes import (
    CodeText,
    PasswordText,
    RequestShape,
    UsernameText,
)
from pokerarena.auth import accounts, login, sessions, tokens
from pokerarena.auth.models import Client, Role
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.auth.sessions import EndReason
from pokerarena.errors import Unauthenticated

router = APIRouter(prefix="/auth", tags=["auth"], route_class=IdempotentRoute)


class Registration(RequestShape):
    """A username and its password."""

    username: UsernameText
    password: PasswordText


class Login(Registration):
    """A username, its password, and what the session is for."""

    client: Annotated[Client, Field(strict=False)] = Client.PROGRAM
    # Of the authenticator, or a recovery code; where the account has a second factor.
    code: CodeText | None = None


class RefreshOrder(RequestShape):
    """A program's refresh token. A browser has it in its cookie and leaves it out."""

    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None


@router.post("/register", status_code=201)
async def register(
    _: Annotated[Principal, needs(Permission.ACCOUNT_REGISTER)],
    body: Registration,
    parts: PartsOf,
    session: Session,
) -> UserShown:
    """Create an account of one's own, where registration is open."""
    accounts.check_registration_open(parts.settings)
    user = await accounts.create(
        session,
        parts.hasher,
        username=body.username,
        password=body.password,
        role=Role.MEMBER,
        settings=parts.settings,
    )
    return UserShown.of(user)


@router.post("/login")
async def log_in(
    _: Annotated[Principal, needs(Permission.ACCOUNT_LOGIN)],
    body: Login,
    request: Request,
    response: Response,
    parts: PartsOf,
) -> Granted:
    """Begin a session with a password, and a code where the account has a second factor."""
    if body.client is Client.BROWSER:
        # Or a foreign page could log its visitor in under an account of its own.
        require_own_page(request, parts.settings)
    begun = await login.log_in(
        parts.door(),
        login.Credentials(
            body.username, body.password, body.code, client_address(request, parts.settings)
        ),
        client=body.client,
        device=device_of(request),
    )
    return await grant(parts, response, begun)


@router.post("/refresh")
async def refresh(
    _: Annotated[Principal, needs(Permission.ACCOUNT_LOGIN)],
    request: Request,
    response: Response,
    parts: PartsOf,
    body: Annotated[RefreshOrder | None, Body()] = None,
) -> Granted:
    """Exchange a refresh token for the next one and a new access token."""
    text, client = body.refresh_token if body is not None else None, Client.PROGRAM
    if text is None:
        text, client = refresh_cookie(request, parts.settings), Client.BROWSER
    if text is None:
        raise Unauthenticated("refresh_missing", "Send a refresh_token, or log in.")
    try:
        refreshed = await sessions.refresh(
            parts.database, parts.token_mac, text=text, client=client, settings=parts.settings
        )
    except Unauthenticated:
        # Perhaps a whole family has just ended.
        parts.callers.forget()
        raise
    return await grant(parts, response, refreshed)


@router.post("/logout", status_code=204)
async def log_out(
    caller: Annotated[Principal, needs(Permission.ACCOUNT_LOGOUT)],
    parts: PartsOf,
    session: Session,
) -> Response:
    """End the session, or revoke the personal token, that makes this request."""
    response = Response(status_code=204)
    if caller.session_id is not None:
        await sessions.end(
            session,
            user_id=caller.known_id(),
            session_id=caller.session_id,
            reason=EndReason.LOGOUT,
        )
        parts.callers.forget_once_committed(session)
        clear_refresh_cookie(response, parts.settings)
    elif caller.token_id is not None:
        await tokens.revoke(session, user_id=caller.known_id(), token_id=caller.token_id)
    return response
