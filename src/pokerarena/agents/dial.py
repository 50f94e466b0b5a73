"""HTTP clients that can reach checked addresses only.

Owns the way from a host name to a connection: resolve (bounded, away from the event loop), ask the
egress policy about every address, and build a client pinned to exactly these. The client never
resolves by itself, so a name that changes its mind between check and dial (rebinding) changes
nothing. Pins expire; the name is then resolved and checked again.

It never follows redirects, reads proxies from the environment, keeps cookies or decompresses.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pyreqwest.client import Client, ClientBuilder

from pokerarena.egress.policy import Address, EgressDenied, EgressPolicy, Target
from pokerarena.egress.resolve import Resolve, SystemResolver, check_resolved, is_own_address

USER_AGENT: Final = "pokerarena"

Build = Callable[["Target", tuple[Address, ...], "DialLimits"], Client]


@dataclass(frozen=True, slots=True)
class DialLimits:
    """Bounds of everything a dialer holds or waits for."""

    connect_timeout_ms: int = 1_000
    # Shorter than the five seconds after which many servers hang up, so that we hang up first.
    idle_connection_ms: int = 4_000
    resolve_timeout_ms: int = 2_000
    max_resolver_threads: int = 8
    max_addresses: int = 8
    pin_lifetime_s: float = 60.0
    # After a refused connection the name is resolved again, but no more often than this.
    min_pin_lifetime_s: float = 1.0
    max_origins: int = 4_096


def build_pinned_client(
    target: Target, addresses: tuple[Address, ...], limits: DialLimits
) -> Client:
    """A client whose only way out is to `addresses`.

    The host of every request must be the target's: an address literal is dialled as it is written,
    and a name only has the pinned addresses.
    """
    builder = (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .default_cookie_store(False)
        .referer(False)
        .http1_only()
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .user_agent(USER_AGENT)
        .tcp_nodelay(True)
        .connect_timeout(timedelta(milliseconds=limits.connect_timeout_ms))
        .pool_idle_timeout(timedelta(milliseconds=limits.idle_connection_ms))
        .default_headers({"content-type": "application/json", "accept-encoding": "identity"})
    )
    if target.literal is None:
        for address in addresses:
            builder = builder.resolve(target.host, str(address), target.port)
    return builder.build()


@dataclass(slots=True)
class _Pin:
    client: Client
    target: Target
    addresses: tuple[Address, ...]
    checked_at_s: float
    retry_at_s: float = 0.0


class Dialer:
    """Pinned clients by origin, shared by all players of one process.

    Building a client takes milliseconds (it reads the certificate store) and each holds its own
    connections, so players with the same origin share one.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        limits: DialLimits | None = None,
        *,
        resolve: Resolve | None = None,
        build: Build = build_pinned_client,
        owns: Callable[[Address], bool] = is_own_address,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self._limits = limits or DialLimits()
        self._system = SystemResolver(
            self._limits.resolve_timeout_ms, self._limits.max_resolver_threads
        )
        self._resolve = resolve or self._system
        self._build = build
        self._owns = owns
        self._clock = clock
        self._pins: OrderedDict[tuple[str, str, int], _Pin] = OrderedDict()
        self._pinning: dict[tuple[str, str, int], asyncio.Task[Client]] = {}

    def use(self, policy: EgressPolicy) -> None:
        """Judge by this policy from now on; what it forbids is reached no more.

        The client of a forbidden pin is dropped: what is in flight may still end, within its
        deadline, and its kept connections are closed.
        """
        if policy == self.policy:
            return
        self.policy = policy
        for origin, pin in list(self._pins.items()):
            try:
                policy.target(pin.target.url)
                policy.check_addresses(pin.addresses)
            except EgressDenied:
                del self._pins[origin]

    def ready_client(self, target: Target) -> Client | None:
        """The client for this target if one is pinned already; starts its renewal when due."""
        pin = self._pins.get(target.origin)
        if pin is None:
            return None
        now_s = self._clock()
        age_s = now_s - pin.checked_at_s
        if age_s > self._limits.pin_lifetime_s:
            if age_s > 2 * self._limits.pin_lifetime_s:
                return None
            if now_s >= pin.retry_at_s:
                pin.retry_at_s = now_s + self._limits.min_pin_lifetime_s
                self._start_pinning(target)
        return pin.client

    async def client(self, target: Target) -> Client:
        """A client that can reach the target's checked addresses and nothing else.

        Raises `EgressDenied` or `ResolveFailed`.
        """
        ready = self.ready_client(target)
        if ready is not None:
            return ready
        # Shielded: whoever gives up waiting must not spoil the answer for the others.
        return await asyncio.shield(self._start_pinning(target))

    def connection_failed(self, target: Target) -> None:
        """Resolve again before long: the agent may have moved."""
        pin = self._pins.get(target.origin)
        if pin is not None:
            due_s = self._limits.pin_lifetime_s - self._limits.min_pin_lifetime_s
            pin.checked_at_s = min(pin.checked_at_s, self._clock() - due_s)

    async def close(self) -> None:
        """Close every client and its connections."""
        for task in self._pinning.values():
            task.cancel()
        pins, self._pins = self._pins, OrderedDict()
        for pin in pins.values():
            await pin.client.close()
        self._system.close()

    def _start_pinning(self, target: Target) -> asyncio.Task[Client]:
        task = self._pinning.get(target.origin)
        if task is None:
            task = asyncio.create_task(self._pin(target), name=f"pin {target.host}")
            self._pinning[target.origin] = task
            task.add_done_callback(lambda done: self._pinned(target, done))
        return task

    def _pinned(self, target: Target, done: asyncio.Task[Client]) -> None:
        self._pinning.pop(target.origin, None)
        if not done.cancelled():
            done.exception()  # Whoever waits has it; with nobody waiting it is not news.

    async def _pin(self, target: Target) -> Client:
        while True:
            policy = self.policy
            client = await self._pin_under(policy, target)
            # One that was judged by a policy that holds no more is judged again.
            if policy is self.policy:
                return client

    async def _pin_under(self, policy: EgressPolicy, target: Target) -> Client:
        try:
            addresses = await self._checked_addresses(policy, target)
        except EgressDenied:
            self._pins.pop(target.origin, None)
            raise
        pin = self._pins.get(target.origin)
        if pin is None or set(pin.addresses) != set(addresses):
            client = await asyncio.to_thread(self._build, target, addresses, self._limits)
            if policy is not self.policy:
                return client
            # The former client is dropped, not closed: requests in flight may still end.
            pin = _Pin(client, target, addresses, self._clock())
            self._pins[target.origin] = pin
        pin.checked_at_s = self._clock()
        self._pins.move_to_end(target.origin)
        while len(self._pins) > self._limits.max_origins:
            self._pins.popitem(last=False)
        return pin.client

    async def _checked_addresses(self, policy: EgressPolicy, target: Target) -> tuple[Address, ...]:
        policy.target(target.url)
        if target.literal is not None:
            addresses: tuple[Address, ...] = (target.literal,)
        else:
            addresses = await self._resolve(target.host, target.port)
        return check_resolved(
            policy, addresses, owns=self._owns, at_most=self._limits.max_addresses
        )
