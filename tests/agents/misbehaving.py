"""A real HTTP server with every bad habit an agent can have; the path chooses the habit.

In a test: `async with Misbehaving() as server`. As a process of its own, to be killed half way:
`python -m tests.agents.misbehaving --port 0`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import sys
from typing import NamedTuple, Self

CALL = b'{"action": "call"}'
TEN_MEGABYTES = 10_000_000
DRIP_PAUSE_S = 0.02


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


def sensible(message: dict[str, object]) -> dict[str, object]:
    legal = message["legal_actions"]
    return {"action": "check" if "check" in legal else "call"}


class Misbehaving:
    """Listens on loopback; remembers what it was asked and how often it was connected to."""

    def __init__(self, default_path: str = "/good") -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.default_path = default_path
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        await self.start(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Some still hold megabytes that nobody will read: such a connection never closes by itself.
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()

    async def start(self, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    def url(self, habit: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{habit}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        self._writers.append(writer)
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except (KeyError, ValueError):
            pass  # A handler that falls over drops its connection, as many servers do.
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = first.split(" ")[1]
            self.received.append(Received(path, headers, body))
            habit = (path if path != "/" else self.default_path).strip("/").replace("-", "_")
            if await getattr(self, habit)(writer, body) == "close":
                return
            await writer.drain()

    @staticmethod
    def _write(
        writer: asyncio.StreamWriter, body: bytes, status: str = "200 OK", *headers: str
    ) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)

    # --- the habits --------------------------------------------------------------------------

    async def good(self, writer, body):
        self._write(writer, json.dumps(sensible(json.loads(body))).encode())

    async def batch(self, writer, body):
        turns = json.loads(body)
        if isinstance(turns, dict):
            return await self.good(writer, body)
        answers = [{**sensible(turn), "decision_id": turn["decision_id"]} for turn in turns]
        self._write(writer, json.dumps(answers[::-1]).encode())
        return None

    async def batch_half(self, writer, body):
        turns = json.loads(body)
        if isinstance(turns, dict):
            return await self.good(writer, body)
        answers = [{**sensible(turn), "decision_id": turn["decision_id"]} for turn in turns[::2]]
        self._write(writer, json.dumps(answers).encode())
        return None

    async def slow(self, writer, body):
        await asyncio.sleep(0.15)
        await self.good(writer, body)

    async def pieces(self, writer, body):
        """A good answer in chunks, with pauses between them."""
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b'{"action"', b': "ca', b'll"}'):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")

    async def once_per_connection(self, writer, body):
        """Answers, then hangs up without having said so."""
        await self.good(writer, body)
        await writer.drain()
        return "close"

    async def illegal(self, writer, body):
        self._write(writer, b'{"action": "raise", "amount": 1}')

    async def malformed(self, writer, body):
        self._write(writer, b'{"action": "call"')

    async def empty(self, writer, body):
        self._write(writer, b"")

    async def wrong_id(self, writer, body):
        self._write(writer, b'{"action": "call", "decision_id": "another"}')

    async def hang(self, writer, body):
        await asyncio.sleep(3600)

    async def drip(self, writer, body):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(DRIP_PAUSE_S)

    async def drip_headers(self, writer, body):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Wait: more\r\n")
            await writer.drain()
            await asyncio.sleep(DRIP_PAUSE_S)

    async def big(self, writer, body):
        self._write(writer, b" " * TEN_MEGABYTES)

    async def big_unannounced(self, writer, body):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(TEN_MEGABYTES // 10_000):
            writer.write(b"2710\r\n" + b" " * 10_000 + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def big_headers(self, writer, body):
        self._write(writer, CALL, "200 OK", *(f"X-{n}: {'x' * 1000}" for n in range(1000)))

    async def gzip_bomb(self, writer, body):
        bomb = gzip.compress(b" " * TEN_MEGABYTES)
        self._write(writer, bomb, "200 OK", "Content-Encoding: gzip")

    async def gzip_unannounced(self, writer, body):
        self._write(writer, gzip.compress(CALL))

    async def server_error(self, writer, body):
        self._write(writer, b'{"action": "call"}', "500 Internal Server Error")

    async def no_content(self, writer, body):
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def redirect(self, writer, body):
        self._write(writer, b"", "307 Temporary Redirect", f"Location: {self.url('good')}")

    async def cookie(self, writer, body):
        self._write(writer, CALL, "200 OK", "Set-Cookie: a=b")

    async def half(self, writer, body):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        await writer.drain()
        return "close"

    async def hang_up(self, writer, body):
        return "close"

    async def garbage(self, writer, body):
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        await writer.drain()
        return "close"


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--habit", default="good", help="what a request for / gets")
    options = parser.parse_args()
    server = Misbehaving(f"/{options.habit}")
    await server.start(options.port)
    sys.stdout.write(f"agent ready http://127.0.0.1:{server.port}/\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
