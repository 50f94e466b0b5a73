"""Lists in pages: a bounded limit and an opaque cursor.

A cursor is a position in one kind of list and grants nothing: visibility is decided for every
page anew.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import Field

from pokerarena.api.shapes import QueryShape
from pokerarena.errors import Invalid
from pokerarena.settings import Settings

Row = TypeVar("Row")

_INT_BYTES = 8
_UUID_BYTES = 16


class PageQuery(QueryShape):
    """What every list takes."""

    limit: Annotated[int | None, Field(ge=1, description="how many items at most")] = None
    cursor: Annotated[
        str | None, Field(max_length=64, description="`next_cursor` of the page before")
    ] = None

    def bounded_limit(self, settings: Settings) -> int:
        """The limit, or the default; raises `Invalid` beyond the maximum."""
        if self.limit is None:
            return min(settings.api_page_default, settings.api_page_max)
        if self.limit > settings.api_page_max:
            raise Invalid(
                "limit_out_of_range",
                f"limit is at most {settings.api_page_max}; ask for more pages instead.",
                field="limit",
            )
        return self.limit

    def before_id(self, of: str) -> UUID | None:
        """The id after which the next page of this kind of list begins."""
        payload = self._position(of, _UUID_BYTES)
        return None if payload is None else UUID(bytes=payload)

    def number(self, of: str) -> int | None:
        """The same for lists that are ordered by a number."""
        payload = self._position(of, _INT_BYTES)
        return None if payload is None else int.from_bytes(payload, "big")

    def _position(self, of: str, length: int) -> bytes | None:
        if self.cursor is None:
            return None
        try:
            raw = base64.b64decode(
                self.cursor.encode() + b"=" * (-len(self.cursor) % 4), b"-_", validate=True
            )
        except (binascii.Error, ValueError):
            raw = b""
        kind, payload = raw[:-length], raw[-length:]
        if kind != of.encode() or len(payload) != length or _cursor(of, payload) != self.cursor:
            raise Invalid(
                "cursor_invalid",
                "This cursor is not one of this list; start again without it.",
                field="cursor",
            )
        return payload


def _cursor(of: str, payload: bytes) -> str:
    return base64.urlsafe_b64encode(of.encode() + payload).rstrip(b"=").decode()


def cut(
    rows: Sequence[Row], limit: int, of: str, position: Callable[[Row], UUID | int]
) -> tuple[Sequence[Row], str | None]:
    """The page out of ``limit + 1`` rows, and the cursor of the next where there is one."""
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    last = position(page[-1])
    payload = last.bytes if isinstance(last, UUID) else last.to_bytes(_INT_BYTES, "big")
    return page, _cursor(of, payload)
