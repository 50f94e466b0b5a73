"""Master keys that this process holds itself, from its environment or a file.

One key is current; previous ones only open. This module must never log and never return a key.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pokerarena.errors import ConfigurationError
from pokerarena.sealing.sealer import WrappedKey

_NONCE_BYTES: Final = 12
_KEY_ID_BYTES: Final = 4
_PURPOSE: Final = b"pokerarena data key\x00"


def local_key_id(key: bytes) -> str:
    """The public name of a key: enough to tell keys apart, far too little to guess one."""
    return f"local:{hashlib.sha256(b'pokerarena key id' + key).digest()[:_KEY_ID_BYTES].hex()}"


class LocalKeys:
    """A `KeyProvider` over keys of 32 bytes."""

    __slots__ = ("_current", "_keys")

    def __init__(self, current: bytes, previous: Iterable[bytes] = ()) -> None:
        self._current = local_key_id(current)
        self._keys = {local_key_id(key): AESGCM(key) for key in (current, *previous)}

    async def wrap(self, data_key: bytes) -> WrappedKey:
        nonce = os.urandom(_NONCE_BYTES)
        aad = _PURPOSE + self._current.encode()
        return WrappedKey(
            self._current, nonce + self._keys[self._current].encrypt(nonce, data_key, aad)
        )

    async def unwrap(self, key: WrappedKey) -> bytes:
        master = self._keys.get(key.key_id)
        if master is None:
            raise ConfigurationError(
                f"a stored secret was sealed under the master key {key.key_id}, and this program "
                f"holds {', '.join(self._keys)}: add that key to POKERARENA_MASTER_KEYS_PREVIOUS"
            )
        nonce, wrapped = key.wrapped[:_NONCE_BYTES], key.wrapped[_NONCE_BYTES:]
        try:
            return master.decrypt(nonce, wrapped, _PURPOSE + key.key_id.encode())
        except InvalidTag:
            raise ConfigurationError("the data key of a stored secret is damaged") from None

    async def current_key_id(self) -> str:
        return self._current
