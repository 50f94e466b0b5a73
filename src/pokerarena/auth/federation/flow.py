"""The way of one login through a provider, in three steps.

`begin` sends the browser to the provider; `receive` is where it comes back, with a code that is
exchanged for the provider's word on who it is; `finish` gives the session to our own page, once the
second factor was shown where the account has one. Linking an identity to one's account takes the
first two. No connection to the database is held while a provider is asked.

Every answer that is not believed gets the same refusal: what was wrong with it is for our log.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import login, sessions, throttle
from pokerarena.auth.federation import identities, pending
from pokerarena.auth.federation.id_tokens import Disbelieved, Why
from pokerarena.auth.federation.outgoing import Unreachable
from pokerarena.auth.federation.pending import Begun, Linking
from pokerarena.auth.federation.provider import Person, Proof, Provider
from pokerarena.auth.login import Door
from pokerarena.auth.models import Client, Identity, LoginSession, User
from pokerarena.auth.sessions import Refreshed
from pokerarena.errors import Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from pokerarena.ids import IdKind, id_text
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger

RETURN_TO_MAX: Final = 512
# A path of our own origin. Neither `//host` nor a backslash, which browsers read like it.
_RETURN_TO: Final = re.compile(
    r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@%?#][A-Za-z0-9\-._~!$&'()*+,;=:@%/?#]*)?"
)

log = get_logger("auth.federation")


class Federation:
    """The providers of one process, by their ids."""

    def __init__(self, settings: Settings) -> None:
        self._providers = {one.id: Provider(one, settings) for one in settings.identity_providers()}

    def provider(self, provider_id: str) -> Provider:
        """The provider of this id, or `NotFound`."""
        found = self._providers.get(provider_id)
        if found is None:
            raise NotFound("identity provider")
        return found

    @property
    def providers(self) -> tuple[Provider, ...]:
        """All of them, as they are configured."""
        return tuple(self._providers.values())

    @property
    def issuers(self) -> frozenset[str]:
        """The issuers whose identities can log in now."""
        return frozenset(one.configured.issuer for one in self.providers)

    async def close(self) -> None:
        """Close what is open."""
        for one in self.providers:
            await one.close()


@dataclass(frozen=True, slots=True)
class Departure:
    """Where the browser goes, and the secret that it takes along in a cookie."""

    authorization_url: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """With what a browser comes back; all of it may be anybody's invention."""

    cookie: str | None
    state: str | None
    # None where the provider sent an error instead.
    code: str | None
    iss: str | None


def check_return_to(return_to: str) -> None:
    """Raise `Invalid` unless it is a path of ours."""
    if len(return_to) > RETURN_TO_MAX or not _RETURN_TO.fullmatch(return_to):
        raise Invalid(
            "return_to_refused",
            f"return_to is a path of the arena, of at most {RETURN_TO_MAX} characters: '/tables'.",
        )


async def begin(
    door: Door, provider: Provider, *, return_to: str, linking: Linking | None
) -> Departure:
    """Send a browser to a provider."""
    check_return_to(return_to)
    try:
        # Asked first: a provider that is away leaves nothing behind.
        await provider.metadata()
    except Unreachable as error:
        raise _unavailable(provider, error) from None
    async with door.database.unit_of_work() as session:
        cookie = await pending.begin(
            session,
            door.token_mac,
            door.settings,
            provider_id=provider.configured.id,
            return_to=return_to,
            linking=linking,
        )
    try:
        return Departure(await provider.authorization_url(pending.secrets_of(cookie)), cookie)
    except Unreachable as error:
        raise _unavailable(provider, error) from None


async def receive(door: Door, provider: Provider, arrival: Arrival) -> str:
    """Take a browser back from a provider; gives the path on which it goes on.

    The login is used up before the provider is asked, in a transaction of its own: whatever comes
    of it, it does not come back a second time.
    """
    try:
        begun, cookie = await _take(door, provider, arrival)
        await provider.check_response_issuer(arrival.iss)
        if arrival.code is None:
            raise Unauthenticated(
                "federated_login_declined", "The provider did not log you in: try again."
            )
        secrets = pending.secrets_of(cookie)
        proof = await provider.redeem(
            arrival.code, secrets, begun_at_s=begun.created_at.timestamp()
        )
        await _settle(door, provider, begun, proof)
    except Disbelieved as refused:
        log.warning(
            "federated_login_refused", provider_id=provider.configured.id, why=refused.why.value
        )
        raise failed() from None
    except Unreachable as error:
        raise _unavailable(provider, error) from None
    return begun.return_to


