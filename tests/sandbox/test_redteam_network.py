"""Red team: agents that look for a network. There is none to find.

Nothing here sends to an outside address: what a sandbox cannot name it cannot reach, so the tests
list interfaces, routes and socket families, and knock on listeners of our own on this machine.
"""

import socket
import threading
from contextlib import contextmanager

import pytest

from tests.sandbox.conftest import reporting

LIST = """
def lines(path): return [line.split()[0] for line in open(path).read().splitlines()]
import socket
findings['devices'] = sorted(line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line)
for path in ('/proc/net/route', '/proc/net/ipv6_route', '/proc/net/if_inet6', '/proc/net/arp'):
    found(path, lambda: [line.split() for line in open(path).read().splitlines()][:4])
found('names', lambda: [name for _, name in socket.if_nameindex()])
found('resolve', lambda: socket.getaddrinfo('metadata.invalid', 80)[0][4][0])
found('resolv.conf', lambda: open('/etc/resolv.conf').read())
"""
FAMILIES = """
import socket
opened = []
for family in range(1, 64):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind, 0).close()
            opened.append([family, kind])
        except OSError:
            pass
findings['opened'] = opened
"""


@contextmanager
def listening(*addresses):
    """Listeners of ours; yields the list of connections they got."""
    got, made = [], []
    for family, address in addresses:
        one = socket.socket(family, socket.SOCK_STREAM)
        one.bind(address)
        one.listen()
        one.settimeout(0.05)
        made.append(one)
    stop = threading.Event()

    def accept():
        while not stop.is_set():
            for one in made:
                try:
                    got.append(one.accept()[0])
                except TimeoutError:
                    continue

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield got, [one.getsockname() for one in made]
    finally:
        stop.set()
        thread.join()
        for one in [*made, *got]:
            one.close()


async def test_it_has_one_interface_no_route_and_no_resolver(home, hosted):
    async with hosted(home, reporting(LIST)) as agent:
        findings = await agent.note(15_000)
    assert findings["devices"] == ["lo"]
    assert len(findings["/proc/net/route"]) == 1, "a heading and no route"
    assert findings["/proc/net/arp"] == findings["/proc/net/arp"][:1]
    ipv6 = findings["/proc/net/if_inet6"]
    assert isinstance(ipv6, str) or all(entry[-1] == "lo" for entry in ipv6)
    assert findings["names"] == ["lo"] or str(findings["names"]).startswith("refused")
    assert findings["resolve"].startswith("refused")
    assert findings["resolv.conf"].startswith("refused")


async def test_only_unix_sockets_can_be_made(home, hosted):
    async with hosted(home, reporting(FAMILIES)) as agent:
        opened = (await agent.note())["opened"]
    # No INET, INET6, NETLINK, PACKET, VSOCK, ALG, BLUETOOTH, XDP, …
    assert {family for family, _ in opened} == {socket.AF_UNIX}


async def test_our_listeners_on_this_machine_hear_nothing(home, hosted):
    with listening(
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::1", 0)),
        (socket.AF_UNIX, "\0pokerarena-test-abstract"),
    ) as (got, names):
        attack = f"""
import socket
def knock(family, address):
    one = socket.socket(family, socket.SOCK_STREAM); one.settimeout(1); one.connect(address)
    return 'connected'
found('v4', knock, socket.AF_INET, ('127.0.0.1', {names[0][1]}))
found('v6', knock, socket.AF_INET6, ('::1', {names[1][1]}))
found('abstract', knock, socket.AF_UNIX, chr(0) + 'pokerarena-test-abstract')
found('path', knock, socket.AF_UNIX, '/run/dbus/system_bus_socket')
found('docker', knock, socket.AF_UNIX, '/var/run/docker.sock')
found('vsock', knock, 40, (2, 1024))
found('netlink', lambda: socket.socket(16, 3, 0) and 'made')
"""
        async with hosted(home, reporting(attack)) as agent:
            findings = await agent.note()
        assert len(findings) == 7
        assert all(value.startswith("refused") for value in findings.values()), findings
        assert got == []


async def test_two_sandboxes_cannot_meet(home, hosted):
    listener = """
import socket
one = socket.socket(socket.AF_UNIX); one.bind(chr(0) + 'meet'); one.listen()
findings['listening'] = True
"""
    caller = """
import socket
def knock():
    socket.socket(socket.AF_UNIX).connect(chr(0) + 'meet'); return 'connected'
found('knock', knock)
findings['seen'] = open('/proc/net/unix').read().count('meet')
"""
    async with hosted(home, reporting(listener)) as one, hosted(home, reporting(caller)) as other:
        assert (await one.note())["listening"]
        findings = await other.note()
        assert findings["knock"].startswith("refused")
        assert findings["seen"] == 0


@pytest.mark.parametrize("attack", [LIST, FAMILIES], ids=["list", "families"])
async def test_under_gvisor_there_is_no_network_either(gvisor_home, hosted, attack):
    async with hosted(gvisor_home, reporting(attack)) as agent:
        findings = await agent.note(15_000)
    if attack == LIST:
        assert set(findings["devices"]) <= {"lo"}
        routes = findings["/proc/net/route"]
        assert isinstance(routes, str) or len(routes) <= 1
        assert findings["resolve"].startswith("refused")
    else:
        assert {family for family, _ in findings["opened"]} <= {socket.AF_UNIX}
