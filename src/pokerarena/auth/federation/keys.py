"""The keys with which a provider signs, kept for a while.

A key that we do not know is a reason to ask again, because providers rotate; how often is bounded,
because anybody can write a `kid`. Only keys that fit the one pinned algorithm count. This module
must never take a key from a token.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from pokerarena.auth.federation.kept import Kept
from pokerarena.federation_settings import IdTokenAlgorithm

KEYS_MAX: Final = 32
RSA_BITS_MIN: Final = 2048

PublicKey = RSAKey | ECKey


class KeySet(msgspec.Struct):
    """A provider's document of keys; each is judged on its own."""

    keys: list[dict[str, Any]]


class ProviderKeys:
    """The keys of one provider, as one process knows them."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[KeySet]],
        algorithm: IdTokenAlgorithm,
        *,
        ttl_s: float,
        refetch_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        async def usable() -> list[tuple[str | None, PublicKey]]:
            return _usable(await fetch(), algorithm)

        self._kept = Kept(usable, monotonic)
        self._ttl_s = ttl_s
        self._refetch_s = min(refetch_s, ttl_s)

    async def find(self, kid: str | None) -> PublicKey | None:
        """The key of this id; None where the provider has none. Raises `Unreachable`."""
        for age_s in (self._ttl_s, self._refetch_s):
            keys = await self._kept.no_older_than(age_s)
            fitting = [key for known, key in keys if kid is None or known == kid]
            # Without an id, or with one of two keys, there must be nothing to choose.
            if len(fitting) == 1:
                return fitting[0]
        return None


def _usable(document: KeySet, algorithm: IdTokenAlgorithm) -> list[tuple[str | None, PublicKey]]:
    usable = []
    for jwk in document.keys[:KEYS_MAX]:
        if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm.value) != algorithm.value:
            continue
        key = _public_key(jwk, algorithm)
        if key is not None:
            kid = jwk.get("kid")
            usable.append((kid if isinstance(kid, str) else None, key))
    return usable


def _public_key(jwk: dict[str, Any], algorithm: IdTokenAlgorithm) -> PublicKey | None:
    try:
        if algorithm is IdTokenAlgorithm.ES256:
            if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
                return None
            return ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})
        if jwk.get("kty") != "RSA":
            return None
        if _bits(jwk["n"]) < RSA_BITS_MIN:
            return None
        return RSAKey.import_key({name: jwk[name] for name in ("kty", "n", "e")})
    except (JoseError, ValueError, TypeError, KeyError):
        # One that we cannot read is one that we do not have.
        return None


def _bits(number: str) -> int:
    return int.from_bytes(urlsafe_b64decode(number + "==="), "big").bit_length()