async def finish(
    door: Door, *, cookie: str | None, code: str | None, address: str, device: str
) -> Refreshed:
    """Begin the session of whoever came back to this browser.

    A code of the second factor that is wrong leaves the login as it was, to be tried again within
    the bounds of guessing.
    """
    if cookie is None or not pending.is_cookie(cookie):
        raise failed()
    async with door.database.unit_of_work() as session:
        identity_id = await pending.proven(session, door.token_mac, cookie=cookie)
        user = await identities.open_user(session, identity_id) if identity_id else None
    if user is None:
        raise failed()
    attempt = await login.count_code(door, user.id, address=address) if code is not None else None
    try:
        async with door.database.unit_of_work() as session:
            return await _finish(door, session, cookie, code, attempt, device=device)
    except Unauthenticated as refused:
        if refused.code == login.WRONG_CODE:
            await login.note_wrong_code(door, user.id, address=address)
        raise


async def _finish(
    door: Door,
    session: AsyncSession,
    cookie: str,
    code: str | None,
    attempt: throttle.Attempt | None,
    *,
    device: str,
) -> Refreshed:
    identity_id = await pending.redeem(session, door.token_mac, cookie=cookie)
    user = await identities.open_user(session, identity_id) if identity_id else None
    if identity_id is None or user is None:
        raise failed()
    shown = await login.show_second_factor(door, session, user.id, code=code)
    if attempt is not None:
        await throttle.succeeded(session, attempt)
    await identities.note_login(session, identity_id)
    return await sessions.begin(
        session,
        door.token_mac,
        user=user,
        client=Client.BROWSER,
        device=device,
        second_factor=shown,
        settings=door.settings,
        through=id_text(IdKind.IDENTITY, identity_id),
    )


def failed() -> Unauthenticated:
    """The one answer to everything that is not believed."""
    return Unauthenticated(
        "federated_login_failed", "This login did not come to an end: begin it again."
    )


async def _take(door: Door, provider: Provider, arrival: Arrival) -> tuple[Begun, str]:
    cookie = arrival.cookie
    if cookie is None or arrival.state is None or not pending.is_cookie(cookie):
        raise Disbelieved(Why.STATE)
    expected = pending.secrets_of(cookie).state
    if not hmac.compare_digest(arrival.state.encode("utf-8", "replace"), expected.encode()):
        raise Disbelieved(Why.STATE)
    async with door.database.unit_of_work() as session:
        begun = await pending.take(
            session, door.token_mac, cookie=cookie, provider_id=provider.configured.id
        )
    if begun is None:
        raise Disbelieved(Why.SPENT)
    return begun, cookie


async def _settle(door: Door, provider: Provider, begun: Begun, proof: Proof) -> None:
    """Find, link or make the account of whoever came back."""
    claims = proof.claims
    known = None
    if begun.linking is None:
        async with door.database.unit_of_work() as session:
            known = await identities.find(session, issuer=claims.iss, subject=claims.sub)
        if known is None and not provider.configured.creates_accounts:
            raise _not_linked()
    # Only whom we do not know yet has to have a verified address, which may take a question more.
    person = await provider.describe(proof) if known is None else None
    async with door.database.unit_of_work() as session:
        if begun.linking is not None and person is not None:
            await _link(session, provider, begun, begun.linking, person)
            return
        identity_id = await _identity_of(session, provider, known, person)
        await pending.prove(session, door.settings, begun=begun, identity_id=identity_id)


async def _identity_of(
    session: AsyncSession,
    provider: Provider,
    known: tuple[Identity, User] | None,
    person: Person | None,
) -> UUID:
    if known is not None:
        identity, user = known
        if user.disabled_at is not None:
            raise _not_linked()
        return identity.id
    assert person is not None, "whoever is unknown was asked about"
    made = await identities.create_account(session, person, provider_id=provider.configured.id)
    return made.id


async def _link(
    session: AsyncSession, provider: Provider, begun: Begun, linking: Linking, person: Person
) -> None:
    alive = await session.scalar(
        select(LoginSession.id)
        .join(User, User.id == LoginSession.user_id)
        .where(
            LoginSession.id == linking.session_id,
            LoginSession.user_id == linking.user_id,
            LoginSession.ended_at.is_(None),
            LoginSession.expires_at > func.now(),
            User.disabled_at.is_(None),
        )
    )
    if alive is None:
        # Ended meanwhile, perhaps because it was a thief's.
        raise Disbelieved(Why.SPENT)
    await identities.link(
        session,
        person,
        user_id=linking.user_id,
        session_id=linking.session_id,
        provider_id=provider.configured.id,
    )
    await pending.drop(session, begun=begun)


def _not_linked() -> Forbidden:
    """Said of an unknown person and of a closed account alike."""
    return Forbidden(
        "identity_not_linked",
        "No account here belongs to this identity. If you have one, log in to it and link the "
        "identity there; or ask an operator for an account.",
    )


def _unavailable(provider: Provider, error: Unreachable) -> Unavailable:
    log.warning("identity_provider_unreachable", provider_id=provider.configured.id, why=str(error))
    return Unavailable(
        "identity_provider_unavailable",
        f"{provider.configured.name} does not answer as it should; try again shortly.",
    )
