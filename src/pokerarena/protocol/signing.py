"""Signatures of HTTP callbacks, as in Standard Webhooks.

Owns the three headers (`webhook-id`, `webhook-timestamp`, `webhook-signature`) and the secrets
behind them. It never reads a clock: the caller says what time it is.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the mark of a secret, not one
SECRET_BYTES: Final = 32
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
TOLERANCE_S: Final = 300

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

# A receiver reads the header before it trusts anyone, so it must not be a place to keep it busy.
_MAX_SIGNATURES: Final = 16
_VERSION: Final = "v1"
_BLOCK_BYTES: Final = 64


class InvalidSecret(ValueError):
    """A signing secret that is not `whsec_` followed by base64 of 24 to 64 bytes."""


class InvalidSignature(Exception):
    """A request whose signature cannot be trusted; the message says why."""


def new_secret() -> str:
    """A fresh signing secret from the operating system's randomness."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def secret_key(secret: str) -> bytes:
    """The key bytes inside a `whsec_` secret."""
    if not secret.startswith(SECRET_PREFIX):
        raise InvalidSecret(f"a signing secret starts with {SECRET_PREFIX!r}")
    try:
        key = base64.b64decode(secret[len(SECRET_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSecret("the part of a signing secret after its prefix is base64") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise InvalidSecret(
            f"a signing secret holds {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, "
            f"this one {len(key)}"
        )
    return key


class Signer:
    """Signs messages with one secret, decoded once because every callback passes here."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: str) -> None:
        key = secret_key(secret).ljust(_BLOCK_BYTES, b"\0")
        # HMAC-SHA-256 with its two key blocks already absorbed. Besides being faster than the
        # one-shot function it keeps the interpreter's lock, for which the HTTP client is waiting.
        self._inner = sha256(bytes([byte ^ 0x36 for byte in key]))
        self._outer = sha256(bytes([byte ^ 0x5C for byte in key]))

    def __repr__(self) -> str:
        return "Signer(…)"

    def sign(self, message_id: str, timestamp_s: int, body: bytes) -> str:
        """The value of `webhook-signature` for this message."""
        inner = self._inner.copy()
        inner.update(f"{message_id}.{timestamp_s}.".encode())
        inner.update(body)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return f"{_VERSION},{binascii.b2a_base64(outer.digest(), newline=False).decode()}"


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature` for one message under `secret`."""
    return Signer(secret).sign(message_id, timestamp_s, body)


def verify(
    accepted_secrets: str | Iterable[str],
    *,
    message_id: str,
    timestamp: str,
    signatures: str,
    body: bytes,
    now_s: float,
    tolerance_s: int = TOLERANCE_S,
) -> None:
    """Raise `InvalidSignature` unless one of the signatures is ours and the message is recent.

    Several secrets are accepted while one replaces another; several signatures may stand in the
    header, separated by spaces. Every comparison takes the same time whatever the difference.
    """
    if isinstance(accepted_secrets, str):
        accepted_secrets = (accepted_secrets,)
    if not message_id or "." in message_id:
        # A dot would let two different (id, timestamp) pairs sign the same bytes.
        raise InvalidSignature("webhook-id is empty or contains a dot")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise InvalidSignature("webhook-timestamp is not a number of seconds")
    age_s = now_s - int(timestamp)
    if age_s > tolerance_s:
        raise InvalidSignature(f"the message is {age_s:.0f} s old; {tolerance_s} s are allowed")
    if age_s < -tolerance_s:
        raise InvalidSignature(f"the message is dated {-age_s:.0f} s in the future")
    offered = [
        value.encode(errors="replace")
        for version, _, value in (part.partition(",") for part in signatures.split(" "))
        if version == _VERSION
    ]
    if not offered:
        raise InvalidSignature("webhook-signature has no signature of version v1")
    if len(offered) > _MAX_SIGNATURES:
        raise InvalidSignature(f"webhook-signature has more than {_MAX_SIGNATURES} signatures")
    signed = f"{message_id}.{timestamp}.".encode(errors="replace") + body
    matched = False
    for secret in accepted_secrets:
        expected = base64.b64encode(hmac.digest(secret_key(secret), signed, "sha256"))
        for candidate in offered:
            matched |= hmac.compare_digest(expected, candidate)
    if not matched:
        raise InvalidSignature("no signature of the message was made with the secret")
