"""A small client of our own HTTP API, for the commands that talk to a running arena.

Owns: JSON over one connection at a time, problems turned into sentences, server-sent events, and
trying again: every change carries an ``Idempotency-Key``, so that sending it twice does it once.
Must never: follow a redirect (a token would go along), or keep a token or a password anywhere but
in memory.
"""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from pokerarena.errors import ArenaError, ConfigurationError, Invalid, NotFound, Unavailable
from pokerarena.retrying import RetryPolicy

TIMEOUT_S: Final = 30.0
RETRIES: Final = RetryPolicy(base_s=0.1, cap_s=2.0, attempts_max=4)
# Longer than this we do not wait because a server asks for it.
RETRY_AFTER_MAX_S: Final = 5.0
CHANGING_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# A live stream says something at least this often, if only that it is alive.
SILENCE_MAX_S: Final = 60.0
# The part of an access token's life after which the next one is asked for.
REFRESHED_AFTER: Final = 0.7
BODY_MAX_BYTES: Final = 16 * 1024 * 1024
LINE_MAX_BYTES: Final = 1024 * 1024


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: Any


class _Answer(NamedTuple):
    """What came back of one exchange."""

    status: int
    body: bytes
    retry_after_s: float

    @property
    def worth_trying_again(self) -> bool:
        """Whether the server was only not able to now."""
        if self.status in (http.client.SERVICE_UNAVAILABLE, http.client.TOO_MANY_REQUESTS):
            return True
        return self.status == http.client.CONFLICT and b'"idempotency_in_progress"' in self.body

    def value(self) -> Any:
        """The answer's document; raises what its problem says."""
        if not http.client.OK <= self.status < http.client.MULTIPLE_CHOICES:
            raise _problem(self.status, self.body)
        return json.loads(self.body) if self.body else None


class ApiClient:
    """Speaks to the arena at `address`, with a token once logged in."""

    def __init__(self, address: str, *, token: str | None = None) -> None:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigurationError(
                f"{address} is no address of an arena: give one like http://127.0.0.1:8080."
            )
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port
        self._base = parts.path.rstrip("/")
        self._token = token
        self._refresh_token: str | None = None
        self._refresh_at = 0.0
        self._credentials: dict[str, str] = {}

    def login(self, username: str, password: str) -> None:
        """Begins a session for the calls that follow."""
        self._credentials = {"username": username, "password": password}
        self._take(self.post("/v1/auth/login", self._credentials))

    def _take(self, granted: Any) -> None:
        self._token, self._refresh_token = granted["access_token"], granted["refresh_token"]
        lives = datetime.fromisoformat(granted["expires_at"]) - datetime.now(UTC)
        self._refresh_at = time.monotonic() + lives.total_seconds() * REFRESHED_AFTER

    def _keep_session(self) -> None:
        """Refreshes the session before its access token expires.

        Where the answer to a refresh was lost, its token is used up and the next one unknown: then
        a new session begins.
        """
        if self._refresh_token is None or time.monotonic() < self._refresh_at:
            return
        before = self._token, self._refresh_token
        # The calls below are made without them, and must not come here again.
        self._token = self._refresh_token = None
        try:
            try:
                granted = self.post("/v1/auth/refresh", {"refresh_token": before[1]})
            except Invalid:
                granted = self.post("/v1/auth/login", self._credentials)
        except ArenaError:
            self._token, self._refresh_token = before
            raise
        self._take(granted)

    def get(self, path: str, **query: Any) -> Any:
        if query:
            path += "?" + "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
        return self._call("GET", path, None)

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, body)

    def upload(self, path: str, archive: bytes) -> Any:
        """Sends a tar.gz as the whole body."""
        return self._call("POST", path, archive)

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, body)

    def items(self, path: str, **query: Any) -> Iterator[Any]:
        """Everything of a list, page after page."""
        page = self.get(path, **query)
        while True:
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            page = self.get(path, **query, cursor=page["next_cursor"])

    def events(self, path: str) -> Iterator[Event]:
        """A live stream, until the server ends it."""
        self._keep_session()
        connection = self._connect(SILENCE_MAX_S)
        try:
            with self._unreachable_said():
                connection.request(
                    "GET", self._base + path, headers=self._headers({"Accept": "text/event-stream"})
                )
                response = connection.getresponse()
                if response.status != http.client.OK:
                    raise _problem(response.status, response.read(BODY_MAX_BYTES))
                yield from _parse_events(response)
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: Any) -> Any:
        self._keep_session()
        headers = self._headers({"Accept": "application/json"})
        content: bytes | None = None
        if isinstance(body, bytes):
            content = body
            headers["Content-Type"] = "application/gzip"
        elif body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if method in CHANGING_METHODS:
            headers["Idempotency-Key"] = str(uuid.uuid4())
        failures = 0
        while True:
            answer: _Answer | None = None
            unreachable: Unavailable | None = None
            try:
                answer = self._exchange(method, path, content, headers)
            except Unavailable as error:
                unreachable = error
            if answer is not None and not answer.worth_trying_again:
                return answer.value()
            failures += 1
            pause_s = RETRIES.pause_s(failures)
            if pause_s is None:
                if unreachable is not None:
                    raise unreachable
                assert answer is not None
                return answer.value()
            if answer is not None:
                pause_s += min(answer.retry_after_s, RETRY_AFTER_MAX_S)
            time.sleep(pause_s)

    def _exchange(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> _Answer:
        connection = self._connect(TIMEOUT_S)
        try:
            with self._unreachable_said():
                connection.request(method, self._base + path, body=content, headers=headers)
                response = connection.getresponse()
                body = response.read(BODY_MAX_BYTES)
                after = response.getheader("Retry-After") or ""
                return _Answer(response.status, body, float(after) if after.isdecimal() else 0.0)
        finally:
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=timeout_s)

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return more if self._token is None else {**more, "Authorization": f"Bearer {self._token}"}

    def _unreachable_said(self) -> _UnreachableSaid:
        return _UnreachableSaid(self.address)


class _UnreachableSaid:
    """Turns what the network does into a sentence."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (OSError, http.client.HTTPException)):
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unavailable(
                "arena_unreachable",
                f"No arena answers at {self._address} ({reason}): start one with 'pokerarena up', "
                "or give its address.",
            ) from None


def _problem(status: int, body: bytes) -> Exception:
    try:
        problem = json.loads(body)
        text = str(problem["detail"])
        code = str(problem["code"])
    except (ValueError, KeyError, TypeError):
        return Unavailable("no_arena", f"The answer (status {status}) is not that of an arena.")
    if status == http.client.NOT_FOUND and text.startswith("There is no such "):
        return NotFound(text.removeprefix("There is no such ").partition(",")[0])
    fields = "; ".join(
        f"{error.get('field')}: {error.get('message')}" for error in problem.get("errors", [])
    )
    return Invalid(code, f"{text} {fields}".strip())


def _parse_events(response: http.client.HTTPResponse) -> Iterator[Event]:
    name, data = "message", list[str]()
    while line := response.readline(LINE_MAX_BYTES):
        text = line.decode(errors="replace").rstrip("\r\n")
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if text.startswith(":"):
            yield Event("keep-alive", None)
        elif not text:
            if data:
                yield Event(name, json.loads("\n".join(data)))
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
