"""The egress proxy: the only way out of a sandbox, and for approved versions only.

Owns one listening socket per sandbox, handed over by the agent-host with a grant that a worker has
signed: so each connection belongs to one version in one run. It holds no secret and no database
address, refuses to start where it finds one, and never looks at what passes.

    python -m pokerarena.egress.proxy --name HOST --public-keys FILE --socket PATH …
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from pokerarena import metrics
from pokerarena.egress import grants
from pokerarena.egress.meters import EgressLimits, MeterBook
from pokerarena.egress.outlets import Outlet, ProxyParts
from pokerarena.egress.policy import Address, EgressPolicy
from pokerarena.egress.resolve import Resolve, SystemResolver, is_own_address
from pokerarena.egress.tunnels import Dial, dial_address
from pokerarena.errors import ArenaError, ConfigurationError
from pokerarena.exposition import MetricsServer
from pokerarena.sandbox.confinement import refuse_secrets
from pokerarena.sandbox.host import OptionsParser
from pokerarena.sandbox.tickets import readable
from pokerarena.service_identity.keys import parse_key_set
from pokerarena.service_identity.tokens import TokenJudge
from pokerarena.telemetry import configure_logging
from pokerarena.watched_file import WatchedFile

HANDOVER_TIMEOUT_S: Final = 5.0
# Ports and names are the worker's to allow, in the grant; addresses are checked here.
ALL_PORTS: Final = ((1, 65_535),)
_CONTROLS_MAX: Final = 64
_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2


class EgressProxy:
    """All sandboxes' ways out through one process."""

    def __init__(
        self,
        judge: TokenJudge,
        frame: EgressPolicy | None = None,
        limits: EgressLimits | None = None,
        *,
        resolve: Resolve | None = None,
        dial: Dial = dial_address,
        owns: Callable[[Address], bool] = is_own_address,
        clock: Callable[[], float] = time.time,
    ) -> None:
        limits = limits or EgressLimits()
        self._system = SystemResolver(limits.resolve_timeout_ms, limits.resolver_threads)
        self._parts = ProxyParts(
            judge=judge,
            frame=frame or EgressPolicy(port_ranges=ALL_PORTS),
            limits=limits,
            resolve=resolve or self._system,
            dial=dial,
            owns=owns,
            clock=clock,
            book=MeterBook(limits, time.monotonic),
        )
        self._outlets: set[Outlet] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._path: Path | None = None

    async def listen(self, path: Path, group: str = "") -> None:
        """Accept agent-hosts on a socket that only our own user and one group can use."""
        loop = asyncio.get_running_loop()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - before anybody is served
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o660)  # noqa: ASYNC240
        if group:
            try:
                shutil.chown(path, group=group)
            except LookupError:
                raise ConfigurationError(f"there is no group {group!r}") from None
        listener.listen(_CONTROLS_MAX)
        self._listener, self._path = listener, path
        loop.add_reader(listener, self._on_host)

    async def close(self) -> None:
        """End every connection and every way out."""
        if self._listener is not None and self._path is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            # Its folder need not be ours any more; the next to listen there clears it away.
            with contextlib.suppress(OSError):
                self._path.unlink()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._system.close()

    def _on_host(self) -> None:
        assert self._listener is not None, "it has been listening"
        try:
            host, _ = self._listener.accept()
        except OSError:
            return
        task = asyncio.get_running_loop().create_task(self._serve_host(host))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_host(self, host: socket.socket) -> None:
        """One sandbox of one agent-host: its socket first, then what it may reach, line by line."""
        host.setblocking(False)
        with host:
            handed: socket.socket | None = None
            try:
                async with asyncio.timeout(HANDOVER_TIMEOUT_S):
                    begun, handed = await _handed_over(host)
                if handed is not None:
                    await self._serve_outlet(host, begun, handed)
            except (OSError, TimeoutError):
                return
            finally:
                if handed is not None:
                    handed.close()

    async def _serve_outlet(self, host: socket.socket, begun: bytes, handed: socket.socket) -> None:
        if len(self._outlets) >= self._parts.limits.sandboxes_max:
            await _reply(host, b"refused the proxy serves as many sandboxes as it may\n")
            return
        outlet = Outlet(self._parts, handed)
        self._outlets.add(outlet)
        metrics.EGRESS_SANDBOXES.number().set(len(self._outlets))
        loop = asyncio.get_running_loop()
        try:
            while True:
                while b"\n" in begun:
                    line, _, begun = begun.partition(b"\n")
                    await _reply(host, outlet.take(line))
                if len(begun) > grants.MAX_GRANT_BYTES:
                    return
                part = await loop.sock_recv(host, 64 * 1024)
                if not part:
                    return
                begun += part
        finally:
            self._outlets.discard(outlet)
            metrics.EGRESS_SANDBOXES.number().set(len(self._outlets))
            await outlet.close()


