"""One's own identities at providers: which there are, how one is linked, and how it is unlinked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response

from pokerarena.api.access import needs
from pokerarena.api.addresses import client_address
from pokerarena.api.browser import set_login_cookie
from pokerarena.api.context import Parts, PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.routes.federation import DepartureOrder, DepartureShown
from pokerarena.api.shapes import IdentityId, PasswordText, ProviderIdText, Shown
from pokerarena.auth import login
from pokerarena.auth.federation import flow, identities
from pokerarena.auth.federation.pending import Linking
from pokerarena.auth.models import Identity
from pokerarena.auth.permissions import Permission, Principal

router = APIRouter(prefix="/me/identities", tags=["me"], route_class=IdempotentRoute)

Caller = Annotated[Principal, needs(Permission.IDENTITIES_MANAGE)]


class IdentityShown(Shown):
    """A person at a provider who can log in to the account."""

    id: IdentityId
    # None where the provider is configured no more: it cannot log in now.
    provider_id: str | None
    issuer: str
    email: str
    created_at: datetime
    last_login_at: datetime | None

    @classmethod
    def of(cls, row: Identity, parts: Parts) -> IdentityShown:
        configured = (one.configured for one in parts.federation.providers)
        return cls(
            id=row.id,
            provider_id=next((one.id for one in configured if one.issuer == row.issuer), None),
            issuer=row.issuer,
            email=row.email,
            created_at=row.created_at,
            last_login_at=row.last_login_at,
        )


class IdentitiesShown(Shown):
    """All identities of the account: a handful at most."""

    items: list[IdentityShown]


class LinkOrder(DepartureOrder):
    """Which provider; and one's password, since a session alone opens no second way in.

    An account without a password shows instead that its login was just now.
    """

    provider_id: ProviderIdText
    current_password: PasswordText | None = None


@router.get("")
async def list_identities(caller: Caller, parts: PartsOf, session: Session) -> IdentitiesShown:
    """One's identities, oldest first."""
    rows = await identities.list_of(session, caller.known_id())
    return IdentitiesShown(items=[IdentityShown.of(row, parts) for row in rows])


@router.post("")
async def begin_to_link(
    caller: Caller, body: LinkOrder, request: Request, response: Response, parts: PartsOf
) -> DepartureShown:
    """Begin to link an identity: the browser goes to the provider, which sends it back."""
    provider = parts.federation.provider(body.provider_id)
    assert caller.session_id is not None, "the permission demands a login"
    await login.check_own_password(
        parts.door(),
        user_id=caller.known_id(),
        session_id=caller.session_id,
        password=body.current_password,
        address=client_address(request, parts.settings),
    )
    departure = await flow.begin(
        parts.door(),
        provider,
        return_to=body.return_to,
        linking=Linking(caller.known_id(), caller.session_id),
    )
    set_login_cookie(response, parts.settings, departure.cookie)
    return DepartureShown(authorization_url=departure.authorization_url)


@router.delete("/{identity_id}", status_code=204)
async def unlink(
    caller: Caller, identity_id: IdentityId, parts: PartsOf, session: Session
) -> Response:
    """Unlink an identity: it logs in no more, and every other session of the account ends."""
    await identities.unlink(
        session,
        user_id=caller.known_id(),
        identity_id=identity_id,
        issuers=parts.federation.issuers,
        keep_session=caller.session_id,
    )
    parts.callers.forget_once_committed(session)
    return Response(status_code=204)
