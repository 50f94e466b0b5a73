"""agent-host: the process that runs hosted agents for workers, apart from the control plane.

Owns the server side: who may connect, how many agents fit, and their players. It holds no database
address and no secret but the key that says who it is, and refuses to start where it finds more.

    python -m pokerarena.sandbox.host --socket PATH --name NAME --key FILE --public-keys FILE …
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pokerarena.errors import ArenaError, ConfigurationError
from pokerarena.sandbox import cgroups, rootfs
from pokerarena.sandbox.agent_host import AgentHost, HostSettings
from pokerarena.sandbox.confinement import cut_off, program_folders, refuse_secrets
from pokerarena.sandbox.home import CGROUP_PARENT, DEFAULT_BASE, SandboxHome
from pokerarena.sandbox.limits import MIB
from pokerarena.sandbox.other_user import become
from pokerarena.sandbox.runtime import RuntimeName, find_runtime
from pokerarena.sandbox.store import AgentStore
from pokerarena.sandbox.tickets import TicketCounter, counter_path
from pokerarena.service_identity.keys import ServiceName, parse_key_set, parse_private_key
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.watched_file import WatchedFile


async def serve(
    host: AgentHost,
    *,
    socket_path: Path | None = None,
    address: tuple[str, int] | None = None,
    tls: ssl.SSLContext | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or SIGINT, then leave nothing behind."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if socket_path is not None:
        # Before anybody is served there is nothing that a blocking call could hold up.
        socket_path.unlink(missing_ok=True)  # noqa: ASYNC240
        host.counter = TicketCounter(counter_path(socket_path))
        server = await loop.create_unix_server(host.connection, str(socket_path))
        socket_path.chmod(0o660)  # noqa: ASYNC240
        where = str(socket_path)
    elif address is not None and tls is not None:
        server = await loop.create_server(host.connection, *address, ssl=tls)
        where = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    else:
        raise ConfigurationError("give a socket path, or an address with a TLS certificate and key")
    ready(f"ready {where}")
    try:
        await stop.wait()
    finally:
        server.close()
        await host.close()


class OptionsParser(argparse.ArgumentParser):
    """Wrong usage is told in one line, as by every command."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    parser = OptionsParser(prog="pokerarena agent-host", description="Run hosted agents.")
    parser.add_argument("--name", required=True, help="the audience of its tokens")
    parser.add_argument("--key", type=Path, required=True, help="its own private key, in PEM")
    parser.add_argument(
        "--public-keys", type=Path, required=True, help="the public keys of all services"
    )
    parser.add_argument("--rootfs", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="where it keeps sandboxes that run")
    parser.add_argument(
        "--runtime", type=RuntimeName, action="append", help="repeat it to offer several"
    )
    parser.add_argument("--socket", type=Path)
    parser.add_argument("--listen", help="HOST:PORT, with --tls-certificate and --tls-private")
    parser.add_argument("--tls-certificate", type=Path)
    parser.add_argument("--tls-private", type=Path)
    parser.add_argument("--players-max", type=int, default=64)
    parser.add_argument("--memory-mib", type=int, default=4096)
    parser.add_argument("--user", help="whom it becomes after its start; it has to start as root")
    parser.add_argument("--hide", type=Path, action="append", default=[])
    parser.add_argument("--egress-proxy", type=Path, help="its socket; none: no agent gets out")
    parser.add_argument("--build-rootfs", action="store_true", help="where it is missing")
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except ArenaError as error:
        print(f"agent-host: {error.message}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    refuse_secrets(os.environ)
    identity = ServiceIdentity(
        ServiceName.AGENT_HOST,
        options.name,
        key=WatchedFile(options.key, parse_private_key, private=True),
        keys=WatchedFile(options.public_keys, parse_key_set),
        believes={ServiceName.WORKER},
    )
    wanted = dict.fromkeys(options.runtime or [RuntimeName.RUNC])
    runtimes = [find_runtime(name) for name in wanted]
    if wrong := rootfs.check_record(options.rootfs):
        if not options.build_rootfs:
            raise ConfigurationError(wrong)
        # Ending must end the programs that build it as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        rootfs.build(options.rootfs)
    tls, address = None, None
    if options.listen:
        if not (options.tls_certificate and options.tls_private):
            raise ConfigurationError("--listen needs --tls-certificate and --tls-private")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls_certificate, options.tls_private)
        name, _, port = options.listen.rpartition(":")
        address = (name, int(port))
    # Behind a socket on this machine it needs no network at all.
    cgroup_parent = CGROUP_PARENT
    kept = program_folders() if options.user else {}
    cut_off(options.hide, network=address is not None, kept=kept)
    base = options.base or DEFAULT_BASE
    if options.user:
        base = options.base or DEFAULT_BASE.with_name(f"{DEFAULT_BASE.name}-{options.user}")
        folders = (options.store, base)
        cgroup_parent = become(options.user, cgroups.detect(), folders)
    settings = HostSettings(
        options.name, players_max=options.players_max, memory_bytes=options.memory_mib * MIB
    )

    async def run() -> None:
        tree = options.rootfs / rootfs.ROOT
        homes = [
            SandboxHome(runtime, tree, base, cgroup_parent=cgroup_parent) for runtime in runtimes
        ]
        host = AgentHost(settings, homes, AgentStore(options.store), identity)
        host.egress_proxy = options.egress_proxy
        await serve(
            host,
            socket_path=options.socket,
            address=address,
            tls=tls,
            ready=lambda line: print(line, flush=True),
        )

    try:
        import uvloop
    except ImportError:
        asyncio.run(run())
    else:
        uvloop.run(run())


if __name__ == "__main__":
    sys.exit(main())
