"""Registering, logging in and out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.routes.users import UserShown
from pokerarena.api.shapes import PasswordText, RequestShape, Shown, UsernameText
from pokerarena.auth import accounts, tokens
from pokerarena.auth.models import Role
from pokerarena.auth.permissions import Permission, Principal

router = APIRouter(prefix="/auth", tags=["auth"], route_class=IdempotentRoute)


class Credentials(RequestShape):
    """A username and its password."""

    username: UsernameText
    password: PasswordText


class SessionShown(Shown):
    """A session token; its text is shown this once."""

    token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a scheme
    expires_at: datetime
    user: UserShown


@router.post("/register", status_code=201)
async def register(
    _: Annotated[Principal, needs(Permission.ACCOUNT_REGISTER)],
    body: Credentials,
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
async def login(
    _: Annotated[Principal, needs(Permission.ACCOUNT_LOGIN)], body: Credentials, parts: PartsOf
) -> SessionShown:
    """Exchange a password for a session token."""
    user = await accounts.authenticate(
        parts.database, parts.hasher, username=body.username, password=body.password
    )
    async with parts.database.unit_of_work() as session:
        made = await tokens.create_session(
            session, parts.token_mac, user=user, ttl_s=parts.settings.session_ttl_s
        )
    return SessionShown(token=made.text, expires_at=made.row.expires_at, user=UserShown.of(user))


@router.post("/logout", status_code=204)
async def logout(
    caller: Annotated[Principal, needs(Permission.ACCOUNT_LOGOUT)], session: Session
) -> Response:
    """Revoke the token that makes this request."""
    if caller.token_id is not None:
        await tokens.revoke(session, user_id=caller.known_id(), token_id=caller.token_id)
    return Response(status_code=204)
