"""Where a request comes from, as far as that can be known.

What a client writes into X-Forwarded-For is believed only from the proxies that the settings name,
and only back to the first address that is none of them. This module must never trust a header
beyond that.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from starlette.requests import HTTPConnection

from pokerarena.settings import Settings

FORWARDED_MAX = 20


def client_address(request: HTTPConnection, settings: Settings) -> str:
    """The client's address; an empty text where there is none."""
    address = request.client.host if request.client is not None else ""
    if not settings.api_trusted_proxies:
        return address
    forwarded = request.headers.get("x-forwarded-for", "").split(",")[-FORWARDED_MAX:]
    while _is_trusted(address, settings) and forwarded:
        nearer = forwarded.pop().strip()
        try:
            ip_address(nearer)
        except ValueError:
            break
        address = nearer
    return address


def _is_trusted(address: str, settings: Settings) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(
        parsed.version == network.version and parsed in network
        for network in map(ip_network, settings.api_trusted_proxies)
    )
