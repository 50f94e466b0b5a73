"""A real egress proxy for tests, with names that lead where the test says and a dialler that counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from pokerarena.egress import grants
from pokerarena.egress.grants import EgressGrant
from pokerarena.egress.lines import EgressLine, EgressLines
from pokerarena.egress.meters import EgressLimits
from pokerarena.egress.policy import EgressPolicy
from pokerarena.egress.proxy import ALL_PORTS, EgressProxy
from pokerarena.egress.resolve import ResolveFailed
from pokerarena.egress.tunnels import dial_address
from pokerarena.service_identity.keys import PrivateKey, ServiceName, new_private_key
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.watched_file import Fixed

NAME = "host-1"
HOST = "api.example.org"
LOOPBACK = EgressPolicy(allow_private=True, port_ranges=ALL_PORTS)


async def until(condition):
    """Wait for what comes a moment later, on however slow a machine."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


class Granting:
    """Implements `egress.grants.GrantSource`: always the same."""

    def __init__(self, grant):
        self._grant = grant

    def grant(self):
        return self._grant


class Proxied:
    """The proxy, the key whose grants it believes, and what it looked up and dialled."""

    def __init__(self, folder, frame, limits, key, name):
        self.key = key = key or new_private_key()
        public = key.published(ServiceName.WORKER)
        known = Fixed({public.kid: public})
        self.identity = ServiceIdentity(
            ServiceName.WORKER, "worker-1", key=Fixed(key), keys=known, believes=()
        )
        judge = grants.judge_of(name, known)
        self.path = folder / "egress.sock"
        self.outlet = folder / "out.sock"
        self.names = {HOST: ["127.0.0.1"]}
        self.asked, self.dialled = [], []
        self.proxy = EgressProxy(
            judge, frame, limits, resolve=self._resolve, dial=self._dial, owns=lambda _: False
        )

    async def _resolve(self, host, port):
        self.asked.append(host)
        answer = self.names.get(host)
        if answer is None:
            raise ResolveFailed(f"{host} cannot be resolved")
        return tuple(map(ip_address, answer))

    async def _dial(self, address, port):
        self.dialled.append((str(address), port))
        return await dial_address(address, port)

    def grant(
        self, *hosts, audience=NAME, plain=True, networks=(), run_id="run_1", version="ver_1"
    ):
        granted = EgressGrant(version, run_id, frozenset(hosts), plain, tuple(networks))
        return grants.signed(self.identity, audience, Granting(granted))

    def lines(self, *hosts, **more):
        return EgressLines(self.path, self.grant(*hosts, **more))

    @asynccontextmanager
    async def line(self, *hosts, **more) -> AsyncIterator[EgressLine]:
        """A sandbox's way out without the sandbox: `ask` plays the agent."""
        line = EgressLine(self.path, self.grant(*hosts, **more))
        try:
            await line.open(self.outlet, 0)
            yield line
        finally:
            await line.close()

    async def ask(self, head: bytes | str, then: bytes = b"") -> tuple[bytes, bytes]:
        """What the proxy answers to a head, and everything that comes after it until the end."""
        reader, writer = await asyncio.open_unix_connection(str(self.outlet))
        try:
            writer.write(head.encode() if isinstance(head, str) else head)
            if then:
                writer.write(then)
            reply = await reader.readuntil(b"\r\n\r\n")
            writer.write_eof()
            return reply.splitlines()[0], await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            return b"", getattr(error, "partial", b"")
        finally:
            writer.close()

    async def connect(self, host=HOST, port=443, then: bytes = b"") -> tuple[bytes, bytes]:
        return await self.ask(
            f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n", then
        )


@asynccontextmanager
async def a_proxy(
    folder: Path,
    frame: EgressPolicy | None = LOOPBACK,
    limits: EgressLimits | None = None,
    *,
    key: PrivateKey | None = None,
    name: str = NAME,
    group: str = "",
) -> AsyncIterator[Proxied]:
    proxied = Proxied(folder, frame, limits, key, name)
    await proxied.proxy.listen(proxied.path, group)
    try:
        yield proxied
    finally:
        await proxied.proxy.close()


@asynccontextmanager
async def a_server(answer=lambda data: b"you said " + data):
    """A listener of ours on loopback; yields its port and the list of what it was sent."""
    received = []
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        data = await reader.read(65_536)
        received.append(data)
        writer.write(answer(data))
        try:
            await writer.drain()
            await reader.read()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], received
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
