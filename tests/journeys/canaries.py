"""Looking for secrets where they must not be: in the clear, encoded, or hashed without a key."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

FAST_HASHES = ("md5", "sha1", "sha256", "sha512", "blake2b")
# Shorter ones would be found by chance.
MIN_BYTES = 10


@dataclass(frozen=True)
class Canary:
    """One planted secret."""

    kind: str
    value: bytes
    # A run's seed: its SHA-256 is published on purpose, and 32 random bytes cannot be guessed.
    sha256_is_public: bool = False


def text_canary(kind: str, value: str) -> Canary:
    return Canary(kind, value.encode())


def traces_of(canary: Canary, place: bytes) -> list[str]:
    """How the canary can be read in a place, or guessed from it; empty where it cannot."""
    assert len(canary.value) >= MIN_BYTES, canary
    folded = place.lower()
    found = []
    for how, needle in _forms(canary):
        # Hexadecimal digits are written in either case.
        if needle in place or (how.endswith("hex") and needle in folded):
            found.append(how)
    return found


def _forms(canary: Canary) -> Iterator[tuple[str, bytes]]:
    value = canary.value
    yield "in the clear", value
    yield "quoted", quote(value, safe="").encode()
    yield "escaped", json.dumps(value.decode("utf-8", "replace"))[1:-1].encode()
    yield "hex", value.hex().encode()
    yield from _base64_forms("base64", value)
    for name in FAST_HASHES:
        if name == "sha256" and canary.sha256_is_public:
            continue
        digest = hashlib.new(name, value).digest()
        yield f"{name} hex", digest.hex().encode()
        yield f"{name} base64", base64.b64encode(digest).rstrip(b"=")
        yield f"{name} base64url", base64.urlsafe_b64encode(digest).rstrip(b"=")


def _base64_forms(how: str, value: bytes) -> Iterator[tuple[str, bytes]]:
    """What base64 makes of the value, wherever in a larger text it begins."""
    for before in range(3):
        padded = b"\0" * before + value
        # Only characters that no neighbour has a part in.
        begin, end = -(-before * 8 // 6), len(padded) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield f"{how} +{before}", encode(padded)[begin:end]
