"""A document of a provider, read when it is needed and kept for a while.

Many logins at once read it once, and a provider that does not answer is not waited for by each of
them in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from pokerarena.auth.federation.outgoing import Unreachable

# After a failure: those who waited with the one that failed do not wait again.
PAUSE_S: Final = 1.0

Document = TypeVar("Document")


class Kept(Generic[Document]):
    """One document, as one process knows it."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Document]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._present: tuple[float, Document] | None = None
        self._failed: tuple[float, str] = (float("-inf"), "")
        self._lock = asyncio.Lock()

    async def no_older_than(self, age_s: float) -> Document:
        """The document, read again where it is that old. Raises `Unreachable`."""
        async with self._lock:
            now_s = self._monotonic()
            if self._present is not None and now_s - self._present[0] < age_s:
                return self._present[1]
            failed_at_s, why = self._failed
            if now_s - failed_at_s < PAUSE_S:
                raise Unreachable(why)
            try:
                document = await self._fetch()
            except Unreachable as error:
                self._failed = (self._monotonic(), str(error))
                raise
            self._present = (self._monotonic(), document)
            return document
