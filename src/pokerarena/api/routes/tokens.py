"""Personal tokens: made, listed, rotated, revoked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import Page, RequestShape, Shown, TokenId, TokenName
from pokerarena.auth import tokens
from pokerarena.auth.models import ApiToken
from pokerarena.auth.permissions import Permission, Principal, Scope

router = APIRouter(prefix="/tokens", tags=["tokens"], route_class=IdempotentRoute)

EXPIRES_IN_MAX_S = 10 * 366 * 86_400


class NewToken(RequestShape):
    """A personal token: what for, and for how long."""

    name: TokenName
    scopes: Annotated[
        list[Annotated[Scope, Field(strict=False)]], Field(min_length=1, max_length=len(Scope))
    ]
    expires_in_s: Annotated[int, Field(ge=1, le=EXPIRES_IN_MAX_S)]


class Rotation(RequestShape):
    """How long the new token lives, and how long the old one works on."""

    expires_in_s: Annotated[int, Field(ge=1, le=EXPIRES_IN_MAX_S)]
    grace_s: Annotated[int, Field(ge=0, le=EXPIRES_IN_MAX_S)] = 0


class TokenShown(Shown):
    """A token without its text, which is stored nowhere."""

    id: TokenId
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    rotated_at: datetime | None

    @classmethod
    def of(cls, token: ApiToken) -> TokenShown:
        return cls(**_fields(token))


class CreatedToken(TokenShown):
    """A token with its text, shown this once."""

    token: str


def _fields(token: ApiToken) -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "rotated_at": token.rotated_at,
    }


@router.get("")
async def list_tokens(
    caller: Annotated[Principal, needs(Permission.TOKENS_MANAGE)],
    page: Annotated[PageQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[TokenShown]:
    """One's tokens that still work, newest first."""
    limit = page.bounded_limit(parts.settings)
    rows = await tokens.list_live(
        session, caller.known_id(), before=page.before_id("tokens"), limit=limit + 1
    )
    rows_shown, cursor = cut(rows, limit, "tokens", lambda token: token.id)
    return Page(items=[TokenShown.of(token) for token in rows_shown], next_cursor=cursor)


@router.post("", status_code=201)
async def create_token(
    caller: Annotated[Principal, needs(Permission.TOKENS_MANAGE)],
    body: NewToken,
    parts: PartsOf,
    session: Session,
) -> CreatedToken:
    """Make a personal token for a program."""
    made = await tokens.create_personal(
        session,
        parts.token_mac,
        principal=caller,
        name=body.name,
        scopes=body.scopes,
        ttl_s=body.expires_in_s,
        ttl_max_s=parts.settings.token_max_ttl_s,
        tokens_max=parts.settings.tokens_per_user_max,
    )
    return CreatedToken(token=made.text, **_fields(made.row))


@router.post("/{token_id}/rotate", status_code=201)
async def rotate_token(
    caller: Annotated[Principal, needs(Permission.TOKENS_MANAGE)],
    token_id: TokenId,
    body: Rotation,
    parts: PartsOf,
    session: Session,
) -> CreatedToken:
    """Replace a token by one of the same name and scopes; the old one works on for `grace_s`."""
    made = await tokens.rotate_personal(
        session,
        parts.token_mac,
        user_id=caller.known_id(),
        token_id=token_id,
        ttl_s=body.expires_in_s,
        grace_s=body.grace_s,
        settings=parts.settings,
    )
    return CreatedToken(token=made.text, **_fields(made.row))


@router.delete("/{token_id}", status_code=204)
async def revoke_token(
    caller: Annotated[Principal, needs(Permission.TOKENS_MANAGE)],
    token_id: TokenId,
    session: Session,
) -> Response:
    """Revoke a token; from the next request on it stands for nobody."""
    await tokens.revoke(session, user_id=caller.known_id(), token_id=token_id)
    return Response(status_code=204)
