"""Where callbacks may go: the guard against agents that point the arena at somebody else.

Owns the judgement over URLs, host names and addresses. It opens no connection and asks no
resolver; `agents.dial` resolves, asks here, and pins what it may dial.

URLs are read strictly: whatever could be read in two ways is refused. `127.1`, `2130706433`, `0x7f.1`
and full-width digits all mean an address to one program or another, and none of them is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final
from urllib.parse import quote

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_CHARS: Final = 2_048
_MAX_HOST_CHARS: Final = 253
_MAX_LABEL_CHARS: Final = 63
# Other scripts have become punycode by then.
_HOST_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<authority>[^/?#]*)"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?P<fragment>#.*)?"
)
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?"
)
# What some programs read as the last part of an IPv4 address.
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH_CHARS: Final = "%/?:@!$&'()*+,;=-._~"


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
    """A callback URL taken apart. `host` is as in a `Host` header, IPv6 in brackets."""

    scheme: str
    host: str
    port: int
    path: str
    """What follows the authority, query included."""
    literal: Address | None
    """The address, where the URL has one instead of a name."""

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
        parts = _URL.fullmatch(url)
        if parts is None:
            raise EgressDenied("not a URL; expected something like https://agent.example.com/play")
        scheme = parts["scheme"].lower()
        if scheme not in self.schemes or scheme not in _DEFAULT_PORTS:
            wanted = " or ".join(sorted(self.schemes & _DEFAULT_PORTS.keys()))
            raise EgressDenied(f"the scheme {scheme!r} is not allowed; use {wanted}")
        if "@" in parts["authority"]:
            raise EgressDenied("the URL carries a user name or password; remove it")
        if parts["fragment"] is not None:
            raise EgressDenied("the URL carries a fragment; remove the part after '#'")
        authority = _AUTHORITY.fullmatch(parts["authority"])
        if authority is None:
            raise EgressDenied("the host or port of the URL is malformed")
        port = int(authority["port"] or _DEFAULT_PORTS[scheme])
        if not any(low <= port <= high for low, high in self.port_ranges):
            raise EgressDenied(f"port {port} is not allowed")
        host, literal = _host(authority["ipv6"], authority["name"])
        if literal is None:
            self._check_domain(host)
        else:
            if self.allowed_domains:
                raise EgressDenied("an address instead of a name is not allowed here")
            self.check_address(literal)
        path = quote((parts["path"] or "/") + (parts["query"] or ""), safe=_PATH_CHARS)
        return Target(scheme, host, port, path, literal)

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
        # Said at registration already: such a name can only ever mean this machine.
        if (host == "localhost" or host.endswith(".localhost")) and not self.allow_private:
            raise EgressDenied("the host is this machine itself, which is a private address")
        if _is_under(host, self.denied_domains):
            raise EgressDenied("the operator denies this host")
        if self.allowed_domains and not _is_under(host, self.allowed_domains):
            raise EgressDenied("the host is not on the operator's list of allowed hosts")


def _host(ipv6: str | None, name: str) -> tuple[str, Address | None]:
    """The host in its one accepted spelling, and its address where it is one."""
    if ipv6 is not None:
        try:
            address = IPv6Address(ipv6)
        except ValueError:
            raise EgressDenied("the IPv6 address of the URL is malformed") from None
        return f"[{address}]", address
    if not name:
        raise EgressDenied("the URL has no host")
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise EgressDenied("the host name is not a valid international name") from None
    host = name.lower()
    if len(host) > _MAX_HOST_CHARS:
        raise EgressDenied("the host name is too long")
    labels = host.split(".")
    if labels[-1] == "":
        raise EgressDenied("the host name ends in a dot; write it without")
    if not all(labels) or any(len(label) > _MAX_LABEL_CHARS for label in labels):
        raise EgressDenied("the host name has an empty or too long part")
    if not _HOST_CHARS.issuperset(host):
        raise EgressDenied("the host name has characters other than letters, digits, - and _")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        try:
            return host, IPv4Address(host)
        except ValueError:
            raise EgressDenied("an IPv4 address is written as four decimal numbers") from None
    return host, None


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_under(host: str, domains: Iterable[str]) -> bool:
    return any(host == domain or host.endswith("." + domain) for domain in domains)
