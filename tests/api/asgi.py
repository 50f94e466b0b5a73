"""A client of the application in this process: HTTP semantics without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI

_UNSET = object()


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem; None for anything else."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        return str(self.json["code"])

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:2000]!r}>"


class Client:
    """Requests of one caller."""

    def __init__(self, app: FastAPI, token: str | None = None) -> None:
        self.app = app
        self.token = token
        self.id = ""

    def with_token(self, token: str | None) -> Client:
        return Client(self.app, token)

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.request("GET", path, **more)

    async def post(self, path: str, body: Any = _UNSET, **more: Any) -> Reply:
        return await self.request("POST", path, body, **more)

    async def put(self, path: str, body: Any = _UNSET, **more: Any) -> Reply:
        return await self.request("PUT", path, body, **more)

    async def patch(self, path: str, body: Any = _UNSET, **more: Any) -> Reply:
        return await self.request("PATCH", path, body, **more)

    async def delete(self, path: str, **more: Any) -> Reply:
        return await self.request("DELETE", path, **more)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = _UNSET,
        *,
        raw: bytes | list[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        sent_headers = {"host": "arena.test"}
        if self.token is not None:
            sent_headers["authorization"] = f"Bearer {self.token}"
        chunks: list[bytes] = []
        if body is not _UNSET:
            chunks = [json.dumps(body).encode()]
            sent_headers["content-type"] = "application/json"
            sent_headers["content-length"] = str(len(chunks[0]))
        if raw is not None:
            chunks = [raw] if isinstance(raw, bytes) else list(raw)
            sent_headers["content-type"] = "application/json"
            if isinstance(raw, bytes):
                sent_headers["content-length"] = str(len(raw))
            else:
                sent_headers["transfer-encoding"] = "chunked"
        for name, value in (headers or {}).items():
            sent_headers[name.lower()] = value
        sent_headers = {name: value for name, value in sent_headers.items() if value != ""}
        exchange = _Exchange(chunks)
        await self.app(_scope(method, path, sent_headers), exchange.receive, exchange.send)
        return exchange.reply()

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[Stream]:
        """An open response whose events are read as they come."""
        headers = {"host": "arena.test"}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        stream = Stream()
        task = asyncio.create_task(
            self.app(_scope("GET", path, headers), stream.receive, stream.send)
        )
        task.add_done_callback(lambda _: stream.chunks.put_nowait(None))
        try:
            yield stream
        finally:
            stream.gone.set()
            async with asyncio.timeout(10):
                await task


def _scope(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    plain, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": plain,
        "raw_path": quote(plain, safe="/%").encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("arena.test", 80),
        "state": {},
    }


class _Exchange:
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks
        self._sent_all = False
        self._start: dict[str, Any] | None = None
        self._body = b""

    async def receive(self) -> dict[str, Any]:
        if self._chunks:
            chunk = self._chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks)}
        if not self._sent_all:
            self._sent_all = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert self._start is None, "two responses to one request"
            self._start = message
        else:
            self._body += message.get("body", b"")

    def reply(self) -> Reply:
        assert self._start is not None, "no response"
        headers = {name.decode(): value.decode() for name, value in self._start["headers"]}
        cookies = tuple(
            value.decode() for name, value in self._start["headers"] if name == b"set-cookie"
        )
        return Reply(self._start["status"], headers, self._body, cookies)


class Stream:
    """Server-sent events as they arrive."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.received = b""
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif not self.gone.is_set():
            self.chunks.put_nowait(message.get("body", b""))

    async def events(self) -> AsyncIterator[tuple[str, Any]]:
        """Each event's name and its data; a comment is ('', text). Ends with the stream."""
        text = ""
        while (chunk := await self.chunks.get()) is not None:
            self.received += chunk
            text += chunk.decode()
            while "\n\n" in text:
                block, text = text.split("\n\n", 1)
                name, data = "", None
                for line in block.split("\n"):
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        data = json.loads(line.removeprefix("data: "))
                    elif line.startswith(":"):
                        data = line[1:].strip()
                if data is not None:
                    yield name, data

    async def next_event(self, name: str, timeout_s: float = 10) -> Any:
        """The data of the next event of this name."""
        async with asyncio.timeout(timeout_s):
            async for found, data in self.events():
                if found == name:
                    return data
        raise AssertionError(f"the stream ended without an event {name!r}")

    async def next_event_or_end(self) -> tuple[str, Any] | None:
        """The next event; None when the stream has ended."""
        async with asyncio.timeout(10):
            async for event in self.events():
                return event
        return None
