"""Server-sent events: one response that goes on until its client, its limit or the process ends.

It must never hold a database session while it waits, and never wait for a client without a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

RECONNECT_MS = 2_000
KEEP_ALIVE = b": keep-alive\n\n"
OPENING = b"retry: %d\n\n" % RECONNECT_MS

_encode = msgspec.json.Encoder().encode


def event(name: str, data: Any) -> bytes:
    """One event; `data` is JSON as bytes (of one line), or what becomes it."""
    payload = data if isinstance(data, bytes) else _encode(data)
    return b"event: " + name.encode() + b"\ndata: " + payload + b"\n\n"


class EventStream(Response):
    """Sends what `source` opens to, and closes it in every case.

    The source is opened before the first byte is sent, so that what it raises is still a problem.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AbstractContextManager[AsyncGenerator[bytes, None]],
        *,
        send_timeout_s: float,
    ) -> None:
        super().__init__(
            headers={"X-Accel-Buffering": "no", "Content-Type": "text/event-stream; charset=utf-8"}
        )
        del self.headers["content-length"]
        self._source = source
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._source as chunks:
            pump = asyncio.create_task(self._pump(send, chunks))
            gone = asyncio.create_task(_client_gone(receive))
            try:
                await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pump.cancel()
                gone.cancel()
                results = await asyncio.gather(pump, gone, return_exceptions=True)
                await chunks.aclose()
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _pump(self, send: Send, chunks: AsyncGenerator[bytes, None]) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        try:
            await self._send_chunk(send, OPENING)
            async for chunk in chunks:
                await self._send_chunk(send, chunk)
            await self._send_chunk(send, b"", more=False)
        except (TimeoutError, OSError):
            # A client that reads nothing, or is gone: there is nobody to tell.
            return

    async def _send_chunk(self, send: Send, chunk: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._send_timeout_s):
            await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _client_gone(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
