"""One identity provider: what it says of itself, where its login begins, what a code is worth.

Owns the OpenID Connect protocol towards the provider. Its description is read when it is needed and
kept for a while; only the provider's word under its configured issuer counts. This module must never
log a code, a token or the client secret, and knows neither accounts nor SQL.
"""

from __future__ import annotations

import hmac
import re
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from pokerarena.auth.federation.id_tokens import Claims, Disbelieved, Expected, Why, judge
from pokerarena.auth.federation.kept import Kept
from pokerarena.auth.federation.keys import KeySet, ProviderKeys
from pokerarena.auth.federation.outgoing import OK, Outgoing, Unreachable, decoded
from pokerarena.federation_settings import IdentityProvider
from pokerarena.settings import Settings

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
# What can stand in a header.
_BEARER: Final = re.compile(r"[!-~]{1,8192}")
_BASIC: Final = "client_secret_basic"
_POST: Final = "client_secret_post"


class Metadata(msgspec.Struct, frozen=True):
    """What we need of a provider's description (OpenID Connect Discovery)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: list[str] = msgspec.field(
        default_factory=lambda: [_BASIC]
    )
    # RFC 9207: whether it names itself when it sends somebody back.
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str


class UserInfo(msgspec.Struct, frozen=True):
    """What we need of the document about a user."""

    sub: str
    email: str | None = None
    email_verified: bool | str = False
    preferred_username: str | None = None


@dataclass(frozen=True, slots=True)
class Secrets:
    """What one login sends to the provider, and expects back."""

    state: str
    nonce: str
    code_verifier: str
    code_challenge: str


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, as a provider knows them."""

    issuer: str
    subject: str
    # Only an address that the provider says it has verified.
    verified_email: str | None = None
    wanted_name: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """A token that was believed, with what it takes to ask more."""

    claims: Claims
    access_token: str


class Provider:
    """One configured provider, for one process."""

    def __init__(
        self,
        configured: IdentityProvider,
        settings: Settings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configured = configured
        self.redirect_uri = f"{settings.public_url}/v1/auth/providers/{configured.id}/callback"
        self._leeway_s = settings.oidc_clock_leeway_s
        self._ttl_s = settings.oidc_metadata_ttl_s
        self._outgoing = Outgoing(settings, issuer=configured.issuer)
        self._metadata = Kept(self._fetch_metadata, monotonic)
        self._keys = ProviderKeys(
            self._fetch_keys,
            configured.algorithm,
            ttl_s=settings.oidc_metadata_ttl_s,
            refetch_s=settings.oidc_keys_refetch_s,
            monotonic=monotonic,
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._outgoing.close()

    async def authorization_url(self, secrets: Secrets) -> str:
        """Where the browser goes to log in. Raises `Unreachable`."""
        metadata = await self.metadata()
        scopes = "openid email profile" if self.configured.creates_accounts else "openid email"
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.configured.client_id,
                "redirect_uri": self.redirect_uri,
                "scope": scopes,
                "state": secrets.state,
                "nonce": secrets.nonce,
                "code_challenge": secrets.code_challenge,
                "code_challenge_method": "S256",
            }
        )
        endpoint = metadata.authorization_endpoint
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"

    async def check_response_issuer(self, iss: str | None) -> None:
        """Raise `Disbelieved` for an answer of another provider than the one that was asked."""
        if iss is None:
            if (await self.metadata()).authorization_response_iss_parameter_supported:
                raise Disbelieved(Why.RESPONSE_ISSUER)
        elif iss != self.configured.issuer:
            raise Disbelieved(Why.RESPONSE_ISSUER)

    async def redeem(self, code: str, secrets: Secrets, *, begun_at_s: float) -> Proof:
        """Exchange a code for the word of the provider. Raises `Disbelieved` or `Unreachable`."""
        metadata = await self.metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": secrets.code_verifier,
        }
        client_id = self.configured.client_id
        client_secret = self.configured.client_secret.get_secret_value()
        headers = {}
        methods = metadata.token_endpoint_auth_methods_supported
        if _BASIC in methods or _POST not in methods:
            # RFC 6749, 2.3.1: both are encoded as in a form before they are joined.
            pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode('ascii')}"
        else:
            form |= {"client_id": client_id, "client_secret": client_secret}
        raw = await self._outgoing.post(metadata.token_endpoint, form, headers)
        if 400 <= raw.status < 500:
            raise Disbelieved(Why.CODE_REFUSED)
        if raw.status != OK:
            raise Unreachable(f"HTTP {raw.status}")
        tokens = decoded(raw.body, _Tokens)
        if not _BEARER.fullmatch(tokens.access_token):
            raise Disbelieved(Why.FORM)
        expected = Expected(
            issuer=self.configured.issuer,
            client_id=client_id,
            nonce=secrets.nonce,
            algorithm=self.configured.algorithm,
            begun_at_s=begun_at_s,
            now_s=time.time(),
            leeway_s=self._leeway_s,
            access_token=tokens.access_token,
        )
        return Proof(await judge(tokens.id_token, self._keys.find, expected), tokens.access_token)

    async def describe(self, proof: Proof) -> Person:
        """Who somebody is, with their verified address; the token may leave that to UserInfo."""
        claims, metadata = proof.claims, await self.metadata()
        said: Claims | UserInfo = claims
        if claims.email is None and metadata.userinfo_endpoint is not None:
            info = await self._outgoing.read(
                metadata.userinfo_endpoint, UserInfo, bearer=proof.access_token
            )
            # OpenID Connect Core, 5.3.2: or it is about somebody else.
            if not hmac.compare_digest(info.sub.encode(), claims.sub.encode()):
                raise Disbelieved(Why.SUBJECT)
            said = info
        return Person(
            issuer=claims.iss,
            subject=claims.sub,
            verified_email=said.email if said.email_verified is True else None,
            wanted_name=said.preferred_username,
        )

    async def metadata(self) -> Metadata:
        """The provider's description of itself. Raises `Unreachable`."""
        return await self._metadata.no_older_than(self._ttl_s)

    async def _fetch_metadata(self) -> Metadata:
        address = self.configured.issuer.rstrip("/") + DISCOVERY_PATH
        found = await self._outgoing.read(address, Metadata)
        if found.issuer != self.configured.issuer:
            raise Unreachable("its description is that of another issuer")
        endpoints = [found.authorization_endpoint, found.token_endpoint, found.jwks_uri]
        if found.userinfo_endpoint is not None:
            endpoints.append(found.userinfo_endpoint)
        for endpoint in endpoints:
            self._outgoing.target(endpoint)
        return found

    async def _fetch_keys(self) -> KeySet:
        return await self._outgoing.read((await self.metadata()).jwks_uri, KeySet)
