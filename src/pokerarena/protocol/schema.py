"""The JSON Schema of the protocol, generated from the messages themselves.

Owns nothing but the document: what is true is said once, in `protocol.messages`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from pokerarena.protocol.messages import (
    PROTOCOL_VERSION,
    Answer,
    Callback,
    HandEnd,
    RunEnd,
    RunStart,
)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SENT: Final = (Callback, RunStart, HandEnd, RunEnd)


@cache
def _components() -> tuple[list[str], dict[str, Any]]:
    schemas, definitions = msgspec.json.schema_components(
        (*_SENT, Answer), ref_template="#/$defs/{name}"
    )
    return [schema["$ref"] for schema in schemas], definitions


def json_schema() -> dict[str, Any]:
    """All messages: the top level accepts whatever the arena sends; `$defs` has each by name."""
    references, definitions = _components()
    sent = [{"$ref": reference} for reference in references[: len(_SENT)]]
    return {
        "$schema": DIALECT,
        "title": f"pokerarena agent protocol, version {PROTOCOL_VERSION}",
        "description": "What the arena sends: one message, or an array of callbacks.",
        "anyOf": [*sent, {"type": "array", "items": {"$ref": "#/$defs/Callback"}}],
        "$defs": definitions,
    }


def answer_schema() -> dict[str, Any]:
    """What an agent answers to one callback."""
    references, definitions = _components()
    return {
        "$schema": DIALECT,
        "title": f"pokerarena agent protocol, version {PROTOCOL_VERSION}: answer",
        "$ref": references[-1],
        "$defs": definitions,
    }
