"""The envelope: a value under a data key, the data key under a master key.

A sealed value is::

    version (1) | length of key id (1) | key id | length of wrapped key (2) | wrapped data key
    | nonce (12) | AES-256-GCM ciphertext

so that it says by itself which master key opens it, and one pass over a relation finds what an old
key still seals. The purpose, the owner's id and the whole header are authenticated with the value:
one that is copied to another row does not open. A process seals many values under one data key, and
asks its provider once for each key it meets; this module must never keep a data key for longer, or
use it for more values, than stated here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pokerarena.errors import ConfigurationError

DATA_KEY_BYTES: Final = 32
# Far below what random nonces allow (2**32), and short enough that a rotated master key is in use
# everywhere within the hour.
DATA_KEY_VALUES_MAX: Final = 65_536
DATA_KEY_LIFETIME_S: Final = 3600.0
OPENED_KEYS_MAX: Final = 1024
_VERSION: Final = b"\x02"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_KEY_ID_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key that only the master key of this id opens."""

    key_id: str
    wrapped: bytes


class KeyProvider(Protocol):
    """Whoever holds the master keys. One is current; every one that it knows still opens."""

    async def wrap(self, data_key: bytes) -> WrappedKey:
        """Encrypt a data key under the current master key."""

    async def unwrap(self, key: WrappedKey) -> bytes:
        """Decrypt a data key; `ConfigurationError` when its master key is not held (any more)."""

    async def current_key_id(self) -> str:
        """The id of the master key that `wrap` uses now."""


@dataclass(slots=True)
class _DataKey:
    aead: AESGCM
    wrapped: WrappedKey
    made_at_s: float
    values: int = 0


class Sealer:
    """Seals and opens values; one per process."""

    __slots__ = ("_lock", "_monotonic", "_opened", "_present", "_provider")

    def __init__(
        self, provider: KeyProvider, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._provider = provider
        self._monotonic = monotonic
        self._present: _DataKey | None = None
        self._opened: OrderedDict[WrappedKey, AESGCM] = OrderedDict()
        self._lock = asyncio.Lock()

    async def seal(self, plaintext: bytes, *, purpose: str, owner: bytes) -> bytes:
        """Encrypt `plaintext` for one purpose and one owning row."""
        key = await self._data_key()
        header = _header(key.wrapped)
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + key.aead.encrypt(nonce, plaintext, _bound(header, purpose, owner))

    async def open(self, sealed: bytes, *, purpose: str, owner: bytes) -> bytes:
        """Decrypt; raises `ConfigurationError` when the key or the row is not the right one."""
        wrapped, at = _parse(sealed)
        aead = await self._aead_of(wrapped)
        nonce = sealed[at : at + _NONCE_BYTES]
        try:
            return aead.decrypt(
                nonce, sealed[at + _NONCE_BYTES :], _bound(sealed[:at], purpose, owner)
            )
        except InvalidTag:
            raise _damaged() from None

    async def current_prefix(self) -> bytes:
        """How every value begins that the current master key seals."""
        return _prefix(await self._provider.current_key_id())

    async def _data_key(self) -> _DataKey:
        async with self._lock:
            key = self._present
            if (
                key is None
                or key.values >= DATA_KEY_VALUES_MAX
                or self._monotonic() - key.made_at_s >= DATA_KEY_LIFETIME_S
            ):
                secret = os.urandom(DATA_KEY_BYTES)
                wrapped = await self._provider.wrap(secret)
                key = _DataKey(AESGCM(secret), wrapped, self._monotonic())
                self._present = key
            key.values += 1
            return key

    async def _aead_of(self, wrapped: WrappedKey) -> AESGCM:
        aead = self._opened.get(wrapped)
        if aead is None:
            aead = AESGCM(await self._provider.unwrap(wrapped))
            self._opened[wrapped] = aead
            if len(self._opened) > OPENED_KEYS_MAX:
                self._opened.popitem(last=False)
        else:
            self._opened.move_to_end(wrapped)
        return aead


def key_id_of(sealed: bytes) -> str:
    """The id of the master key that a value needs."""
    return _parse(sealed)[0].key_id


def _prefix(key_id: str) -> bytes:
    encoded = key_id.encode("ascii")
    if not 1 <= len(encoded) <= _KEY_ID_MAX:
        raise ConfigurationError("the id of a master key has 1 to 200 characters")
    return _VERSION + bytes((len(encoded),)) + encoded


def _header(key: WrappedKey) -> bytes:
    return _prefix(key.key_id) + len(key.wrapped).to_bytes(2, "big") + key.wrapped


def _parse(sealed: bytes) -> tuple[WrappedKey, int]:
    """The wrapped key of a sealed value, and where its nonce begins."""
    if sealed[:1] != _VERSION or len(sealed) < 2:
        raise _damaged()
    id_end = 2 + sealed[1]
    wrapped_from = id_end + 2
    at = wrapped_from + int.from_bytes(sealed[id_end:wrapped_from], "big")
    if len(sealed) < at + _NONCE_BYTES + _TAG_BYTES:
        raise _damaged()
    try:
        return WrappedKey(sealed[2:id_end].decode("ascii"), sealed[wrapped_from:at]), at
    except UnicodeDecodeError:
        raise _damaged() from None


def _bound(header: bytes, purpose: str, owner: bytes) -> bytes:
    return header + purpose.encode() + b"\x00" + owner


def _damaged() -> ConfigurationError:
    return ConfigurationError("a stored secret is damaged or belongs to another row")
