"""Files of any length, compressed and sealed: what a backup consists of.

Owns the format. A file is a header (magic, key id, salt, name) and frames of at most 1 MiB, each
AES-256-GCM under a key that belongs to this file alone (HKDF of the backup key and the salt). The
nonce counts the frames and marks the last one, and the header is authenticated with each: a file
that is cut, reordered, renamed or changed by one bit does not open. Memory is one frame.
Must never: write anything unsealed, or give out a byte that was not authenticated.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pokerarena.errors import ArenaError
from pokerarena.ops.backup.storage import Readable, Storage, Writable

FRAME_BYTES: Final = 1024 * 1024
SUFFIX: Final = ".sealed"

_MAGIC: Final = b"PKBK\x01"
_KEY_ID_BYTES: Final = 4
_SALT_BYTES: Final = 32
_TAG_BYTES: Final = 16
_LENGTH: Final = struct.Struct(">I")
_NONCE: Final = struct.Struct(">QI")
_COMPRESSION: Final = 1


class DamagedBackup(ArenaError):
    """A file of a backup is not what was written, or not sealed under this key."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__("backup_damaged", f"{where} {why}.")


class SealedWriter:
    """Takes a file's content piece by piece."""

    def __init__(self, out: Writable, key: bytes, name: str) -> None:
        self._out = out
        salt = os.urandom(_SALT_BYTES)
        self._header = _MAGIC + _key_id(key) + salt + _named(name)
        self._aead = AESGCM(_file_key(key, salt))
        self._compressor = zlib.compressobj(_COMPRESSION)
        self._waiting = bytearray()
        self._frames = 0
        out.write(self._header)

    def write(self, data: bytes) -> None:
        """The next piece."""
        self._waiting += self._compressor.compress(data)
        while len(self._waiting) > FRAME_BYTES:
            self._frame(bytes(self._waiting[:FRAME_BYTES]), last=False)
            del self._waiting[:FRAME_BYTES]

    def end(self) -> None:
        """The content is complete."""
        self._waiting += self._compressor.flush()
        while len(self._waiting) > FRAME_BYTES:
            self._frame(bytes(self._waiting[:FRAME_BYTES]), last=False)
            del self._waiting[:FRAME_BYTES]
        self._frame(bytes(self._waiting), last=True)

    def _frame(self, content: bytes, *, last: bool) -> None:
        sealed = self._aead.encrypt(_NONCE.pack(self._frames, last), content, self._header)
        self._out.write(_LENGTH.pack(len(sealed)) + sealed)
        self._frames += 1


@contextmanager
def sealed(storage: Storage, file: str, key: bytes, name: str) -> Iterator[SealedWriter]:
    """Write a sealed file; it appears under its name when it is complete."""
    with storage.writing(file) as out:
        writer = SealedWriter(out, key, name)
        yield writer
        writer.end()


def opened(storage: Storage, file: str, key: bytes, name: str) -> Generator[bytes]:
    """The content of a sealed file, piece by piece. Raises `DamagedBackup`.

    What was given out before a damage was found is right; that it is all is known at the end only.
    """
    where = storage.where(file)
    try:
        with storage.reading(file) as source:
            yield from _content(source, where, key, name)
    except FileNotFoundError:
        raise DamagedBackup(where, "is missing") from None


def _content(source: Readable, where: str, key: bytes, name: str) -> Iterator[bytes]:
    header = source.read(len(_MAGIC) + _KEY_ID_BYTES + _SALT_BYTES)
    if len(header) < len(_MAGIC) + _KEY_ID_BYTES + _SALT_BYTES or header[:5] != _MAGIC:
        raise DamagedBackup(where, "is no sealed file of a version that this program reads")
    key_id, salt = header[len(_MAGIC) :][:_KEY_ID_BYTES], header[-_SALT_BYTES:]
    if key_id != _key_id(key):
        raise DamagedBackup(where, f"was sealed under key {key_id.hex()}, not {_key_id(key).hex()}")
    named = _named(name)
    if source.read(len(named)) != named:
        raise DamagedBackup(where, f"does not hold {name}")
    yield from _frames(source, where, AESGCM(_file_key(key, salt)), header + named)


def _frames(source: Readable, where: str, aead: AESGCM, header: bytes) -> Iterator[bytes]:
    decompressor = zlib.decompressobj()
    number = 0
    prefix = source.read(_LENGTH.size)
    while prefix:
        length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
        if not _TAG_BYTES <= length <= FRAME_BYTES + _TAG_BYTES:
            raise DamagedBackup(where, f"is damaged at frame {number}")
        content = source.read(length)
        prefix = source.read(_LENGTH.size)
        try:
            plain = aead.decrypt(_NONCE.pack(number, not prefix), content, header)
            yield decompressor.decompress(plain)
        except (InvalidTag, zlib.error, ValueError):
            raise DamagedBackup(where, f"is damaged or cut at frame {number}") from None
        number += 1
    if not decompressor.eof:
        raise DamagedBackup(where, "is cut")


class SealedReader(io.RawIOBase):
    """A sealed file as a stream that others can read, such as `tarfile`."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def drain(self) -> None:
        """Read to the end, so that what is behind the last byte that anybody wanted is checked."""
        for _ in self._pieces:
            pass


def _named(name: str) -> bytes:
    encoded = name.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"pokerarena backup key id" + key).digest()[:_KEY_ID_BYTES]


def _file_key(key: bytes, salt: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, b"pokerarena backup file").derive(key)
