"""Nothing is dialled but checked addresses: the listener of the forbidden place sees nothing."""

import asyncio
import threading
import time
from ipaddress import ip_address, ip_network

import pytest

from pokerarena.agents import dial
from pokerarena.agents.dial import Dialer, DialLimits
from pokerarena.agents.http import HttpPlayer
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.egress import resolve
from pokerarena.egress.policy import EgressDenied, EgressLists, EgressPolicy
from pokerarena.egress.resolve import ResolveFailed, SystemResolver
from pokerarena.protocol.messages import Answer
from tests.agents.misbehaving import Misbehaving
from tests.egress.test_policy import NEVER, PRIVATE
from tests.protocol.hands import a_callback

STRICT = EgressPolicy()
LOCAL = EgressPolicy(allow_private=True)
PUBLIC = "93.184.216.34"


class Names:
    """A resolver that answers from a script, the last answer for ever, and counts."""

    def __init__(self, *answers):
        self.answers = [tuple(map(ip_address, answer)) for answer in answers]
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if not answer:
            raise ResolveFailed(f"{host} cannot be resolved: no such name")
        return answer


class Built:
    """Builds real clients and remembers what each may reach."""

    def __init__(self):
        self.addresses = []

    def __call__(self, target, addresses, limits):
        self.addresses.append([str(address) for address in addresses])
        return dial.build_pinned_client(target, addresses, limits)


class Time:
    def __init__(self):
        self.now_s = 1_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
async def server():
    async with Misbehaving() as server:
        yield server


async def decide(url, dialer, deadline_ms=3_000):
    player = HttpPlayer(url, dialer)
    try:
        return await player.decide(a_callback(), deadline_ms)
    finally:
        await player.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "localhost",
        "x.localhost",
        "①②⑦.0.0.1",
        "user@127.0.0.1",
    ],
)
async def test_a_private_address_sees_no_connection_in_any_spelling(server, host):
    names, built = Names(["127.0.0.1"]), Built()
    dialer = Dialer(STRICT, resolve=names, build=built)
    reply = await decide(server.url("good", host), dialer)
    await dialer.close()
    assert reply.reason is FallbackReason.EGRESS_DENIED
    assert (names.asked, built.addresses, server.connections) == ([], [], 0)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        ["::ffff:127.0.0.1"],
        ["169.254.169.254"],
        [PUBLIC] * 20 + ["127.0.0.1"],
    ],
)
async def test_a_name_with_a_forbidden_address_is_never_dialled(server, addresses):
    built = Built()
    dialer = Dialer(STRICT, resolve=Names(addresses), build=built)
    reply = await decide(server.url("good", "agent.test"), dialer)
    await dialer.close()
    assert reply.reason is FallbackReason.EGRESS_DENIED
    assert (built.addresses, server.connections) == ([], 0)


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
async def test_no_special_address_is_dialled_as_a_name_or_as_itself(address):
    """Every form of `facts`: literals, mapped and translated IPv6, and names that lead there."""
    names, built = Names([address], [PUBLIC, address]), Built()
    dialer = Dialer(STRICT, resolve=names, build=built)
    literal = f"[{address}]" if ":" in address else address
    hosts = [literal, "agent.test", "other.test"]
    if ":" not in address:
        packed = int(ip_address(address))
        hosts += [str(packed), hex(packed), f"[::ffff:{address}]", f"[64:ff9b::{address}]"]
    for host in hosts:
        reply = await decide(f"http://{host}/", dialer)
        assert reply.reason is FallbackReason.EGRESS_DENIED, host
    await dialer.close()
    assert built.addresses == []
    assert names.asked == ["agent.test", "other.test"]


async def test_a_name_is_dialled_at_the_address_that_was_checked_and_keeps_its_host_header(server):
    names = Names(["127.0.0.1"])
    dialer = Dialer(LOCAL, resolve=names)
    assert await decide(server.url("good", "agent.test"), dialer) == Answer("call")
    await dialer.close()
    assert names.asked == ["agent.test"]
    assert server.received[0].headers["host"] == f"agent.test:{server.port}"


async def test_a_name_that_changes_after_the_check_is_still_dialled_where_it_was_checked(
    server, monkeypatch
):
    async with Misbehaving() as elsewhere:
        names, clock = Names(["127.0.0.1"], ["169.254.169.254"]), Time()
        dialer = Dialer(LOCAL, resolve=names, clock=clock)
        # Should the client ever resolve by itself, it would fail: nothing answers for this name.
        for _ in range(3):
            assert await decide(server.url("once-per-connection", "agent.test"), dialer) == Answer(
                "call"
            )
        assert names.asked == ["agent.test"]
        # Once the pin has expired the name is checked again, and is now found to be forbidden.
        clock.now_s += 10_000
        reply = await decide(server.url("good", "agent.test"), dialer)
        assert reply.reason is FallbackReason.EGRESS_DENIED
        assert elsewhere.connections == 0
        await dialer.close()


