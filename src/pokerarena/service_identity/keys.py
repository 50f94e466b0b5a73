"""Keys of services: one private key a process, and the set of public keys that is known to all.

The set is a JWKS (RFC 7517) of Ed25519 keys, in which each key says whose it is; its `kid` is its
RFC 7638 thumbprint, so that a name can never come to mean another key. This module must never put a
private key into a set, a message or a representation.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pokerarena.errors import ConfigurationError

# Of one service: the one in use, its successor, and those that have not lapsed everywhere yet.
KEYS_PER_SERVICE_MAX: Final = 8
_PUBLIC_BYTES: Final = 32
_MEMBERS: Final = frozenset({"kty", "crv", "x", "kid", "use", "alg", "service"})


class ServiceName(StrEnum):
    """The services that hold keys of their own; it is the `iss` of what they sign."""

    API = "api"
    WORKER = "worker"
    AGENT_HOST = "agent-host"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that a service may sign with."""

    kid: str
    service: ServiceName
    key: Ed25519PublicKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A process's own key."""

    kid: str
    key: Ed25519PrivateKey = field(repr=False)

    def published(self, service: ServiceName) -> PublicKey:
        """What others are to know of it."""
        return PublicKey(self.kid, service, self.key.public_key())

    def pem(self) -> bytes:
        """The text of its file."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_private_key() -> PrivateKey:
    """A key that nobody has yet."""
    return _private(Ed25519PrivateKey.generate())


def parse_private_key(pem: bytes) -> PrivateKey:
    """A key from the text of its file. Raises `ConfigurationError`, without the text."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            "it holds no Ed25519 private key in PEM; make one with `pokerarena admin service-key`"
        )
    return _private(key)


def _private(key: Ed25519PrivateKey) -> PrivateKey:
    return PrivateKey(thumbprint(key.public_key()), key)


def thumbprint(key: Ed25519PublicKey) -> str:
    """RFC 7638 over the members that RFC 8037 requires."""
    text = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": _x_of(key)}, separators=(",", ":"))
    return _base64(hashlib.sha256(text.encode()).digest())


class KeySet(Mapping[str, PublicKey]):
    """Public keys by `kid`; immutable."""

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None:
        self._keys: dict[str, PublicKey] = {}
        for key in keys:
            if key.kid in self._keys:
                raise ConfigurationError(f"the key {key.kid} is there twice")
            self._keys[key.kid] = key
        for service in ServiceName:
            if len(self.of(service)) > KEYS_PER_SERVICE_MAX:
                raise ConfigurationError(
                    f"more than {KEYS_PER_SERVICE_MAX} keys of {service}: retire old ones"
                )

    def __getitem__(self, kid: str) -> PublicKey:
        return self._keys[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, service: ServiceName) -> list[PublicKey]:
        """The keys of one service, in the order in which they were published."""
        return [key for key in self._keys.values() if key.service is service]

    def json(self) -> str:
        """The text of its file."""
        keys = [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": _x_of(key.key),
                "kid": key.kid,
                "use": "sig",
                "alg": "EdDSA",
                "service": key.service.value,
            }
            for key in self._keys.values()
        ]
        return json.dumps({"keys": keys}, indent=1) + "\n"


def parse_key_set(text: bytes) -> KeySet:
    """A set from the text of its file. Raises `ConfigurationError`."""
    try:
        found = json.loads(text)
        keys = found["keys"]
        if not isinstance(keys, list):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigurationError('it is no set of public keys: {"keys": […]}') from None
    return KeySet(_public(one) for one in keys)


def _public(member: Any) -> PublicKey:
    if isinstance(member, dict) and "d" in member:
        raise ConfigurationError(
            "it holds a private key; a set is of public ones, replace that key"
        )
    if not (
        isinstance(member, dict)
        and member.keys() == _MEMBERS
        and (member["kty"], member["crv"], member["use"], member["alg"])
        == ("OKP", "Ed25519", "sig", "EdDSA")
        and isinstance(member["x"], str)
        and member["service"] in [*ServiceName]
    ):
        raise ConfigurationError("it holds something that is no public key of a service")
    try:
        raw = urlsafe_b64decode(member["x"] + "=" * (-len(member["x"]) % 4))
    except ValueError:
        raw = b""
    if len(raw) != _PUBLIC_BYTES:
        raise ConfigurationError("one of its keys has not the length of an Ed25519 key")
    key = Ed25519PublicKey.from_public_bytes(raw)
    if member["kid"] != thumbprint(key):
        raise ConfigurationError("the kid of one of its keys is not that key's thumbprint")
    return PublicKey(member["kid"], ServiceName(member["service"]), key)


def _x_of(key: Ed25519PublicKey) -> str:
    return _base64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
