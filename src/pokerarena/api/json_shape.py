"""How deep a JSON document nests and how many values it holds, counted as it arrives.

It must never keep the document, and judges nothing but these two: whether it is JSON at all is for
the parser, which a document that nests ten thousand deep, or that is nothing but empty lists, would
overwhelm: an empty list takes three bytes on the wire and seventy in memory.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

_STRUCTURE: Final = re.compile(rb'[\[\]{},"\\]')


class Excess(Enum):
    """What a document has too much of."""

    DEPTH = auto()
    VALUES = auto()


class JsonShape:
    """Depth and values over the chunks of one body."""

    __slots__ = ("_depth", "_depth_max", "_escaped_until", "_in_string", "_values", "_values_max")

    def __init__(self, depth_max: int, values_max: int) -> None:
        self._depth_max = depth_max
        self._values_max = values_max
        self._depth = 0
        # Each comma separates two values, and each bracket is one and may hold a first one.
        self._values = 1
        self._in_string = False
        # Position within the next chunk that a backslash before it has made harmless.
        self._escaped_until = -1

    def feed(self, chunk: bytes) -> Excess | None:
        """Take a chunk; what the document has too much of by now, if anything."""
        escaped = self._escaped_until
        for match in _STRUCTURE.finditer(chunk):
            at, byte = match.start(), chunk[match.start()]
            if self._in_string:
                if at == escaped:
                    continue
                if byte == 0x5C:
                    escaped = at + 1
                elif byte == 0x22:
                    self._in_string = False
            elif byte == 0x22:
                self._in_string = True
            elif byte in b"]}":
                self._depth -= 1
            elif (excess := self._count(byte)) is not None:
                return excess
        self._escaped_until = 0 if escaped == len(chunk) and self._in_string else -1
        return None

    def _count(self, byte: int) -> Excess | None:
        self._values += 1
        if byte != 0x2C:
            self._depth += 1
            if self._depth > self._depth_max:
                return Excess.DEPTH
        return Excess.VALUES if self._values > self._values_max else None
