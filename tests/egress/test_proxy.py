"""What leaves a sandbox: to approved hosts at checked addresses, within bounds, and nothing else.

The dialler counts: where something is refused, no connection was attempted.
"""

import asyncio

import pytest
from structlog.testing import capture_logs

from pokerarena.egress.meters import EgressLimits
from pokerarena.egress.tunnels import Refused, parse_request
from pokerarena.errors import Unavailable
from pokerarena.service_identity.keys import ServiceName
from tests.egress.proxies import HOST, LOOPBACK, a_proxy, a_server, until
from tests.egress.test_policy import NEVER, PRIVATE

DESTINATION = f"{HOST}:443"


async def test_an_approved_host_is_reached_and_its_bytes_are_counted_and_not_logged(tmp_path):
    async with (
        a_proxy(tmp_path) as proxied,
        a_server() as (port, received),
        proxied.line(f"{HOST}:{port}"),
    ):
        with capture_logs() as logs:
            reply, rest = await proxied.connect(port=port, then=b"a secret")
            await until(lambda: len(logs) == 1)
    assert (reply, rest) == (b"HTTP/1.1 200 Connection established", b"you said a secret")
    assert received == [b"a secret"]
    assert proxied.dialled == [("127.0.0.1", port)]
    (line,) = logs
    expected = {"event": "egress_passed", "version_id": "ver_1", "run_id": "run_1"}
    assert expected.items() <= line.items()
    assert (line["destination"], line["bytes_up"], line["bytes_down"]) == (f"{HOST}:{port}", 8, 17)
    assert "secret" not in str(logs)


async def test_nothing_but_what_was_approved_is_looked_up_or_dialled(tmp_path):
    async with a_proxy(tmp_path) as proxied, proxied.line(DESTINATION):
        proxied.names |= {"evil.example.org": ["127.0.0.1"], "example.org": ["127.0.0.1"]}
        for host, port in [
            ("evil.example.org", 443), ("example.org", 443), (HOST, 80), (HOST, 8443),
            ("127.0.0.1", 443), ("localhost", 443), ("169.254.169.254", 80), (f"{HOST}.", 443),
            (f"a.{HOST}", 443), ("2130706433", 443), ("0177.0.0.1", 443),
        ]:  # fmt: skip
            reply, rest = await proxied.connect(host, port)
            assert reply.startswith(b"HTTP/1.1 403 "), (host, port, reply)
            assert (b"not approved" in reply, rest) == (True, b"")
        assert (proxied.asked, proxied.dialled) == ([], [])


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://api.example.org/ HTTP/1.1",
        b"POST / HTTP/1.1",
        b"connect api.example.org:443 HTTP/1.1",
        b"CONNECT api.example.org:443 HTTP/2",
        b"CONNECT api.example.org:443",
        b"CONNECT  api.example.org:443 HTTP/1.1",
        b"CONNECT\tapi.example.org:443 HTTP/1.1",
        b"CONNECT api.example.org:443 HTTP/1.1 ",
        b"CONNECT API.example.org:443 HTTP/1.1",
        b"CONNECT api.example.org:0443 HTTP/1.1",
        b"CONNECT api.example.org HTTP/1.1",
        b"CONNECT api.example.org:443:80 HTTP/1.1",
        b"CONNECT api.example.org:443@evil.example.org:443 HTTP/1.1",
        b"CONNECT evil.example.org:443#api.example.org:443 HTTP/1.1",
        b"CONNECT http://api.example.org:443 HTTP/1.1",
        b"CONNECT [::1]:443 HTTP/1.1",
        b"CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1",
        b"CONNECT %61pi.example.org:443 HTTP/1.1",
        b"CONNECT api.example.org\x00.evil.org:443 HTTP/1.1",
        b"CONNECT api.example.org:443 HTTP/1.1\nHost: evil.example.org",
        b"CONNECT api.example.org:443 HTTP/1.1\r\nHost: evil.example.org:443",
        b"CONNECT api.example.org:443 HTTP/1.1\r\nHost : api.example.org:443",
        b"CONNECT api.example.org:443 HTTP/1.1\r\n folded: header",
        b"CONNECT api.example.org:443 HTTP/1.1\r\nX: a\rb",
        b"CONNECT api.example.org:443 HTTP/1.1\r\nContent-Length: 5",
        b"CONNECT api.example.org:443 HTTP/1.1\r\nTransfer-Encoding: chunked",
        "CONNECT ａpi.example.org:443 HTTP/1.1".encode(),
        b"\r\nCONNECT api.example.org:443 HTTP/1.1",
    ],
)
def test_a_request_has_one_spelling(head):
    with pytest.raises(Refused) as refused:
        parse_request(head + b"\r\n\r\n")
    assert refused.value.status in (400, 405)


def test_the_one_spelling_is_what_clients_write():
    for lines in (
        b"",
        b"\r\nHost: api.example.org:443\r\nUser-Agent: x",
        b"\r\nhost: api.example.org",
    ):
        head = b"CONNECT api.example.org:443 HTTP/1.1" + lines + b"\r\n\r\n"
        assert parse_request(head) == (HOST, 443)


