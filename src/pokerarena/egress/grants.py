"""What a worker lets one sandbox reach, in words that only a worker can write.

Owns the grant: which hosts a version may reach in a run, for a minute. It is signed with the key of
the workers' service tokens and names the agent-host whose proxy may believe it; an agent, and even an
agent-host, can pass one on and neither make nor change one.
"""

from __future__ import annotations

import math
from ipaddress import ip_network
from typing import Final, NamedTuple, Protocol, TypeGuard

from pokerarena.egress.policy import EgressDenied, EgressLists, EgressPolicy
from pokerarena.errors import Unauthenticated
from pokerarena.service_identity.keys import KeySet, ServiceName
from pokerarena.service_identity.tokens import ServiceIdentity, TokenJudge, audience_of
from pokerarena.watched_file import Source

TYPE: Final = "pokerarena-egress+jwt"
LIFETIME_S: Final = 60
# Sixteen hosts of a manifest, and every network that operators may deny.
MAX_GRANT_BYTES: Final = 1024 * 1024


class EgressGrant(NamedTuple):
    """The hosts that one version may reach in one run."""

    version_id: str
    run_id: str
    # As "host:port". Nothing else is reached, whatever it resolves to.
    hosts: frozenset[str]
    # Whether what is not TLS may pass.
    plain: bool
    denied_networks: tuple[str, ...] = ()

    def policy(self, frame: EgressPolicy) -> EgressPolicy:
        """The proxy's own frame, narrowed by the networks that operators deny."""
        networks = tuple(map(ip_network, self.denied_networks))
        return frame.narrowed(EgressLists(denied_networks=networks))


class GrantSource(Protocol):
    """Whoever knows what a sandbox may reach at this moment."""

    def grant(self) -> EgressGrant | None:
        """None when it may reach nothing."""


def signed(identity: ServiceIdentity, host: str, source: GrantSource | None) -> str:
    """The grant of this moment for one agent-host's proxy; empty when nothing is granted."""
    grant = source.grant() if source is not None else None
    if grant is None:
        return ""
    claims = {
        "version_id": grant.version_id,
        "run_id": grant.run_id,
        "hosts": sorted(grant.hosts),
        "plain": grant.plain,
        "denied_networks": list(grant.denied_networks),
    }
    made = identity.token_for(
        ServiceName.AGENT_HOST, host, lifetime_s=LIFETIME_S, kind=TYPE, claims=claims
    )
    return made.text


def judge_of(host: str, keys: Source[KeySet]) -> TokenJudge:
    """What the proxy beside this agent-host believes: grants of workers, each for its minute."""
    return TokenJudge(
        audience_of(ServiceName.AGENT_HOST, host),
        keys=keys,
        believes={ServiceName.WORKER},
        kind=TYPE,
        max_bytes=MAX_GRANT_BYTES,
        # A sandbox that is started again comes with the same grant.
        once=False,
    )


def read(judge: TokenJudge, text: str) -> tuple[EgressGrant, float]:
    """A grant, and when it ends. Raises `Unauthenticated`."""
    service = judge.judge(text)
    claims = service.claims
    hosts, networks = claims.get("hosts"), claims.get("denied_networks")
    names = (claims.get("version_id"), claims.get("run_id"))
    if (
        not all(isinstance(name, str) and name for name in names)
        or not isinstance(claims.get("plain"), bool)
        or not _are_texts(hosts)
        or not _are_texts(networks)
        or not math.isfinite(service.expires_at_s)
    ):
        raise Unauthenticated("egress_grant_refused", "The grant lacks a claim.")
    try:
        grant = EgressGrant(
            str(names[0]),
            str(names[1]),
            frozenset(hosts),
            claims["plain"],
            tuple(networks),
        )
        grant.policy(EgressPolicy())
    except ValueError:
        raise Unauthenticated("egress_grant_refused", "The grant names no network.") from None
    return grant, service.expires_at_s


def allowed_hosts(policy: EgressPolicy, destinations: frozenset[tuple[str, int]]) -> frozenset[str]:
    """Those of some approved destinations that the operators' lists allow at this moment."""
    found = set()
    for host, port in destinations:
        try:
            policy.check_host(host, port)
        except EgressDenied:
            continue
        found.add(f"{host}:{port}")
    return frozenset(found)


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
