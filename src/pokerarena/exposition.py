"""Serves `/metrics` to Prometheus, on a port of its own that is no part of the API.

One answer to every question, within bounds of size, time and number: whoever can reach the port
may read, so it listens on loopback unless a setting says otherwise. Never on by default.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pokerarena.metrics import Aggregate
from pokerarena.telemetry import get_logger

log = get_logger("exposition")

REQUEST_MAX_BYTES: Final = 8 * 1024
EXCHANGE_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 16


class MetricsServer:
    """The metrics of this process, and of those that report to it."""

    def __init__(self, aggregate: Aggregate | None = None) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Ours(aggregate or Aggregate()))
        ProcessCollector(registry=self._registry)
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which the system chose for 0."""
        self._server = await asyncio.start_server(
            self._serve, host, port, limit=REQUEST_MAX_BYTES, backlog=CONNECTIONS_MAX
        )
        chosen: int = self._server.sockets[0].getsockname()[1]
        log.info("metrics_listening", host=host, port=chosen)
        return chosen

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                    await self._answer(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("metrics_request_cut")
        finally:
            self._connections -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET" or path != b"/metrics":
            status, media_type, body = b"404 Not Found", "text/plain", b"only GET /metrics\n"
        else:
            status, media_type, body = b"200 OK", CONTENT_TYPE_PLAIN_0_0_4, self.text()
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n"
            b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
            % (status, media_type.encode(), len(body))
            + body
        )
        await writer.drain()


@contextmanager
def served(host: str, port: int | None) -> Iterator[None]:
    """The metrics of a process that has no event loop of its own; nothing without a port."""
    if port is None:
        yield
        return
    loop = asyncio.new_event_loop()
    server = MetricsServer()
    thread = threading.Thread(target=loop.run_forever, name="metrics", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(host, port), loop).result()
    except OSError as error:
        # What nobody can watch still does its work.
        log.error("metrics_not_listening", port=port, why=error.strerror)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Ours(Collector):
    def __init__(self, aggregate: Aggregate) -> None:
        self._aggregate = aggregate

    def collect(self) -> Iterator[Metric]:
        return self._aggregate.collect()
