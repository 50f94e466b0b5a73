"""The envelope of every request: its id, its bounds, its log line, and the last word on errors.

Pure ASGI, because it must stream: bodies are counted as they arrive, and live streams pass through
untouched. It must never read a body itself, and never log a query string, a header or a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import get_contextvars

from pokerarena import metrics, tracing
from pokerarena.api.addresses import client_address
from pokerarena.api.bodies import BodyRefused
from pokerarena.api.connections import CONNECTION
from pokerarena.api.json_shape import Excess, JsonShape
from pokerarena.api.pacing import Pace
from pokerarena.api.patience import Patience, Wait
from pokerarena.api.problems import MEDIA_TYPE, RETRY_AFTER_S, problem_bytes, route_template
from pokerarena.ids import new_id
from pokerarena.settings import Settings
from pokerarena.telemetry import bind_contextvars, clear_contextvars, get_logger

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# Whoever watches the process asks these, and they cost nothing.
UNPACED = frozenset({"/healthz", "/readyz"})
PACE = "any"
KEY_MAX = 200
LET_GO_S = 1.0
UPLOAD_TYPES = ("application/gzip", "application/zip", "application/octet-stream")
_UPLOAD_PATH = re.compile(r"/v1/agents/[^/]+/versions")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

log = get_logger("api")


def is_upload(scope: Scope) -> bool:
    """Whether a request brings a hosted agent: the one body that is no JSON, and may be large."""
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and _media_type(Headers(scope=scope)) in UPLOAD_TYPES
        and _UPLOAD_PATH.fullmatch(scope["path"]) is not None
    )


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


class _Untaken(Exception):
    """A client does not take its answer: nobody's fault but its own."""


async def _let_go(scope: Scope, receive: Receive) -> None:
    """End the connection of a client that takes no answer; nothing more can be said to it."""
    log.info("client_let_go", route=route_template(scope))
    connection = scope["state"].get(CONNECTION)
    if connection is None:
        return
    connection.close_now()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LET_GO_S):
            while (await receive())["type"] != "http.disconnect":
                pass


