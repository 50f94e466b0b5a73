"""What makes a key or a secret file good enough, before anything uses it.

This module must never put a key, or any part of one, into a message.
"""

from __future__ import annotations

import os
import re
import stat
from base64 import b64decode
from binascii import Error as Base64Error
from pathlib import Path
from typing import Final

from pokerarena.errors import ConfigurationError

KEY_BYTES: Final = 32
SECRET_FILE_MAX_BYTES: Final = 64 * 1024
DEVELOPMENT_SECRET_MARK: Final = b"development-only"
# 32 random bytes have fewer different values than this about once in 10**15 keys; a text, a
# repeated pattern or a padded short secret nearly always has.
DISTINCT_BYTES_MIN: Final = 18
_SEPARATORS: Final = re.compile(r"[\s,]+")


def development_key(name: str) -> bytes:
    """The key that everybody knows, for a program that nobody else can reach."""
    return (DEVELOPMENT_SECRET_MARK + b":" + name.encode()).ljust(KEY_BYTES, b".")[:KEY_BYTES]


def decode_key(variable: str, text: str) -> bytes:
    """32 bytes out of base64."""
    try:
        key = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{variable} must be {KEY_BYTES} bytes in base64; "
            "make one with: head -c 32 /dev/urandom | base64"
        )
    return key


def decode_keys(variable: str, text: str) -> tuple[bytes, ...]:
    """Several keys, separated by commas, spaces or lines."""
    return tuple(decode_key(variable, one) for one in _SEPARATORS.split(text.strip()) if one)


def weakness(key: bytes) -> str | None:
    """Why a key cannot protect anything; None for one that looks random."""
    if DEVELOPMENT_SECRET_MARK in key:
        return "is the development key, which everybody knows"
    if len(set(key)) < DISTINCT_BYTES_MIN or key.isascii():
        return "is not random; make one with: head -c 32 /dev/urandom | base64"
    return None


def read_secret_file(variable: str, path: Path) -> tuple[str, bool]:
    """The text of a file that holds a secret, and whether everybody may read or change the file.

    The mode is that of the file that was opened, so that it cannot be swapped in between.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(
            f"{variable} names a file that cannot be read ({error.strerror}); "
            "correct the path or its permissions"
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ConfigurationError(f"{variable} names something that is no file: correct it")
    with os.fdopen(descriptor, "rb") as file:
        raw = file.read(SECRET_FILE_MAX_BYTES + 1)
    if len(raw) > SECRET_FILE_MAX_BYTES:
        raise ConfigurationError(f"{variable} names a file too large for a secret")
    try:
        return raw.decode("utf-8").strip(), bool(status.st_mode & 0o007)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{variable} names a file that is no text") from None
