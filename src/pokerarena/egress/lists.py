"""One rule of the operators' lists, and the lists that rules make.

Owns the spelling of a rule: whatever is stored has one, and is spelt as the policy compares it. It
touches no database.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from ipaddress import ip_network
from typing import Final, NamedTuple

from pokerarena.egress.policy import EgressDenied, EgressLists, EgressPolicy, Network
from pokerarena.errors import Invalid

SCHEMES: Final = ("http", "https")
PORT_MAX: Final = 65_535
# Whether a name is one is for the policy to say; nothing else of a URL matters here.
_ANY_HOST: Final = EgressPolicy(allow_private=True, schemes=frozenset({"https"}))


class Effect(StrEnum):
    """What a rule does. What is denied is denied, whatever is allowed."""

    ALLOW = "allow"
    DENY = "deny"


class RuleKind(StrEnum):
    """What a rule is about."""

    DOMAIN = "domain"
    SCHEME = "scheme"
    PORT = "port"
    NETWORK = "network"


class Rule(NamedTuple):
    """One entry of the lists, in its one spelling."""

    effect: Effect
    kind: RuleKind
    value: str


def parse_rule(effect: Effect, kind: RuleKind, value: str) -> Rule:
    """The rule in its one spelling. Raises `Invalid` with what is allowed instead."""
    text = value.strip()
    if kind is RuleKind.DOMAIN:
        return Rule(effect, kind, _domain(text))
    if kind is RuleKind.SCHEME:
        if text.lower() not in SCHEMES:
            raise _invalid("a scheme is http or https")
        return Rule(effect, kind, text.lower())
    if kind is RuleKind.PORT:
        low, high = _ports(text)
        return Rule(effect, kind, str(low) if low == high else f"{low}-{high}")
    if effect is Effect.ALLOW:
        raise _invalid(
            "networks can be denied only; whether private addresses are allowed is a setting"
        )
    return Rule(effect, kind, str(_network(text)))


def lists_of(rules: Iterable[Rule]) -> EgressLists:
    """The lists that these rules make."""
    found: dict[tuple[Effect, RuleKind], list[str]] = {}
    for rule in rules:
        found.setdefault((rule.effect, rule.kind), []).append(rule.value)

    def texts(effect: Effect, kind: RuleKind) -> frozenset[str]:
        return frozenset(found.get((effect, kind), ()))

    def ports(effect: Effect) -> tuple[tuple[int, int], ...]:
        return tuple(sorted(map(_ports, found.get((effect, RuleKind.PORT), ()))))

    return EgressLists(
        allowed_domains=texts(Effect.ALLOW, RuleKind.DOMAIN),
        denied_domains=texts(Effect.DENY, RuleKind.DOMAIN),
        allowed_schemes=texts(Effect.ALLOW, RuleKind.SCHEME),
        denied_schemes=texts(Effect.DENY, RuleKind.SCHEME),
        allowed_ports=ports(Effect.ALLOW),
        denied_ports=ports(Effect.DENY),
        denied_networks=tuple(
            ip_network(value) for value in sorted(texts(Effect.DENY, RuleKind.NETWORK))
        ),
    )


def _domain(text: str) -> str:
    dot = "." if text.startswith(".") else ""
    try:
        # Read as callbacks are read: capitals and other scripts become what is compared.
        target = _ANY_HOST.target(f"https://{text.removeprefix('.')}:443/")
    except EgressDenied as denied:
        raise _invalid(
            f"a domain is a name such as api.example.org, or .example.org for it and all below "
            f"({denied})"
        ) from None
    if target.literal is not None:
        raise _invalid("this is an address; deny it as a network, such as 192.0.2.7/32")
    if target.url != f"https://{target.host}/":
        raise _invalid("a domain is a name alone, without scheme, port or path")
    return dot + target.host


def _ports(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    bounds = (low, high if dash else low)
    if not all(bound.isascii() and bound.isdigit() and len(bound) <= 5 for bound in bounds):
        raise _invalid("a port is a number such as 443, or a range such as 8000-8999")
    first, last = int(bounds[0]), int(bounds[1])
    if not 1 <= first <= last <= PORT_MAX:
        raise _invalid(f"ports are 1 to {PORT_MAX}, and a range goes upwards")
    return first, last


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise _invalid(f"a network is written as 192.0.2.0/24 or 2001:db8::/32 ({error})") from None


def _invalid(why: str) -> Invalid:
    return Invalid("egress_rule_invalid", f"{why[0].upper()}{why[1:]}.", field="value")