async def test_a_second_request_behind_the_first_is_nothing_but_bytes_for_the_first_host(tmp_path):
    async with a_proxy(tmp_path) as proxied, a_server() as (port, received):
        async with proxied.line(f"{HOST}:{port}", f"other.example.org:{port}"):
            smuggled = f"CONNECT other.example.org:{port} HTTP/1.1\r\n\r\n".encode()
            reply, _ = await proxied.connect(port=port, then=smuggled)
            assert reply.startswith(b"HTTP/1.1 200")
        assert received == [smuggled]
        assert proxied.asked == [HOST]
        assert len(proxied.dialled) == 1


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
async def test_a_name_that_leads_inside_is_never_dialled(tmp_path, address):
    async with a_proxy(tmp_path, frame=None) as proxied, proxied.line(DESTINATION):
        for answer in ([address], ["93.184.216.34", address], ["93.184.216.34"] * 9 + [address]):
            proxied.names[HOST] = answer
            reply, _ = await proxied.connect()
            assert reply.startswith(b"HTTP/1.1 403 "), (answer, reply)
            # What is behind the name is nobody's business.
            assert address.encode() not in reply
        assert proxied.dialled == []


async def test_the_proxys_own_address_is_never_dialled(tmp_path):
    async with a_proxy(tmp_path, frame=None) as proxied, proxied.line(DESTINATION):
        object.__setattr__(proxied.proxy._parts, "owns", lambda _: True)
        proxied.names[HOST] = ["93.184.216.34"]
        assert b"belongs to the arena itself" in (await proxied.connect())[0]
        assert proxied.dialled == []


async def test_metadata_and_reserved_addresses_are_denied_also_where_private_ones_are_allowed(
    tmp_path,
):
    async with a_proxy(tmp_path, frame=LOOPBACK) as proxied, proxied.line(DESTINATION):
        for address in ("169.254.169.254", "fd00:ec2::254", "0.0.0.0", "64:ff9b::7f00:1"):
            proxied.names[HOST] = [address]
            assert (await proxied.connect())[0].startswith(b"HTTP/1.1 403 ")
        assert proxied.dialled == []


async def test_a_name_that_changes_after_the_check_is_dialled_where_it_was_checked(tmp_path):
    async with (
        a_proxy(tmp_path) as proxied,
        a_server() as (port, _),
        proxied.line(f"{HOST}:{port}"),
    ):
        resolve = proxied.proxy._parts.resolve

        async def resolve_and_change(host, port):
            found = await resolve(host, port)
            proxied.names[HOST] = ["169.254.169.254"]
            return found

        object.__setattr__(proxied.proxy._parts, "resolve", resolve_and_change)
        assert (await proxied.connect(port=port))[0].startswith(b"HTTP/1.1 200")
        assert proxied.dialled == [("127.0.0.1", port)]
        # The next connection asks again, and finds a place where nobody may go.
        assert (await proxied.connect(port=port))[0].startswith(b"HTTP/1.1 403")
        assert (len(proxied.asked), len(proxied.dialled)) == (2, 1)


async def test_a_network_that_operators_deny_is_denied_here_too(tmp_path):
    async with a_proxy(tmp_path) as proxied, proxied.line(DESTINATION, networks=["127.0.0.0/8"]):
        reply, _ = await proxied.connect()
        assert b"403" in reply
        assert b"operator denies this address" in reply
        assert proxied.dialled == []


async def test_only_tls_passes_where_plain_text_is_not_allowed(tmp_path):
    async with a_proxy(tmp_path) as proxied, a_server() as (port, received):
        async with proxied.line(f"{HOST}:{port}", plain=False):
            reply, rest = await proxied.connect(port=port, then=b"GET / HTTP/1.1\r\n\r\n")
            assert (reply[:12], rest) == (b"HTTP/1.1 200", b"")
            hello = b"\x16\x03\x01\x00\x05hello"
            reply, rest = await proxied.connect(port=port, then=hello)
            assert rest == b"you said " + hello
        assert [data for data in received if data] == [hello]


async def test_bytes_are_bounded_each_way_for_a_run_and_not_for_a_sandbox(tmp_path):
    limits = EgressLimits(bytes_up_max=1_000, bytes_down_max=5_000)
    async with (
        a_proxy(tmp_path, limits=limits) as proxied,
        a_server(lambda data: b"x" * 4_000) as (port, received),
    ):
        for sandbox in range(2):
            async with proxied.line(f"{HOST}:{port}"):
                reply, rest = await proxied.connect(port=port, then=b"y" * 100)
                assert (reply[:12], len(rest)) == (b"HTTP/1.1 200", 0 if sandbox else 4_000)
        async with proxied.line(f"{HOST}:{port}"):
            reply, _ = await proxied.connect(port=port)
            assert b"429 more than 5000 bytes received in this run" in reply
        # Another run of the same version has an allowance of its own; so has the way up.
        async with proxied.line(f"{HOST}:{port}", run_id="run_2"):
            _, rest = await proxied.connect(port=port, then=b"z" * 2_000)
            assert rest == b""
    assert not any(data.startswith(b"z") for data in received)