async def test_a_pin_is_renewed_behind_the_back_of_play(server):
    names, built, clock = Names(["127.0.0.1"]), Built(), Time()
    dialer = Dialer(LOCAL, resolve=names, build=built, clock=clock)
    url = server.url("good", "agent.test")
    await decide(url, dialer)
    clock.now_s += 61
    assert await decide(url, dialer) == Answer("call")
    await asyncio.sleep(0.05)
    assert len(names.asked) == 2
    # The same addresses: the client and its open connections stay.
    assert (len(built.addresses), server.connections) == (1, 1)
    await dialer.close()


async def test_a_moved_agent_is_found_soon_after_its_old_address_refuses(server):
    names, clock = Names(["127.0.0.2"], ["127.0.0.1"]), Time()
    dialer = Dialer(LOCAL, resolve=names, clock=clock)
    url = server.url("good", "agent.test")
    assert (await decide(url, dialer)).reason is FallbackReason.CONNECT_FAILED
    clock.now_s += 1.5
    await decide(url, dialer)
    for _ in range(100):
        if len(names.asked) == 2 and not dialer._pinning:
            break
        await asyncio.sleep(0.02)
    assert await decide(url, dialer) == Answer("call")
    await dialer.close()


async def test_the_second_address_is_tried_when_the_first_refuses(server):
    dialer = Dialer(LOCAL, resolve=Names(["127.0.0.2", "127.0.0.1"]))
    assert await decide(server.url("good", "agent.test"), dialer) == Answer("call")
    await dialer.close()


async def test_the_arenas_own_address_is_denied_even_when_it_is_public(server):
    built = Built()
    dialer = Dialer(STRICT, resolve=Names([PUBLIC]), build=built, owns=lambda address: True)
    reply = await decide("https://agent.test/", dialer)
    await dialer.close()
    assert reply == Failure(FallbackReason.EGRESS_DENIED, "the address belongs to the arena itself")
    assert built.addresses == []


def test_one_knows_ones_own_addresses_without_sending_anything():
    assert resolve.is_own_address(ip_address("127.0.0.1"))
    assert not resolve.is_own_address(ip_address("203.0.113.7"))
    assert not resolve.is_own_address(ip_address("2001:db8::7"))


async def test_a_name_that_does_not_resolve_is_connect_failed():
    dialer = Dialer(LOCAL, resolve=Names([]))
    reply = await decide("http://agent.test/", dialer)
    await dialer.close()
    assert reply.reason is FallbackReason.CONNECT_FAILED
    assert "no such name" in reply.detail


async def test_at_most_so_many_addresses_are_pinned():
    built = Built()
    dialer = Dialer(
        LOCAL,
        DialLimits(max_addresses=3),
        resolve=Names([f"127.0.0.{n}" for n in range(1, 20)]),
        build=built,
    )
    await dialer.client(LOCAL.target("http://agent.test:1234/"))
    await dialer.close()
    assert built.addresses == [["127.0.0.1", "127.0.0.2", "127.0.0.3"]]


async def test_many_who_ask_at_once_cause_one_lookup_and_one_client():
    names, built = Names(["127.0.0.1"]), Built()
    dialer = Dialer(LOCAL, resolve=names, build=built)
    target = LOCAL.target("http://agent.test:1234/")
    clients = await asyncio.gather(*(dialer.client(target) for _ in range(50)))
    await dialer.close()
    assert (len(names.asked), len(built.addresses), len(set(map(id, clients)))) == (1, 1, 1)


async def test_origins_are_bounded():
    dialer = Dialer(LOCAL, DialLimits(max_origins=5), resolve=Names(["127.0.0.1"]))
    for number in range(12):
        await dialer.client(LOCAL.target(f"http://agent{number}.test:1234/"))
    assert len(dialer._pins) == 5
    await dialer.close()