class Envelope:
    """Wraps the application; one per process, since it counts requests in progress."""

    def __init__(self, app: ASGIApp, *, settings: Settings, leaving: asyncio.Event) -> None:
        self._app = app
        self._leaving = leaving
        self._body_max = settings.api_max_body_bytes
        self._body_timeout_s = settings.api_body_timeout_s
        self._depth_max = settings.api_json_depth_max
        self._values_max = settings.api_json_values_max
        self._url_max = settings.api_url_max_bytes
        self._send_timeout_s = settings.api_send_timeout_s
        self._requests_max = settings.api_requests_max + settings.stream_max_per_process
        self._upload_max = settings.upload_max_bytes
        self._uploads_max = settings.uploads_max
        self._uploads = 0
        self._in_progress = 0
        self._patience = Patience(settings.api_waits_max)
        self._settings = settings
        burst, factor = settings.rate_pace_burst, settings.rate_address_factor
        self._token_pace = Pace(settings.rate_pace_per_s, burst)
        self._address_pace = Pace(settings.rate_pace_per_s * factor, burst * factor)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SANE_REQUEST_ID.fullmatch(given) else new_id().hex
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(
            scope, request_id, send, self._send_timeout_s, self._leaving, self._patience
        )
        started = time.perf_counter()
        self._in_progress += 1
        metrics.API_IN_PROGRESS.number().add()
        before = get_contextvars()
        bind_contextvars(request_id=request_id)
        try:
            if not tracing.tracing():
                await self._serve(scope, headers, receive, exchange)
            else:
                await self._serve_traced(scope, headers, receive, exchange)
        except _Untaken:
            await _let_go(scope, receive)
        finally:
            self._in_progress -= 1
            ended = time.perf_counter()
            route = route_template(scope)
            _count(scope["method"], route, exchange, started, ended)
            log.info(
                "request",
                method=scope["method"],
                route=route,
                status=exchange.status,
                duration_ms=round((ended - started) * 1000, 2),
            )
            # Whatever the request bound (its ids) must not stay for the next one.
            clear_contextvars()
            bind_contextvars(**before)

    async def _serve_traced(
        self, scope: Scope, headers: Headers, receive: Receive, exchange: _Exchange
    ) -> None:
        with tracing.span(
            f"request {scope['method'] if scope['method'] in _METHODS else metrics.OTHER}",
            parent=headers.get(tracing.TRACEPARENT),
            request_id=exchange.request_id,
        ) as traced:
            bind_contextvars(trace_id=tracing.trace_id_of(tracing.traceparent()))
            try:
                await self._serve(scope, headers, receive, exchange)
            finally:
                if traced is not None:
                    traced.set_attribute("http.route", route_template(scope))
                    traced.set_attribute("http.response.status_code", exchange.status)

    async def _serve(
        self, scope: Scope, headers: Headers, receive: Receive, exchange: _Exchange
    ) -> None:
        if not await self._in_time(scope, headers):
            metrics.RATE_LIMITED.number(PACE, "pace").add()
            await exchange.problem(
                429, "rate_limited", "Far too many requests at once; slow down.", close=True
            )
            return
        # Whom we only wait for is bounded by itself.
        if self._in_progress - len(self._patience) > self._requests_max:
            await exchange.problem(503, "overloaded", "Too many requests at once; try again.")
            return
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > self._url_max:
            await exchange.problem(414, "url_too_long", f"A URL has at most {self._url_max} bytes.")
            return
        upload = is_upload(scope)
        if upload and self._uploads >= self._uploads_max:
            await exchange.problem(503, "overloaded", "Too many uploads at once; try again.")
            return
        body_max = self._upload_max if upload else self._body_max
        if refusal := _refusal(headers, body_max, upload=upload):
            await exchange.problem(*refusal)
            return
        shape = None if upload else JsonShape(self._depth_max, self._values_max)
        body = _BoundedBody(receive, self._patience, body_max, self._body_timeout_s, shape)
        self._uploads += upload
        try:
            await self._app(scope, body.receive, exchange.send)
        except _Untaken:
            raise
        except Exception:
            log.exception("request_failed", method=scope["method"], route=route_template(scope))
            if exchange.started:
                # Half a response cannot be taken back: cutting it off is the honest end.
                raise
            await exchange.problem(
                500, "internal_error", "This is our fault and is logged under the request_id."
            )
        finally:
            self._uploads -= upload
            body.end()

    async def _in_time(self, scope: Scope, headers: Headers) -> bool:
        """Hold a request back until its caller's pace allows it; False where that is too long."""
        if scope["path"] in UNPACED:
            return True
        address = client_address(HTTPConnection(scope), self._settings)
        # Its end: signed tokens of different people begin alike.
        token = headers.get("authorization", "")[-KEY_MAX:]
        address_s = self._address_pace.wait_s(address)
        token_s = self._token_pace.wait_s(token) if token else 0.0
        if address_s is None or token_s is None:
            return False
        pause_s = max(address_s, token_s)
        if pause_s == 0:
            return True
        wait = self._patience.begin()
        try:
            # It ends by itself, unless so many wait that it is given up.
            await wait.part(pause_s + 1, asyncio.sleep(pause_s))
        except TimeoutError:
            return False
        finally:
            self._patience.end(wait)
        return True


def _refusal(headers: Headers, body_max: int, *, upload: bool) -> tuple[int, str, str] | None:
    """What can be said about a body before it arrives."""
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > body_max:
        return 413, "body_too_large", f"A body has at most {body_max} bytes."
    if (length not in ("", "0")) or "transfer-encoding" in headers:
        if not upload and _media_type(headers) != "application/json":
            return 415, "unsupported_media_type", "Send the body as application/json."
        if headers.get("content-encoding", "identity") != "identity":
            return 415, "unsupported_encoding", "Send the body without Content-Encoding."
        charset = _CHARSET.search(headers.get("content-type", ""))
        if not upload and charset is not None and charset[1].lower() not in ("utf-8", "utf8"):
            return 415, "unsupported_charset", "Send JSON in UTF-8, as RFC 8259 has it."
    return None


