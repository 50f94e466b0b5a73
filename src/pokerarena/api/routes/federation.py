"""Logging in through an identity provider: there, back, and to a session."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, StringConstraints

from pokerarena.api.access import needs
from pokerarena.api.addresses import client_address
from pokerarena.api.browser import (
    clear_login_cookie,
    login_cookie,
    require_own_page,
    set_login_cookie,
)
from pokerarena.api.context import PartsOf
from pokerarena.api.granting import Granted, device_of, grant
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.shapes import CodeText, RequestShape, ReturnToText, Shown
from pokerarena.auth.federation import flow
from pokerarena.auth.permissions import Permission, Principal

router = APIRouter(prefix="/auth", tags=["auth"], route_class=IdempotentRoute)

Caller = Annotated[Principal, needs(Permission.FEDERATED_LOGIN)]


class ProviderShown(Shown):
    """An identity provider that one can log in through."""

    id: str
    name: str


class ProvidersShown(Shown):
    """All of them, as the operator configured them."""

    items: list[ProviderShown]


class DepartureOrder(RequestShape):
    """Where the browser goes on once it is back: a path of the arena."""

    return_to: ReturnToText = "/"


class DepartureShown(Shown):
    """Where our page sends its browser now."""

    authorization_url: str


class ArrivalQuery(BaseModel):
    """With what a provider sends a browser back. Providers add words of their own."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: Annotated[str, StringConstraints(max_length=200)] | None = None
    code: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    error: Annotated[str, StringConstraints(max_length=200)] | None = None
    iss: Annotated[str, StringConstraints(max_length=400)] | None = None


class FinishOrder(RequestShape):
    """A code of the authenticator, or a recovery code; where the account has a second factor."""

    code: CodeText | None = None


@router.get("/providers")
async def list_providers(_: Caller, parts: PartsOf) -> ProvidersShown:
    """The identity providers that one can log in through."""
    return ProvidersShown(
        items=[
            ProviderShown(id=one.configured.id, name=one.configured.name)
            for one in parts.federation.providers
        ]
    )


@router.post("/providers/{provider_id}/login")
async def depart(
    _: Caller,
    provider_id: str,
    request: Request,
    response: Response,
    parts: PartsOf,
    body: Annotated[DepartureOrder | None, Body()] = None,
) -> DepartureShown:
    """Begin a login at a provider, from our own page in a browser."""
    provider = parts.federation.provider(provider_id)
    # Or a foreign page could begin one for its visitor.
    require_own_page(request, parts.settings)
    departure = await flow.begin(
        parts.door(),
        provider,
        return_to=(body or DepartureOrder()).return_to,
        linking=None,
    )
    set_login_cookie(response, parts.settings, departure.cookie)
    return DepartureShown(authorization_url=departure.authorization_url)


@router.get(
    "/providers/{provider_id}/callback",
    status_code=303,
    response_class=RedirectResponse,
    responses={303: {"description": "Back to where the login began", "content": {}}},
)
async def arrive(
    _: Caller,
    provider_id: str,
    query: Annotated[ArrivalQuery, Query()],
    request: Request,
    parts: PartsOf,
) -> Response:
    """Where a provider sends the browser back to. Goes on to `return_to`, which asks for the session."""
    settings = parts.settings
    return_to = await flow.receive(
        parts.door(),
        parts.federation.provider(provider_id),
        flow.Arrival(
            cookie=login_cookie(request, settings),
            state=query.state,
            code=query.code if query.error is None else None,
            iss=query.iss,
        ),
    )
    # With our own origin in front, a path can be nothing else.
    return RedirectResponse(settings.public_url + return_to, status_code=303)


@router.post("/federated")
async def finish(
    _: Caller,
    request: Request,
    response: Response,
    parts: PartsOf,
    body: Annotated[FinishOrder | None, Body()] = None,
) -> Granted:
    """Begin the session of whoever just came back from a provider to this browser."""
    require_own_page(request, parts.settings)
    begun = await flow.finish(
        parts.door(),
        cookie=login_cookie(request, parts.settings),
        code=body.code if body is not None else None,
        address=client_address(request, parts.settings),
        device=device_of(request),
    )
    clear_login_cookie(response, parts.settings)
    return await grant(parts, response, begun)