async def test_a_resolver_that_hangs_costs_the_caller_its_time_limit_only(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(resolve, "_lookup", lambda host, port: release.wait(10) and ())
    resolver = SystemResolver(timeout_ms=50, max_threads=1)
    started = time.monotonic()
    with pytest.raises(ResolveFailed, match="within 50 ms"):
        await resolver("agent.test", 80)
    with pytest.raises(ResolveFailed):
        await resolver("other.test", 80)
    assert time.monotonic() - started < 5
    release.set()
    resolver.close()


async def test_the_system_resolver_knows_localhost_and_refuses_nonsense():
    resolver = SystemResolver(timeout_ms=2_000, max_threads=1)
    assert ip_address("127.0.0.1") in await resolver("localhost", 80)
    with pytest.raises(ResolveFailed):
        await resolver("a" * 70, 80)
    resolver.close()


async def test_a_name_that_stops_resolving_keeps_its_checked_address_for_a_while_only(server):
    names, clock = Names(["127.0.0.1"], []), Time()
    dialer = Dialer(LOCAL, resolve=names, clock=clock)
    url = server.url("good", "agent.test")
    await decide(url, dialer)
    for _ in range(10):
        clock.now_s += 6.5
        assert await decide(url, dialer) == Answer("call")
        await asyncio.sleep(0.01)
    lookups = len(names.asked)
    for _ in range(10):
        clock.now_s += 0.01
        await decide(url, dialer)
        await asyncio.sleep(0.01)
    assert len(names.asked) <= lookups + 1, "a name that fails is not looked up at every decision"
    clock.now_s += 120
    assert (await decide(url, dialer)).reason is FallbackReason.CONNECT_FAILED
    await dialer.close()


async def test_a_denied_name_loses_its_client():
    names, clock = Names(["127.0.0.1"], [PUBLIC, "224.0.0.1"]), Time()
    dialer = Dialer(LOCAL, resolve=names, clock=clock)
    target = LOCAL.target("http://agent.test:1234/")
    await dialer.client(target)
    clock.now_s += 10_000
    with pytest.raises(EgressDenied):
        await dialer.client(target)
    assert dialer.ready_client(target) is None
    await dialer.close()


NOBODY = EgressLists(denied_domains=frozenset({".agent.test"}))


async def test_what_operators_deny_is_refused_from_the_next_dial_and_its_connections_close(server):
    names, built = Names(["127.0.0.1"]), Built()
    # Idle connections would otherwise close by themselves soon.
    dialer = Dialer(LOCAL, DialLimits(idle_connection_ms=600_000), resolve=names, build=built)
    denied = HttpPlayer(server.url("good", "agent.test"), dialer)
    spared = HttpPlayer(server.url("good", "other.test"), dialer)
    for player in (denied, spared):
        assert await player.decide(a_callback(), 3_000) == Answer("call")
    assert server.open_connections == 2
    dialer.use(LOCAL.narrowed(NOBODY))
    reply = await denied.decide(a_callback(), 3_000)
    assert reply == Failure(FallbackReason.EGRESS_DENIED, "the operator denies this host")
    # The other agent's client, and its connection, stay.
    assert await spared.decide(a_callback(), 3_000) == Answer("call")
    assert (len(built.addresses), names.asked) == (2, ["agent.test", "other.test"])
    for _ in range(500):
        if server.open_connections == 1:
            break
        await asyncio.sleep(0.02)
    assert (server.open_connections, server.connections) == (1, 2)
    # Allowed again, it plays again: resolved and checked anew.
    dialer.use(LOCAL)
    assert await denied.decide(a_callback(), 3_000) == Answer("call")
    assert names.asked == ["agent.test", "other.test", "agent.test"]
    for player in (denied, spared):
        await player.close()
    await dialer.close()


async def test_a_denied_network_takes_the_pins_that_lead_there():
    dialer = Dialer(LOCAL, resolve=Names(["127.0.0.1"]))
    target = LOCAL.target("http://agent.test:1234/")
    await dialer.client(target)
    dialer.use(LOCAL.narrowed(EgressLists(denied_networks=(ip_network("127.0.0.0/8"),))))
    assert dialer.ready_client(target) is None
    with pytest.raises(EgressDenied):
        await dialer.client(target)
    await dialer.close()


async def test_lists_that_change_while_a_client_is_built_are_heeded():
    names = Names(["127.0.0.1"])
    dialer = Dialer(LOCAL, resolve=names)
    target = LOCAL.target("http://agent.test:1234/")

    async def resolve_and_change(host, port):
        dialer.use(LOCAL.narrowed(NOBODY))
        return await names(host, port)

    dialer._resolve = resolve_and_change
    with pytest.raises(EgressDenied):
        await dialer.client(target)
    assert dialer.ready_client(target) is None
    await dialer.close()
