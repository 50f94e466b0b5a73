"""Where traffic may go: the guard against agents that point the arena at somebody else.

Owns the judgement over URLs, host names and addresses, for callbacks and for hosted agents alike.
It opens no connection and asks no resolver; `agents.dial` and `egress.tunnels` resolve, ask here,
and dial what was checked.

URLs are read with the parser of the HTTP client that dials them. A second parser would be a hole:
whatever the two read differently (`2130706433`, `0x7f.1`, full-width digits, backslashes) could be
checked as one host and dialled as another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from pyreqwest.http import Url

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
PortRanges = tuple[tuple[int, int], ...]

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
class EgressLists:
    """What operators allow and deny at run time.

    A domain is one name, or with a leading dot a name and everything below it. Empty lists of what
    is allowed say nothing.
    """

    allowed_domains: frozenset[str] = frozenset()
    denied_domains: frozenset[str] = frozenset()
    allowed_schemes: frozenset[str] = frozenset()
    denied_schemes: frozenset[str] = frozenset()
    allowed_ports: PortRanges = ()
    denied_ports: PortRanges = ()
    denied_networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Which destinations an operator allows. The default admits public addresses only.

    The fields are the frame that a deployment sets; `lists` narrow it and never widen it. What
    either denies is denied.
    """

    allow_private: bool = False
    schemes: frozenset[str] = frozenset({"http", "https"})
    # Below 1024 only the web's own ports: a callback must not speak to a mail server or a shell.
    port_ranges: PortRanges = ((80, 80), (443, 443), (1024, 65535))
    # An empty allow list admits every name.
    allowed_domains: frozenset[str] = frozenset()
    denied_domains: frozenset[str] = frozenset()
    denied_networks: tuple[Network, ...] = ()
    lists: EgressLists = field(default_factory=EgressLists)

    def narrowed(self, lists: EgressLists) -> EgressPolicy:
        """The same frame with other lists."""
        return replace(self, lists=lists)

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
        if not self.allows_scheme(parsed.scheme):
            wanted = " or ".join(sorted(filter(self.allows_scheme, self.schemes))) or "none"
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
        self._check_port(port)
        literal = None
        if parsed.domain is None:
            literal = ip_address(host.strip("[]"))
            if self.allowed_domains or self.lists.allowed_domains:
                raise EgressDenied("an address instead of a name is not allowed here")
            self.check_address(literal)
        else:
            self._check_domain(host)
        return Target(str(parsed), parsed.scheme, host, port, literal)

    def allows_scheme(self, scheme: str) -> bool:
        """Whether the scheme is allowed, by the frame and by the lists."""
        lists = self.lists
        return (
            scheme in self.schemes
            and scheme not in lists.denied_schemes
            and (not lists.allowed_schemes or scheme in lists.allowed_schemes)
        )

    def check_host(self, host: str, port: int) -> None:
        """Raise `EgressDenied` unless a hosted version may be let to this name and port."""
        if not (self.allows_scheme("https") or self.allows_scheme("http")):
            raise EgressDenied("no scheme is allowed")
        self._check_port(port)
        self._check_domain(host)

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
        if _within(address, self.denied_networks) or _within(address, self.lists.denied_networks):
            raise EgressDenied("the operator denies this address")
        reserved = "the address is reserved and never a callback's destination"
        if _within(address, _METADATA):
            raise EgressDenied(reserved)
        if _within(address, _PRIVATE):
            if not self.allow_private:
                raise EgressDenied("the address is private, which the operator does not allow")
        elif _within(address, _NEVER) or (address.version == 6 and address not in _GLOBAL_IPV6):
            raise EgressDenied(reserved)

    def _check_port(self, port: int) -> None:
        if _between(port, self.lists.denied_ports):
            raise EgressDenied(f"the operator denies port {port}")
        allowed = self.lists.allowed_ports
        if not _between(port, self.port_ranges) or (allowed and not _between(port, allowed)):
            raise EgressDenied(f"port {port} is not allowed")

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
        lists = self.lists
        if _is_listed(host, self.denied_domains) or _is_listed(host, lists.denied_domains):
            raise EgressDenied("the operator denies this host")
        for allowed in (self.allowed_domains, lists.allowed_domains):
            if allowed and not _is_listed(host, allowed):
                raise EgressDenied("the host is not on the operator's list of allowed hosts")


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _between(port: int, ranges: PortRanges) -> bool:
    return any(low <= port <= high for low, high in ranges)


def _is_listed(host: str, domains: frozenset[str]) -> bool:
    """Whether a list names the host, or something above it with a dot."""
    if host in domains:
        return True
    labels = host.split(".")
    return any("." + ".".join(labels[start:]) in domains for start in range(len(labels)))
