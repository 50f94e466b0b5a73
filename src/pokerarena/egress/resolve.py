"""From a name to addresses that were checked.

Owns the asking of the system's resolver, bounded and away from the event loop, and the rule that
every address behind a name is judged before any is used. It opens no connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from pokerarena.egress.policy import Address, EgressDenied, EgressPolicy

Resolve = Callable[[str, int], Awaitable[tuple[Address, ...]]]


class ResolveFailed(Exception):
    """A name that led to no address in time."""


def check_resolved(
    policy: EgressPolicy,
    addresses: tuple[Address, ...],
    *,
    owns: Callable[[Address], bool],
    at_most: int,
) -> tuple[Address, ...]:
    """The addresses that may be dialled. Raises `EgressDenied` when one of them may not."""
    # Judged before it is cut: a bad address may not hide behind many good ones.
    policy.check_addresses(addresses)
    if not policy.allow_private and any(map(owns, addresses)):
        raise EgressDenied("the address belongs to the arena itself")
    return addresses[:at_most]


class SystemResolver:
    """The operating system's resolver on its own few threads, with a time limit.

    A thread that hangs in the system's resolver cannot be stopped; the pool bounds how many hang,
    and whoever waits gives up in time.
    """

    def __init__(self, timeout_ms: int, max_threads: int) -> None:
        self._timeout_ms = timeout_ms
        self._pool = ThreadPoolExecutor(max_threads, "resolve")

    async def __call__(self, host: str, port: int) -> tuple[Address, ...]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                found = await loop.run_in_executor(self._pool, _lookup, host, port)
        except TimeoutError:
            raise ResolveFailed(f"{host} was not resolved within {self._timeout_ms} ms") from None
        except (OSError, UnicodeError) as error:
            raise ResolveFailed(f"{host} cannot be resolved: {error}") from None
        return found

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _lookup(host: str, port: int) -> tuple[Address, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    # Each address once, in the order in which the system prefers them.
    return tuple(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


def is_own_address(address: Address) -> bool:
    """Whether this machine holds the address: one can bind only to one's own. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
