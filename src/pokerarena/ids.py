"""Identifiers: UUIDv7 inside, prefixed by kind in text (``run_0199…``).

UUIDv7 sorts by creation time, so that primary keys append to their indexes and cursors are ids.
"""

from __future__ import annotations

import re
from enum import StrEnum
from uuid import UUID

from uuid_utils.compat import uuid7

from pokerarena.errors import Invalid

_HEX_DIGITS = re.compile(r"[0-9a-f]{32}")


class IdKind(StrEnum):
    """The kinds of things that have ids; the value is the prefix in text."""

    USER = "user"
    TOKEN = "tok"  # noqa: S105 - a prefix, not a secret
    VIEWER_LINK = "link"
    SESSION = "sess"
    IDENTITY = "ident"
    AGENT = "agent"
    VERSION = "ver"
    TABLE = "table"
    RUN = "run"
    HAND = "hand"
    DEAD_LETTER = "dead"
    EGRESS_RULE = "rule"


_ID_TEXT = re.compile(f"(?:{'|'.join(IdKind)})_{_HEX_DIGITS.pattern}")


def new_id() -> UUID:
    """A new UUIDv7."""
    return uuid7()


def id_text(kind: IdKind, value: UUID) -> str:
    """The public form: prefix, underscore, 32 lower-case hexadecimal digits."""
    return f"{kind.value}_{value.hex}"


def is_id_text(text: str) -> bool:
    """Whether a text is an id of any kind: nothing else belongs into a log or a record in its place."""
    return _ID_TEXT.fullmatch(text) is not None


def parse_id(kind: IdKind, text: str) -> UUID:
    """The inverse of `id_text`. Raises `Invalid` (``invalid_id``) for any other text."""
    prefix, _, digits = text.partition("_")
    # UUID's own reading of text is generous (braces, signs, underscores); an id has one spelling.
    if prefix == kind.value and _HEX_DIGITS.fullmatch(digits):
        return UUID(hex=digits)
    raise Invalid(
        "invalid_id", f"An id of this kind is '{kind.value}_' followed by 32 hexadecimal digits."
    )
