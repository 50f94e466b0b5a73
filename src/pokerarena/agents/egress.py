"""Where callbacks may go: the guard against agents that point the arena at somebody else.

Owns the judgement over URLs, host names and addresses. It opens no connection and asks no
resolver; `agents.dial` resolves, asks here, and pins what it may dial.

URLs are read with the parser of the HTTP client that dials them. A second parser would be a hole:
whatever the two read differently (`2130706433`, `0x7f.1`, full-width digits, backslashes) could be
checked as one host and dialled as another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from pyreqwest.http import Url

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_CHARS: Final = 2_048
_MAX_HOST_CHARS: Final = 253
# By now the parser has turned other scripts into punycode.
_HOST_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


# Services that hand out credentials of the machine. Denied even where private ranges are allowed,
# and also where they hide in a range that is otherwise public or allowed.
_METADATA = _networks(
    "168.63.129.16/32",  # Azure
    "100.100.100.200/32",  # Alibaba
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::/32",  # AWS
    "fd20:ce::254/128",  # Google
)
# An operator may open these for agents on the same machine or network.
_PRIVATE = _networks(
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
)
# Never a callback's destination. `is_global` of the standard library is true for several of them.
_NEVER = _networks(
    "0.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
# IPv6 outside global unicast space is unassigned or special; what is not listed above is denied.
_GLOBAL_IPV6 = IPv6Network("2000::/3")


class EgressDenied(Exception):
    """A destination the policy refuses; the message says why without telling what is behind it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A callback URL taken apart by the parser that will dial it."""

    url: str
    scheme: str
    host: str
    port: int
    literal: Address | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """What connections may be shared over."""
        return (self.scheme, self.host, self.port)


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Which destinations an operator allows. The default admits public addresses only."""

    allow_private: bool = False
    schemes: frozenset[str] = frozenset({"http", "https"})
    # Below 1024 only the web's own ports: a callback must not speak to a mail server or a shell.
    port_ranges: tuple[tuple[int, int], ...] = ((80, 80), (443, 443), (1024, 65535))
    # A name stands for itself and everything below it. An empty allow list admits every name.
    allowed_domains: frozenset[str] = frozenset()
    denied_domains: frozenset[str] = frozenset()
    denied_networks: tuple[Network, ...] = ()

    def check_url(self, url: str) -> list[str]:
        """Everything wrong with a callback URL, as sentences; empty when it may be registered.

        Nothing is resolved: whether the addresses behind a name are allowed is checked each time
        before a connection is opened.
        """
        try:
            self.target(url)
        except EgressDenied as denied:
            return [str(denied)]
        return []

    def target(self, url: str) -> Target:
        """The URL taken apart, or `EgressDenied` with what is wrong with it."""
        if len(url) > MAX_URL_CHARS:
            raise EgressDenied(f"the URL is longer than {MAX_URL_CHARS} characters")
        if any(char.isspace() or not char.isprintable() for char in url):
            raise EgressDenied("the URL contains spaces or control characters")
        if "\\" in url:
            raise EgressDenied("the URL contains a backslash")
        try:
            parsed = Url(url)
        except ValueError as error:
            raise EgressDenied(f"not a URL: {error}") from None
        if parsed.scheme not in self.schemes:
            wanted = " or ".join(sorted(self.schemes))
            raise EgressDenied(f"the scheme {parsed.scheme!r} is not allowed; use {wanted}")
        host, port = parsed.host_str, parsed.port_or_known_default
        if host is None or port is None:
            raise EgressDenied("the URL has no host")
        # The parser drops an empty user ("http://@host/"), so the text is looked at as well.
        authority = url.split("://", 1)[-1].split("/", 1)[0].split("?", 1)[0].split("#", 1)[0]
        if parsed.username or parsed.password is not None or "@" in authority:
            raise EgressDenied("the URL carries a user name or password; remove it")
        if parsed.fragment is not None:
            raise EgressDenied("the URL carries a fragment; remove the part after '#'")
        if not any(low <= port <= high for low, high in self.port_ranges):
            raise EgressDenied(f"port {port} is not allowed")
        literal = None
        if parsed.domain is None:
            literal = ip_address(host.strip("[]"))
            if self.allowed_domains:
                raise EgressDenied("an address instead of a name is not allowed here")
            self.check_address(literal)
        else:
            self._check_domain(host)
        return Target(str(parsed), parsed.scheme, host, port, literal)

    def check_addresses(self, addresses: Iterable[Address]) -> None:
        """Raise unless every address is allowed: one bad address condemns the name."""
        empty = True
        for address in addresses:
            empty = False
            self.check_address(address)
        if empty:
            raise EgressDenied("the name has no address")

    def check_address(self, address: Address) -> None:
        """Raise `EgressDenied` unless callbacks may be sent to this address."""
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                raise EgressDenied("an address with a zone is not allowed")
            if address.ipv4_mapped is not None:
                address = address.ipv4_mapped
        if _within(address, self.denied_networks):
            raise EgressDenied("the operator denies this address")
        reserved = "the address is reserved and never a callback's destination"
        if _within(address, _METADATA):
            raise EgressDenied(reserved)
        if _within(address, _PRIVATE):
            if not self.allow_private:
                raise EgressDenied("the address is private, which the operator does not allow")
        elif _within(address, _NEVER) or (address.version == 6 and address not in _GLOBAL_IPV6):
            raise EgressDenied(reserved)

    def _check_domain(self, host: str) -> None:
        if len(host) > _MAX_HOST_CHARS:
            raise EgressDenied("the host name is too long")
        labels = host.split(".")
        if labels[-1] == "":
            raise EgressDenied("the host name ends in a dot; write it without")
        if not all(labels) or any(len(label) > 63 for label in labels):
            raise EgressDenied("the host name has an empty or too long part")
        if not _HOST_CHARS.issuperset(host):
            raise EgressDenied("the host name has characters other than letters, digits, - and _")
        # Said at registration already: such a name can only ever mean this machine.
        if labels[-1] == "localhost" and not self.allow_private:
            raise EgressDenied("the host is this machine itself, which is a private address")
        if _is_under(host, self.denied_domains):
            raise EgressDenied("the operator denies this host")
        if self.allowed_domains and not _is_under(host, self.allowed_domains):
            raise EgressDenied("the host is not on the operator's list of allowed hosts")


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_under(host: str, domains: Iterable[str]) -> bool:
    return any(host == domain or host.endswith("." + domain) for domain in domains)