@dataclass(slots=True)
class _Exchange:
    scope: Scope
    request_id: str
    _send: Send
    _send_timeout_s: float
    _leaving: asyncio.Event
    _patience: Patience
    status: int = 0
    started: bool = False
    started_at: float = 0.0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.started_at = time.perf_counter()
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            if self._leaving.is_set():
                # So that nobody sends the next request into a connection that is about to close.
                headers["Connection"] = "close"
            for name, value in _SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if (standing := self.scope["state"].get("rate_limit")) is not None:
                for name, value in standing.headers().items():
                    headers[name] = value
        # The server waits here while the client does not read.
        wait = self._patience.begin()
        try:
            await wait.part(self._send_timeout_s, self._send(message))
        except TimeoutError:
            raise _Untaken from None
        finally:
            self._patience.end(wait)

    async def problem(self, status: int, code: str, detail: str, *, close: bool = False) -> None:
        body = problem_bytes(status, code, detail, self.request_id)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        if status in (429, 503):
            headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
        if close or status in (413, 414, 415):
            # The body was not read; what follows on this connection would be its rest.
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class _BoundedBody:
    """Counts a body as it arrives, and ends one that is too large or too slow."""

    __slots__ = (
        "_complete",
        "_deadline",
        "_max",
        "_patience",
        "_receive",
        "_shape",
        "_size",
        "_wait",
    )

    def __init__(
        self,
        receive: Receive,
        patience: Patience,
        body_max: int,
        timeout_s: float,
        shape: JsonShape | None,
    ) -> None:
        self._receive = receive
        self._patience = patience
        # None for what is no JSON: an archive has no shape.
        self._shape = shape
        self._max = body_max
        self._deadline = time.monotonic() + timeout_s
        self._size = 0
        self._complete = False
        self._wait: Wait | None = None

    async def receive(self) -> Message:
        if self._complete:
            # What comes now is the client's leaving, for which a stream waits without a limit.
            return await self._receive()
        if self._wait is None:
            self._wait = self._patience.begin()
        left_s = max(0.0, self._deadline - time.monotonic())
        try:
            message = await self._wait.part(left_s, self._receive())
        except TimeoutError:
            raise HTTPException(408, headers={"Connection": "close"}) from None
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > self._max:
                raise HTTPException(413, headers={"Connection": "close"})
            if self._shape is not None:
                self._refuse_shape(self._shape.feed(message.get("body", b"")))
            self._complete = not message.get("more_body", False)
        if self._complete:
            self.end()
        return message

    def end(self) -> None:
        """The body is there, or nobody waits for it any more."""
        if self._wait is not None:
            self._patience.end(self._wait)

    @staticmethod
    def _refuse_shape(excess: Excess | None) -> None:
        if excess is Excess.DEPTH:
            raise BodyRefused(
                422,
                "body_too_deep",
                "The body nests deeper than this server takes.",
                close=True,
            )
        if excess is Excess.VALUES:
            raise BodyRefused(
                422,
                "body_too_many_values",
                "The body holds more values than this server takes.",
                close=True,
            )


def _count(method: str, route: str, exchange: _Exchange, began: float, ended: float) -> None:
    """Time until the response began: how long a stream lasts says nothing about its speed."""
    known = method if method in _METHODS else metrics.OTHER
    metrics.API_IN_PROGRESS.number().add(-1)
    metrics.API_RESPONSES.number(known, route, str(exchange.status)).add()
    metrics.API_SECONDS.distribution(known, route).observe((exchange.started_at or ended) - began)
