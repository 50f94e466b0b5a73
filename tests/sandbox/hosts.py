"""Agent-hosts as real processes, for tests: started, reached, and gone without a trace."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pokerarena
import pokerarena_sdk
from pokerarena.sandbox.archive import pack, read_upload
from pokerarena.sandbox.confinement import clean_environment
from pokerarena.sandbox.host_client import HostAddress, HostPool
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.remote_player import RemotePlayer
from pokerarena.service_identity.keys import ServiceName, parse_key_set, parse_private_key
from pokerarena.service_identity.rotation import publish
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.watched_file import Fixed, WatchedFile
from tests.sandbox.conftest import TIGHT, Hosted, upload

SOURCES = [Path(pokerarena.__file__).parents[1], Path(pokerarena_sdk.__file__).parents[1]]
HOST_USER = "pokerarena-host"


class Host:
    """A running agent-host and how to reach it."""

    def __init__(self, folder, root_tree, name, *extra, environ=None):
        self.folder = folder
        self.name = name
        self.socket = folder / f"{name}.sock"
        if "--user" in extra:
            # A folder of its own, since it is not root when it makes its socket.
            self.socket = folder / f"run-{name}" / "host.sock"
            self.socket.parent.mkdir(exist_ok=True)
            shutil.chown(self.socket.parent, HOST_USER, HOST_USER)
        command = [
            sys.executable, "-m", "pokerarena.sandbox.host", "--name", name,
            "--key", str(folder / "host.pem"), "--public-keys", str(folder / "service-keys.json"),
            "--rootfs", str(root_tree.parent),
            "--store", str(folder / f"store-{name}"), "--base", str(folder / f"base-{name}"),
            *extra,
        ]  # fmt: skip
        if "--listen" not in extra:
            command += ["--socket", str(self.socket)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ
            or clean_environment(os.environ) | {"PYTHONPATH": os.pathsep.join(map(str, SOURCES))},
        )

    def wait_ready(self):
        line = self.process.stdout.readline()
        assert line.startswith("ready "), self.process.stderr.read()
        return line.split()[1]

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=20)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture
def keys(open_folder):
    publish_keys(open_folder)
    return open_folder


@pytest.fixture
def start_host(keys, root_tree):
    started = []

    def start(name="one", *extra):
        host = Host(keys, root_tree, name, *extra)
        started.append(host)
        host.where = host.wait_ready()
        return host

    yield start
    for host in started:
        host.end()
    for host in started:
        base = keys / f"base-{host.name}"
        assert not (base.exists() and list(base.iterdir()))


def publish_keys(folder):
    """A worker's key, a host's, and the set of both."""
    for service, name in ((ServiceName.WORKER, "worker"), (ServiceName.AGENT_HOST, "host")):
        publish(service, folder / f"{name}.pem", folder / "service-keys.json")


def worker_identity(keys, key=None):
    return ServiceIdentity(
        ServiceName.WORKER,
        "worker-1",
        key=Fixed(key) if key else WatchedFile(keys / "worker.pem", parse_private_key),
        keys=WatchedFile(keys / "service-keys.json", parse_key_set),
        believes={ServiceName.AGENT_HOST},
    )


@pytest.fixture
def identity(keys):
    return worker_identity(keys)


@pytest.fixture
async def pool_for(identity):
    packages = {}
    loads = []
    pools = []

    async def load(digest):
        loads.append(digest)
        return packages[digest]

    def make(*hosts):
        pool = HostPool([HostAddress(host.name, host.socket) for host in hosts], identity, load)
        pools.append(pool)
        pool.host_folder = hosts[0].folder
        pool.packages, pool.loads = packages, loads
        return pool

    yield make
    for pool in pools:
        pool.close()
    await asyncio.sleep(0.05)


def remote(pool, source, limits=TIGHT, way="frames", booking=None, **manifest):
    """A player on a host: its callbacks as frames, or on a sandbox leased from it."""
    booking = booking or pool.book(1, limits)
    package = read_upload(upload(source, **manifest))
    pool.packages[package.digest] = pack(package)
    pool.last_digest = package.digest
    if way == "leases":
        player = booking.player(package.digest, package.manifest)
        assert isinstance(player, HostedPlayer)
        return player
    return RemotePlayer(
        booking, package.digest, package.manifest.max_in_flight, events=package.manifest.events
    )


def host_of(agent):
    player = agent.player
    connection = (
        player._process._connection if isinstance(player, HostedPlayer) else player._connection
    )
    return connection.address.name


async def opened(pool, source, limits=TIGHT, way="frames", **manifest):
    player = remote(pool, source, limits, way, **manifest)
    await player.open()
    return Hosted(player)