async def _handed_over(host: socket.socket) -> tuple[bytes, socket.socket | None]:
    """What the host says first, and the listening socket that comes with it."""
    await readable(asyncio.get_running_loop(), host)
    begun, fds, _, _ = socket.recv_fds(host, 64 * 1024, 1, socket.MSG_CMSG_CLOEXEC)
    if not fds:
        return begun, None
    handed = socket.socket(fileno=fds[0])
    if handed.family is not socket.AF_UNIX or handed.type is not socket.SOCK_STREAM:
        handed.close()
        return begun, None
    return begun, handed


async def _reply(host: socket.socket, reply: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(host, reply)


def drop_privileges(user: str) -> None:
    """Become an ordinary user; for after the socket is made."""
    try:
        record = pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationError(f"there is no user {user!r}") from None
    libc, asked = ctypes.CDLL(None), ctypes.c_int()
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(asked), 0, 0, 0)
    os.setgroups([])
    os.setresgid(record.pw_gid, record.pw_gid, record.pw_gid)
    os.setresuid(record.pw_uid, record.pw_uid, record.pw_uid)
    # The kernel forgets at this point that whoever started us takes us along.
    libc.prctl(_PR_SET_PDEATHSIG, asked.value, 0, 0, 0)


async def serve(
    proxy: EgressProxy, path: Path, *, user: str = "", group: str = "", metrics_port: int = 0
) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    exposed = MetricsServer()
    if metrics_port:
        await exposed.start("127.0.0.1", metrics_port)
    await proxy.listen(path, group)
    if user:
        drop_privileges(user)
    print(f"ready {path}", flush=True)
    try:
        await stop.wait()
    finally:
        await proxy.close()
        await exposed.close()


def main(arguments: list[str] | None = None) -> int:
    parser = OptionsParser(
        prog="pokerarena egress-proxy", description="Let approved hosted agents out, within bounds."
    )
    parser.add_argument("--name", required=True, help="the agent-host that it serves")
    parser.add_argument(
        "--public-keys", type=Path, required=True, help="the public keys of all services"
    )
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--user", default="", help="whom to become once it listens")
    parser.add_argument("--group", default="", help="whose socket it is: that of the agent-host")
    parser.add_argument("--allow-private", action="store_true", help="private addresses, too")
    parser.add_argument("--deny-network", type=ip_network, action="append", default=[])
    parser.add_argument("--metrics-port", type=int, default=0, help="on loopback; 0 for none")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING"))
    bounds = parser.add_argument_group("bounds")
    for field in fields(EgressLimits):
        bounds.add_argument(
            f"--{field.name.replace('_', '-')}", type=int, default=field.default, metavar="N"
        )
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except ArenaError as error:
        print(f"egress-proxy: {error.message}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    refuse_secrets(os.environ)
    configure_logging(options.log_level, "auto", role="egress-proxy")
    try:
        limits = EgressLimits(
            **{field.name: getattr(options, field.name) for field in fields(EgressLimits)}
        )
    except ValueError as error:
        raise ConfigurationError(f"{error}") from None
    judge = grants.judge_of(options.name, WatchedFile(options.public_keys, parse_key_set))
    frame = EgressPolicy(
        allow_private=options.allow_private,
        port_ranges=ALL_PORTS,
        denied_networks=tuple(options.deny_network),
    )

    async def run() -> None:
        proxy = EgressProxy(judge, frame, limits)
        await serve(
            proxy,
            options.socket,
            user=options.user,
            group=options.group,
            metrics_port=options.metrics_port,
        )

    asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
