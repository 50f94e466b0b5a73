"""Accounts: one's own, and all of them for operators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from pokerarena.api.access import needs
from pokerarena.api.addresses import client_address
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import Page, PasswordText, RequestShape, Shown, UserId, UsernameText
from pokerarena.auth import accounts, login, sessions
from pokerarena.auth.models import Role, User
from pokerarena.auth.passwords import check_new_password
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.auth.sessions import EndReason

me = APIRouter(prefix="/me", tags=["me"], route_class=IdempotentRoute)
router = APIRouter(prefix="/users", tags=["users"], route_class=IdempotentRoute)


class UserShown(Shown):
    """An account."""

    id: UserId
    username: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None

    @classmethod
    def of(cls, user: User) -> UserShown:
        return cls(
            id=user.id,
            username=user.username,
            role=Role(user.role),
            created_at=user.created_at,
            disabled_at=user.disabled_at,
        )


class MeShown(Shown):
    """The account that a token stands for, and what the token may be used for."""

    user: UserShown
    scopes: list[str]


class PasswordChange(RequestShape):
    """The present password, where there is one, and the one that replaces it."""

    current_password: PasswordText | None = None
    new_password: PasswordText


class NewUser(RequestShape):
    """An account that an operator creates."""

    username: UsernameText
    password: PasswordText
    role: Annotated[Role, Field(strict=False)] = Role.MEMBER


@me.get("")
async def read_me(
    caller: Annotated[Principal, needs(Permission.ACCOUNT_READ)], session: Session
) -> MeShown:
    """One's own account."""
    user = await accounts.get(session, caller.known_id())
    return MeShown(user=UserShown.of(user), scopes=sorted(caller.scopes))


@me.put("/password", status_code=204)
async def change_password(
    caller: Annotated[Principal, needs(Permission.PASSWORD_CHANGE)],
    body: PasswordChange,
    request: Request,
    parts: PartsOf,
    session: Session,
) -> Response:
    """Change one's password. Every other session of the account ends; personal tokens stay.

    An account without a password gets its first one soon after a login.
    """
    check_new_password(
        body.new_password,
        username=caller.username,
        min_length=parts.settings.password_min_length,
    )
    old_hash = await login.check_own_password(
        parts.door(),
        user_id=caller.known_id(),
        session_id=caller.session_id,
        password=body.current_password,
        address=client_address(request, parts.settings),
    )
    new_hash = await parts.hasher.hash(body.new_password)
    await accounts.change_password(
        session, user_id=caller.known_id(), old_hash=old_hash, new_hash=new_hash
    )
    await sessions.end_all(
        session, caller.known_id(), but=caller.session_id, reason=EndReason.PASSWORD_CHANGED
    )
    parts.callers.forget_once_committed(session)
    return Response(status_code=204)


@router.get("")
async def list_users(
    _: Annotated[Principal, needs(Permission.USERS_MANAGE)],
    page: Annotated[PageQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[UserShown]:
    """All accounts, newest first."""
    limit = page.bounded_limit(parts.settings)
    rows = await accounts.list_users(session, before=page.before_id("users"), limit=limit + 1)
    rows_shown, cursor = cut(rows, limit, "users", lambda user: user.id)
    return Page(items=[UserShown.of(user) for user in rows_shown], next_cursor=cursor)


@router.post("", status_code=201)
async def create_user(
    _: Annotated[Principal, needs(Permission.USERS_MANAGE)],
    body: NewUser,
    parts: PartsOf,
    session: Session,
) -> UserShown:
    """Create an account."""
    user = await accounts.create(
        session,
        parts.hasher,
        username=body.username,
        password=body.password,
        role=body.role,
        settings=parts.settings,
    )
    return UserShown.of(user)


@router.post("/{user_id}/disable")
async def disable_user(
    caller: Annotated[Principal, needs(Permission.USERS_MANAGE)],
    user_id: UserId,
    parts: PartsOf,
    session: Session,
) -> UserShown:
    """Close an account: no login, and none of its tokens works. Its agents and tables stay."""
    user = await accounts.disable(session, user_id, by=caller.known_id())
    parts.callers.forget_once_committed(session)
    return UserShown.of(user)
