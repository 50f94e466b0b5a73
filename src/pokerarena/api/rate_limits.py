"""How many requests whoever may make: by address, by user, by token, and by class of endpoint.

Owns the classes and the counting. An address is counted before anything is looked up, a user and a
token once they are known. Windows move, so that no minute has more than its limit, wherever it
begins; with a shared store that holds over all API processes. When that store is away requests are
let through: it guards against abuse and is not worth an outage. It must never keep an address or an
id in a metric.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, NamedTuple

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter

from pokerarena import metrics
from pokerarena.api.addresses import client_address
from pokerarena.auth.permissions import Principal
from pokerarena.errors import ConfigurationError, Throttled
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger

log = get_logger("api.rate_limits")

WINDOW_S: Final = 60
STORE_TIMEOUT_S: Final = 0.5
STORE_PAUSE_S: Final = 1.0
LOGGED_EVERY_S: Final = 10.0
LOGGED_KEYS_MAX: Final = 10_000


class EndpointClass(StrEnum):
    """What a request costs, or what it can be abused for."""

    FREE = "free"
    READ = "read"
    EXPENSIVE = "expensive"
    WRITE = "write"
    AUTH = "auth"
    STREAM = "stream"


# Routes whose method does not say it. What is not named here is a read or a write.
CLASSES: Final[dict[tuple[str, str], EndpointClass]] = {
    ("GET", "/healthz"): EndpointClass.FREE,
    ("GET", "/readyz"): EndpointClass.FREE,
    ("GET", "/openapi.json"): EndpointClass.EXPENSIVE,
    ("GET", "/docs"): EndpointClass.EXPENSIVE,
    # Taking an archive apart costs, and each upload is checked by playing.
    ("POST", "/v1/agents/{agent_id}/versions"): EndpointClass.EXPENSIVE,
    ("POST", "/v1/auth/register"): EndpointClass.AUTH,
    ("POST", "/v1/auth/login"): EndpointClass.AUTH,
    ("POST", "/v1/auth/providers/{provider_id}/login"): EndpointClass.AUTH,
    ("GET", "/v1/auth/providers/{provider_id}/callback"): EndpointClass.AUTH,
    ("POST", "/v1/auth/federated"): EndpointClass.AUTH,
    ("GET", "/v1/runs/{run_id}/results"): EndpointClass.EXPENSIVE,
    ("GET", "/v1/runs/{run_id}/hands"): EndpointClass.EXPENSIVE,
    ("GET", "/v1/hands/{hand_id}/replay"): EndpointClass.EXPENSIVE,
    ("GET", "/v1/tables/{table_id}/live"): EndpointClass.STREAM,
}


class Standing(NamedTuple):
    """Where a caller stands within the limit that is told to them."""

    name: str
    limit: int
    left: int
    resets_in_s: int

    def headers(self) -> dict[str, str]:
        """As the IETF draft has it."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"{self.name}";r={self.left};t={self.resets_in_s}',
        }


def class_of(method: str, path: str) -> EndpointClass:
    """The class of a route, given by its template."""
    found = CLASSES.get((method, path))
    if found is not None:
        return found
    return EndpointClass.READ if method in ("GET", "HEAD") else EndpointClass.WRITE


class RateLimits:
    """The limits of one API process, shared with others where the store is."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = {
            EndpointClass.READ: settings.rate_read_per_min,
            EndpointClass.EXPENSIVE: settings.rate_expensive_per_min,
            EndpointClass.WRITE: settings.rate_write_per_min,
            EndpointClass.AUTH: settings.rate_auth_per_min,
            EndpointClass.STREAM: settings.rate_stream_per_min,
        }
        self._limiter = MovingWindowRateLimiter(_store(settings))
        self._away_until_s = 0.0
        self._logged: dict[str, float] = {}

    async def admit_address(self, request: Request, path: str) -> None:
        """Count the request for where it comes from. Raises `Throttled`."""
        endpoints = class_of(request.method, path)
        # Many people may share an address, but one that logs in that often is guessing.
        shared = 1 if endpoints is EndpointClass.AUTH else self._settings.rate_address_factor
        address = client_address(request, self._settings)
        await self._admit(request, endpoints, "address", address, shared, told=True)

    async def admit_caller(self, request: Request, path: str, caller: Principal) -> None:
        """Count it for the user and the token, session or link. Raises `Throttled`."""
        endpoints = class_of(request.method, path)
        if caller.user_id is not None:
            # All tokens of a user together have twice what one has.
            await self._admit(request, endpoints, "user", str(caller.user_id), 2, told=False)
        credential = caller.token_id or caller.session_id
        if credential is not None:
            await self._admit(request, endpoints, "token", str(credential), 1, told=True)

    async def _admit(
        self,
        request: Request,
        endpoints: EndpointClass,
        by: str,
        who: str,
        factor: int,
        *,
        told: bool,
    ) -> None:
        limit = self._limits.get(endpoints, 0) * factor
        if not limit or time.monotonic() < self._away_until_s:
            return
        item = RateLimitItemPerMinute(limit)
        key = (by, endpoints.value, who)
        with self._surviving():
            admitted = await self._limiter.hit(item, *key)
            if admitted and not told:
                return
            window = await self._limiter.get_window_stats(item, *key)
            resets_in_s = max(1, round(window.reset_time - time.time()))
            standing = Standing(endpoints.value, limit, window.remaining, resets_in_s)
            request.state.rate_limit = standing
            if not admitted:
                self._refuse(endpoints, by, who, standing)

    def _refuse(self, endpoints: EndpointClass, by: str, who: str, standing: Standing) -> None:
        metrics.RATE_LIMITED.number(endpoints.value, by).add()
        now_s = time.monotonic()
        key = f"{by} {endpoints.value} {who}"
        if now_s >= self._logged.get(key, 0.0):
            if len(self._logged) >= LOGGED_KEYS_MAX:
                self._logged.clear()
            self._logged[key] = now_s + LOGGED_EVERY_S
            log.warning("rate_limited", endpoint_class=endpoints.value, by=by, limit=standing.limit)
        raise Throttled(
            "rate_limited",
            f"At most {standing.limit} requests of the class '{standing.name}' in {WINDOW_S} s; "
            "slow down, and watch the RateLimit header.",
            retry_after_s=standing.resets_in_s,
        )

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except Throttled:
            raise
        except Exception as error:  # whatever the store's client raises, it is the store's
            self._away_until_s = time.monotonic() + STORE_PAUSE_S
            log.error("rate_limit_store_lost", why=type(error).__name__)


def _store(settings: Settings) -> Storage:
    url = settings.rate_limit_store.get_secret_value()
    if url == "memory://":
        return MemoryStorage()
    scheme, _, rest = url.partition("://")
    # Valkey speaks the same protocol.
    if scheme.removeprefix("valkey") == scheme and scheme.removeprefix("redis") == scheme:
        raise ConfigurationError(
            "POKERARENA_RATE_LIMIT_STORE must begin with memory://, redis://, rediss://, "
            "valkey:// or valkeys://"
        )
    return RedisStorage(
        f"async+{scheme.replace('valkeys', 'rediss').replace('valkey', 'redis')}://{rest}",
        implementation="redispy",
        key_prefix="pokerarena",
        socket_timeout=STORE_TIMEOUT_S,
        socket_connect_timeout=STORE_TIMEOUT_S,
    )