async def test_connections_are_bounded_at_once_and_by_the_minute(tmp_path):
    limits = EgressLimits(connections_max=2, connects_per_minute=5)
    async with (
        a_proxy(tmp_path, limits=limits) as proxied,
        a_server() as (port, _),
        proxied.line(f"{HOST}:{port}"),
    ):
        held = [await asyncio.open_unix_connection(str(proxied.outlet)) for _ in range(2)]
        for reader, writer in held:
            writer.write(f"CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n".encode())
            assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert await proxied.connect(port=port) == (b"", b"")
        for _, writer in held:
            writer.close()
        outlet = next(iter(proxied.proxy._outlets))
        await until(lambda: not outlet._connections)
        for _ in range(2):
            assert (await proxied.connect("evil.example.org", port))[0][:12] == b"HTTP/1.1 403"
        reply, _ = await proxied.connect(port=port)
        assert reply == b"HTTP/1.1 429 more than 5 connections a minute"
    assert len(proxied.dialled) == 2


async def test_whoever_is_slow_or_idle_or_endless_is_cut_off(tmp_path):
    limits = EgressLimits(head_timeout_ms=1_000, idle_s=1, total_s=1)
    async with (
        a_proxy(tmp_path, limits=limits) as proxied,
        a_server() as (port, _),
        proxied.line(f"{HOST}:{port}"),
    ):
        reply, _ = await proxied.ask("CONNECT ")
        assert b"408" in reply
        assert (await proxied.ask(b"CONNECT " + b"a" * 5_000 + b"\r\n\r\n"))[0][9:12] == b"431"
        reader, writer = await asyncio.open_unix_connection(str(proxied.outlet))
        writer.write(f"CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n".encode())
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()


async def test_a_grant_that_is_taken_back_ends_connections_at_once(tmp_path):
    async with a_proxy(tmp_path) as proxied, a_server() as (port, _):
        both = (f"{HOST}:{port}", f"b.example.org:{port}")
        proxied.names["b.example.org"] = ["127.0.0.1"]
        async with proxied.line(*both) as line:
            held = {}
            for host in (HOST, "b.example.org"):
                held[host] = await asyncio.open_unix_connection(str(proxied.outlet))
                held[host][1].write(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
                assert b"200" in await held[host][0].readuntil(b"\r\n\r\n")
            line.renew(proxied.grant(both[1]))
            assert await asyncio.wait_for(held[HOST][0].read(), 30) == b""
            held["b.example.org"][1].write(b"still here")
            assert await held["b.example.org"][0].readexactly(19) == b"you said still here"
            assert b"not approved" in (await proxied.connect(port=port))[0]
            line.renew("")
            assert await asyncio.wait_for(held["b.example.org"][0].read(), 30) == b""
            assert b"nothing now" in (await proxied.connect(port=port))[0]
            line.renew(proxied.grant(*both))
            await until(lambda: next(iter(proxied.proxy._outlets))._grant)
            assert b"200" in (await proxied.connect(port=port))[0]
            for _, writer in held.values():
                writer.close()


async def test_a_grant_lapses_when_nobody_renews_it(tmp_path):
    async with a_proxy(tmp_path) as proxied, proxied.line(DESTINATION):
        outlet = next(iter(proxied.proxy._outlets))
        left_s = outlet._lapse.when() - asyncio.get_running_loop().time()
        assert 0 < left_s <= 75
        outlet.take(b"")  # what the timer does
        assert b"nothing now" in (await proxied.connect())[0]


@pytest.mark.parametrize("what", ["forged", "elsewhere", "service token", "nonsense"])
async def test_only_a_workers_word_opens_a_way_out(tmp_path, what):
    async with a_proxy(tmp_path) as proxied, a_proxy(tmp_path / "..") as stranger:
        forged = {
            "forged": stranger.grant(DESTINATION),
            "elsewhere": proxied.grant(DESTINATION, audience="host-2"),
            "service token": proxied.identity.token_for(ServiceName.AGENT_HOST, "host-1").text,
            "nonsense": "a.b.c",
        }[what]
        proxied.grant = lambda *_: forged
        with pytest.raises(Unavailable, match="refuses"):
            async with proxied.line():
                pass
        # An outlet that lives is not talked into another run either.
        assert (proxied.asked, proxied.dialled) == ([], [])


async def test_a_proxy_that_comes_back_serves_the_sandboxes_that_were_there(tmp_path):
    async with a_server() as (port, _):
        async with a_proxy(tmp_path) as first:
            line = first.line(f"{HOST}:{port}")
            await line.__aenter__()
        async with a_proxy(tmp_path, key=first.key) as second:
            kept = [task for task in asyncio.all_tasks() if "_keep" in repr(task)]
            assert kept
            reply, _ = await asyncio.wait_for(second.connect(port=port), 30)
            assert b"200" in reply
            await line.__aexit__(None, None, None)
            await until(lambda: not second.proxy._outlets)
