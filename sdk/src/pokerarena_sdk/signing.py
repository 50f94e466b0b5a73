"""Checking that a callback came from the arena: signatures as in Standard Webhooks.

Owns verification only; the arena signs. It never reads a clock.
"""

from __future__ import annotations

import base64
import binascii
import hmac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix, not a secret  # pragma: allowlist secret
TOLERANCE_S = 300
_MAX_SIGNATURES = 16


class NotFromTheArena(Exception):
    """The request is not signed with our secret, or is too old; the message says which."""


def secret_key(secret: str) -> bytes:
    """The key inside a `whsec_…` secret. Raises ValueError with a sentence."""
    try:
        key = base64.b64decode(secret[len(SECRET_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) < 24:
        raise ValueError("a signing secret is 'whsec_' followed by base64 of at least 24 bytes")
    return key


def verify(key: bytes, headers: Any, body: bytes, now_s: float) -> None:
    """Raise `NotFromTheArena` unless the three `webhook-…` headers fit this body and time.

    `headers` is any mapping whose `get` ignores case, as those of HTTP servers do.
    """
    message_id = headers.get("webhook-id") or ""
    timestamp = headers.get("webhook-timestamp") or ""
    signatures = (headers.get("webhook-signature") or "").split(" ")[:_MAX_SIGNATURES]
    if not message_id or "." in message_id:
        raise NotFromTheArena("webhook-id is missing or contains a dot")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise NotFromTheArena("webhook-timestamp is not a number of seconds")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise NotFromTheArena("webhook-timestamp is more than five minutes from now")
    signed = f"{message_id}.{timestamp}.".encode("utf-8", "replace") + body
    expected = base64.b64encode(hmac.new(key, signed, "sha256").digest())
    matched = False
    for signature in signatures:
        version, _, value = signature.partition(",")
        if version == "v1":
            matched |= hmac.compare_digest(expected, value.encode("utf-8", "replace"))
    if not matched:
        raise NotFromTheArena("webhook-signature was not made with our secret")
