"""Requests of ours to identity providers.

Owns their bounds: one deadline for all of it, a size, no redirects, no proxies of the environment,
no compression, and only to addresses that were checked and pinned (`agents.dial`). What a provider
names as its endpoints is its word, so it is checked like any address from outside. This module must
never log a request or an answer: both hold codes and tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlencode

import msgspec
from pyreqwest import exceptions as transport
from pyreqwest.http import Url
from pyreqwest.request import RequestBuilder

from pokerarena.agents.dial import Dialer, DialLimits
from pokerarena.egress.policy import EgressDenied, EgressPolicy, Target
from pokerarena.egress.resolve import ResolveFailed
from pokerarena.settings import Settings

OK: Final = 200
FORM: Final = "application/x-www-form-urlencoded"

Answer = TypeVar("Answer")


class Unreachable(Exception):
    """A provider did not give a usable answer; the message says why, in our own words."""


class Raw(NamedTuple):
    """What came back."""

    status: int
    body: bytes


class Outgoing:
    """Asks one provider; shares nothing with others but the bounds."""

    def __init__(self, settings: Settings, *, issuer: str) -> None:
        scheme = issuer.partition("://")[0]
        self._timeout_s = settings.oidc_timeout_s
        self._answer_max_bytes = settings.oidc_answer_max_bytes
        # A provider that speaks TLS has no endpoint without.
        self._policy = EgressPolicy(
            allow_private=settings.oidc_allow_private, schemes=frozenset({scheme})
        )
        timeout_ms = round(settings.oidc_timeout_s * 1000)
        self._dialer = Dialer(
            self._policy,
            DialLimits(connect_timeout_ms=timeout_ms, resolve_timeout_ms=timeout_ms),
        )

    def target(self, url: str) -> Target:
        """An endpoint taken apart. Raises `Unreachable` for one that is not allowed."""
        try:
            return self._policy.target(url)
        except EgressDenied as denied:
            raise Unreachable(f"an endpoint is refused: {denied}") from None

    async def read(self, url: str, shape: type[Answer], *, bearer: str | None = None) -> Answer:
        """The JSON document at an address."""
        raw = await self._ask(url, None, {"authorization": f"Bearer {bearer}"} if bearer else {})
        if raw.status != OK:
            raise Unreachable(f"HTTP {raw.status}")
        return decoded(raw.body, shape)

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Raw:
        """What a form is answered with, whatever its status."""
        return await self._ask(url, urlencode(form).encode("ascii"), headers)

    async def close(self) -> None:
        """Close what is open."""
        await self._dialer.close()

    async def _ask(self, url: str, body: bytes | None, headers: Mapping[str, str]) -> Raw:
        target = self.target(url)
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._dialer.client(target)
                address = Url(target.url)
                request = client.get(address) if body is None else client.post(address)
                request = request.timeout(timedelta(seconds=self._timeout_s))
                for name, value in {"accept": "application/json", **headers}.items():
                    request = request.header(name, value)
                if body is not None:
                    request = request.header("content-type", FORM).body_bytes(body)
                return await self._answer(request)
        except EgressDenied as denied:
            raise Unreachable(f"the address is refused: {denied}") from None
        except ResolveFailed:
            raise Unreachable("the name has no address") from None
        except TimeoutError:
            raise Unreachable("no answer in time") from None
        except transport.PyreqwestError as error:
            self._dialer.connection_failed(target)
            raise Unreachable(type(error).__name__) from None

    async def _answer(self, request: RequestBuilder) -> Raw:
        async with request.build_streamed() as response:
            encoding = response.get_header("content-encoding") or "identity"
            if encoding.lower() != "identity":
                raise Unreachable("the answer is compressed")
            data = await response.body_reader.read(self._answer_max_bytes + 1)
            body = b"" if data is None else data.to_bytes()
            if len(body) > self._answer_max_bytes:
                raise Unreachable(f"the answer is larger than {self._answer_max_bytes} bytes")
            return Raw(response.status, body)


def decoded(body: bytes, shape: type[Answer]) -> Answer:
    """A document of a provider, as far as it is what we need. Raises `Unreachable`."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreachable("the answer is not the document that was asked for") from None
