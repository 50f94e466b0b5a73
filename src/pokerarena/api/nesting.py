"""How deep a JSON document nests, counted as it arrives.

It must never keep the document, and judges nothing but its depth: whether it is JSON at all is for
the parser, which a document that nests ten thousand deep would overwhelm.
"""

from __future__ import annotations

import re
from typing import Final

_STRUCTURE: Final = re.compile(rb'[\[\]{}"\\]')


class Nesting:
    """Depth over the chunks of one body."""

    __slots__ = ("_depth", "_escaped_until", "_in_string", "deepest")

    def __init__(self) -> None:
        self.deepest = 0
        self._depth = 0
        self._in_string = False
        # Position within the next chunk that a backslash before it has made harmless.
        self._escaped_until = -1

    def feed(self, chunk: bytes, limit: int) -> bool:
        """Take a chunk; whether all so far is within the limit."""
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
            elif byte in b"[{":
                self._depth += 1
                if self._depth > limit:
                    return False
                self.deepest = max(self.deepest, self._depth)
            elif byte in b"]}":
                self._depth -= 1
        self._escaped_until = 0 if escaped == len(chunk) and self._in_string else -1
        return True
