"""Hosts on a network of their own: namespaces, a bridge, and cables that can be cut.

Owns: one namespace with the bridge (the hub, where a database listens), one for each host, and the
programs started in them. Nothing here touches the machine's own network: the addresses exist in the
namespaces only, and no packet has a way out. A namespace lives as long as the process that holds
it, which ends with this one, so that nothing is left behind however the tests end.

Nothing here skips. Where namespaces cannot be made the test fails and says what is missing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

import psycopg
import pytest
from psycopg import sql

from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.ops.privileges import DatabaseRole

SUBNET: Final = "10.213.7"
HUB_ADDRESS: Final = f"{SUBNET}.1"
_CLONE_NEWNET: Final = 0x4000_0000
_PROGRAMS: Final = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}
# The password of one test's own database, reachable from its own namespaces only.
PASSWORD: Final = "cut-and-mended"  # pragma: allowlist secret


N = TypeVar("N", bound="Namespace")


class Namespace:
    """A network namespace, held by a process that waits for the end of its input."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo held; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "held\n":
            said = self._holder.communicate()[1].strip()
            pytest.fail(f"this test makes network namespaces, which needs root: {said}")
        self.pid = self._holder.pid
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> str:
        return f"/proc/{self.pid}/ns/net"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command line so that it runs in here."""
        return ("nsenter", f"--net={self.path}")

    def run(self, *command: str) -> None:
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace, and so is what it starts meanwhile."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as home, Path(self.path).open() as here:
            assert libc.setns(here.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0, "the thread is lost"

    def close(self) -> None:
        self._holder.communicate()


class Host(Namespace):
    """One machine on the network."""

    def __init__(self, hub: Namespace, number: int) -> None:
        super().__init__()
        self._hub = hub
        self._cable = f"host{number}"
        self.address = f"{SUBNET}.{number + 1}"
        hub.run(
            *("ip", "link", "add", self._cable, "type", "veth"),
            *("peer", "name", "eth0", "netns", str(self.pid)),
        )
        hub.run("ip", "link", "set", self._cable, "master", "bridge", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def cut(self) -> None:
        """Its packets vanish from now on, both ways, and nobody is told."""
        self._hub.run("ip", "link", "set", self._cable, "nomaster")

    def mend(self) -> None:
        self._hub.run("ip", "link", "set", self._cable, "master", "bridge")


class Network:
    """The hub with its bridge, and the hosts on it; use it as a context manager."""

    def __init__(self, hosts: int) -> None:
        self._count = hosts
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        missing = {package for name, package in _PROGRAMS.items() if not shutil.which(name)}
        if missing or os.geteuid() != 0:
            pytest.fail(f"this test makes network namespaces: run it as root, with {missing or ''}")
        with self._stack as stack:
            self.hub = self._held(Namespace())
            self.hub.run("ip", "link", "add", "bridge", "type", "bridge")
            self.hub.run("ip", "address", "add", f"{HUB_ADDRESS}/24", "dev", "bridge")
            self.hub.run("ip", "link", "set", "bridge", "up")
            self.hosts = [self._held(Host(self.hub, number + 1)) for number in range(self._count)]
            self._stack = stack.pop_all()
        return self

    def _held(self, namespace: N) -> N:
        self._stack.callback(namespace.close)
        return namespace

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def let_in_hosts(postgres: EmbeddedPostgres) -> str:
    """Let the worker's role in from the hosts, with a password; its address there.

    The server was started in the hub with `listen_addresses` set to the hub's.
    """
    role = DatabaseRole.WORKER.value
    with (postgres.data_dir / "pg_hba.conf").open("a") as rules:
        rules.write(f"host pokerarena {role} {SUBNET}.0/24 scram-sha-256\n")
    with psycopg.connect(postgres.conninfo(), autocommit=True) as database:
        database.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(PASSWORD))
        )
        database.execute("SELECT pg_reload_conf()")
    return f"postgresql+psycopg://{role}:{PASSWORD}@{HUB_ADDRESS}/pokerarena"


def left_over(network: Network) -> list[str]:
    """Namespaces of a closed network that somebody still holds."""
    return [host.path for host in (network.hub, *network.hosts) if Path(host.path).exists()]
