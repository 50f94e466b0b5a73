"""Sealing: authenticated encryption of what must be read back (run seeds, signing secrets).

A sealed value is ``version byte | key id (4 bytes) | nonce (12 bytes) | AES-256-GCM ciphertext``.
The purpose and the owner's id are authenticated with it, so that a value copied to another row
does not open. This module must never log and never return a key.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pokerarena.errors import ConfigurationError

_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_HEADER_BYTES = len(_VERSION) + _KEY_ID_BYTES + _NONCE_BYTES


class Sealer:
    """Seals and opens values under one 32-byte key."""

    __slots__ = ("_aead", "_key_id")

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._key_id = hashlib.sha256(b"pokerarena key id" + key).digest()[:_KEY_ID_BYTES]

    def seal(self, plaintext: bytes, *, purpose: str, owner: bytes) -> bytes:
        """Encrypt `plaintext` for one purpose and one owning row."""
        nonce = os.urandom(_NONCE_BYTES)
        header = _VERSION + self._key_id + nonce
        return header + self._aead.encrypt(nonce, plaintext, _bound(purpose, owner))

    def open(self, sealed: bytes, *, purpose: str, owner: bytes) -> bytes:
        """Decrypt; raises `ConfigurationError` when the key or the row is not the right one."""
        if sealed[:1] == _VERSION and len(sealed) > _HEADER_BYTES:
            key_id = sealed[1 : 1 + _KEY_ID_BYTES]
            if key_id != self._key_id:
                raise ConfigurationError(
                    f"a stored secret was sealed under key {key_id.hex()}, but this program holds "
                    f"key {self._key_id.hex()}; start it with the POKERARENA_MASTER_KEY of then"
                )
            nonce = sealed[1 + _KEY_ID_BYTES : _HEADER_BYTES]
            try:
                return self._aead.decrypt(nonce, sealed[_HEADER_BYTES:], _bound(purpose, owner))
            except InvalidTag:
                pass
        raise ConfigurationError("a stored secret is damaged or belongs to another row")


def _bound(purpose: str, owner: bytes) -> bytes:
    return purpose.encode() + b"\x00" + owner
