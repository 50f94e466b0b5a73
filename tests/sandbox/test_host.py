"""agent-host as a real process: tokens, refusals, play, death, and what it does not hold."""

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import pokerarena
import pokerarena_sdk
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.errors import ConfigurationError, Unavailable
from pokerarena.sandbox import cgroups, wire
from pokerarena.sandbox.archive import pack, read_upload
from pokerarena.sandbox.confinement import clean_environment, refuse_secrets
from pokerarena.sandbox.home import CGROUP_PARENT
from pokerarena.sandbox.host_client import HostAddress, HostConnection, HostPool
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.remote_player import RemotePlayer
from pokerarena.sandbox.tickets import collect, counter_path
from pokerarena.service_identity.keys import (
    ServiceName,
    new_private_key,
    parse_key_set,
    parse_private_key,
)
from pokerarena.service_identity.rotation import publish, read_private_key, rotate
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.watched_file import Fixed, WatchedFile
from tests.sandbox.conftest import TIGHT, Hosted, upload

SOURCES = [Path(pokerarena.__file__).parents[1], Path(pokerarena_sdk.__file__).parents[1]]
CALLER = "def act(view): return view.check_or_call()"
pytestmark = pytest.mark.usefixtures("runc")


class Host:
    """A running agent-host and how to reach it."""

    def __init__(self, folder, root_tree, name, *extra, environ=None):
        self.folder = folder
        self.name = name
        self.socket = folder / f"{name}.sock"
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
    for service, name in ((ServiceName.WORKER, "worker"), (ServiceName.AGENT_HOST, "host")):
        publish(service, open_folder / f"{name}.pem", open_folder / "service-keys.json")
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
        pool.packages, pool.loads = packages, loads
        return pool

    yield make
    for pool in pools:
        pool.close()
    await asyncio.sleep(0.05)


WAYS = ["frames", "leases"]


def remote(pool, source, limits=TIGHT, way="frames", **manifest):
    """A player on a host: its callbacks as frames, or on a sandbox leased from it."""
    package = read_upload(upload(source, **manifest))
    pool.packages[package.digest] = pack(package)
    pool.last_digest = package.digest
    if way == "leases":
        player = pool.player(package.digest, package.manifest, limits)
        assert isinstance(player, HostedPlayer)
        return player
    return RemotePlayer(
        pool, package.digest, package.manifest.max_in_flight, limits,
        events=package.manifest.events,
    )  # fmt: skip


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


@pytest.mark.parametrize("way", WAYS)
async def test_an_agent_plays_on_a_host_and_its_package_travels_once(start_host, pool_for, way):
    pool = pool_for(start_host())
    first = await opened(pool, CALLER, way=way, max_in_flight=32)
    assert (await first.ask()).action == "call"
    assert [reply.action for reply in await first.many(32)] == ["call"] * 32
    second = await opened(pool, CALLER, way=way, max_in_flight=32)
    assert (await second.ask()).action == "call"
    assert len(pool.loads) == 1
    await first.player.close()
    await second.player.close()
    usage = first.player.usage()
    assert usage.starts == 1
    assert usage.cpu_ns > 0
    assert usage.memory_peak_bytes > 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def act(view): return 1 / 0", FallbackReason.MALFORMED),
        ("def act(view):\n while True: pass", FallbackReason.SANDBOX_CPU),
        ("def act(view): x = bytearray(300 << 20)", FallbackReason.SANDBOX_MEMORY),
        ("def act(view): import os; os._exit(4)", FallbackReason.SANDBOX_EXIT),
        ("import time\ndef act(view): time.sleep(60)", FallbackReason.TIMEOUT),
        ("import nosuchmodule", FallbackReason.SANDBOX_EXIT),
    ],
)
@pytest.mark.parametrize("way", WAYS)
async def test_the_agents_own_failures_arrive_under_their_own_names(
    start_host, pool_for, source, reason, way
):
    agent = await opened(pool_for(start_host()), source, way=way)
    # Long where only the quota should end it, so that a busy machine changes nothing.
    reply = await agent.ask(1_000 if reason is FallbackReason.TIMEOUT else 20_000)
    assert isinstance(reply, Failure)
    assert reply.reason is reason
    await agent.player.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_dead_host_voids_what_is_in_flight_and_play_goes_on_elsewhere(
    start_host, pool_for, way
):
    one, other = start_host("one"), start_host("other")
    pool = pool_for(one, other)
    source = (
        "import time\ndef act(view):\n"
        " if view.hand_no == 2: time.sleep(1)\n return view.check_or_call()"
    )
    agents = [await opened(pool, source, way=way) for _ in range(4)]
    assert {reply.action for reply in await asyncio.gather(*(a.ask() for a in agents))} == {"call"}
    on_one = [a for a in agents if host_of(a) == "one"]
    assert 0 < len(on_one) < 4, "both hosts are used"
    tasks = [asyncio.create_task(agent.ask(hand_no=2)) for agent in agents]
    await asyncio.sleep(0.2)
    one.end(signal.SIGKILL)
    replies = await asyncio.gather(*tasks)
    for agent, reply in zip(agents, replies, strict=True):
        if agent in on_one:
            assert reply.reason is FallbackReason.INFRASTRUCTURE
        else:
            assert reply.action == "call"
    # The next hand of everybody is played, on the host that is left.
    after = await asyncio.gather(*(agent.ask() for agent in agents))
    assert [reply.action for reply in after] == ["call"] * 4
    for agent in agents:
        await agent.player.close()
    deadline_s = time.monotonic() + 10
    while list((one.folder / "base-one").iterdir()) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", WAYS)
async def test_with_no_host_left_it_is_infrastructure_until_one_comes_back(
    start_host, pool_for, way
):
    host = start_host()
    pool = pool_for(host)
    agent = await opened(pool, CALLER, way=way)
    host.end(signal.SIGKILL)
    await asyncio.sleep(0.1)
    reply = await agent.ask(500)
    assert reply.reason is FallbackReason.INFRASTRUCTURE
    await asyncio.sleep(1.1)
    start_host("one")
    assert (await agent.ask()).action == "call"
    await agent.player.close()


async def test_a_full_host_refuses_and_the_worker_takes_another(start_host, pool_for):
    small = start_host("one", "--players-max", "1")
    large = start_host("two", "--players-max", "2")
    pool = pool_for(small, large)
    agents = [await opened(pool, CALLER) for _ in range(3)]
    assert sorted(host_of(agent) for agent in agents) == ["one", "two", "two"]
    with pytest.raises(Unavailable, match="no room"):
        await opened(pool, CALLER)
    await agents[0].player.close()
    again = await opened(pool, CALLER)
    assert (await again.ask()).action == "call"


@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_that_goes_away_leaves_no_sandbox_behind(start_host, pool_for, way):
    host = start_host()
    pool = pool_for(host)
    agent = await opened(pool, CALLER, way=way)
    [instance] = [path.name for path in (host.folder / "base-one").iterdir()]
    parent = f"{CGROUP_PARENT}/{instance}"
    assert cgroups.leftovers(cgroups.detect(), parent)
    pool.close()
    deadline_s = time.monotonic() + 10
    while cgroups.leftovers(cgroups.detect(), parent) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
    assert cgroups.leftovers(cgroups.detect(), parent) == []
    await agent.player.close()


async def test_a_worker_cannot_ask_for_more_than_the_host_allows(start_host, pool_for):
    greedy = replace(TIGHT, memory_bytes=64 << 30, cpu_cores=64, pids_max=10_000)
    agent = await opened(
        pool_for(start_host()),
        "import resource\ndef act(view):\n"
        " return view.check_or_call().with_note(str(resource.getrlimit(resource.RLIMIT_NPROC)[1]))",
        greedy,
    )
    assert (await agent.ask()).note == "64"


async def test_a_leased_agent_is_started_again_and_frozen_between_turns(start_host, pool_for):
    source = (
        "import os\ndef act(view):\n"
        " if view.hand_no == 666: os._exit(3)\n return view.check_or_call()"
    )
    agent = await opened(pool_for(start_host()), source, way="leases")
    assert (await agent.ask()).action == "call"
    await asyncio.sleep(0.05)
    assert agent.process.meter.frozen
    reply = await agent.ask(hand_no=666)
    assert reply.reason is FallbackReason.SANDBOX_EXIT
    assert "exit code 3" in reply.detail
    assert (await agent.ask(5_000)).action == "call"
    assert agent.player.usage().starts == 2
    await agent.player.close()


async def test_a_ticket_is_good_once_and_only_where_it_was_offered(start_host, pool_for):
    host = start_host()
    agent = await opened(pool_for(host), CALLER, way="leases")
    for ticket in (b"\0" * 32, os.urandom(32)):
        with pytest.raises(Unavailable, match="no descriptors"):
            await collect(counter_path(host.socket), ticket)
    assert (await agent.ask()).action == "call"
    await agent.player.close()


# Who may connect.


async def test_without_a_valid_token_nothing_is_done(start_host, keys):
    host = start_host()
    # A key that nobody published, and one that was, for another service than a worker.
    for key in (new_private_key(), read_private_key(keys / "host.pem")):
        stranger = worker_identity(keys, key)
        with pytest.raises(Unavailable):
            await HostConnection(HostAddress("one", host.socket), stranger).connect()
    # Frames before the token end the connection.
    reader, writer = await asyncio.open_unix_connection(str(host.socket))
    frame = wire._encode(wire.OpenPlayer(1, "0" * 64, {}, None))
    writer.write(len(frame).to_bytes(4, "big") + frame)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    # So does a frame of a size that nobody may send yet.
    reader, writer = await asyncio.open_unix_connection(str(host.socket))
    writer.write((1 << 30).to_bytes(4, "big"))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


async def test_a_worker_talks_to_nobody_but_the_host_that_it_means(start_host, keys):
    """Who took a host's place has the set of public keys at most, or another host's key."""
    publish(ServiceName.AGENT_HOST, keys / "unknown.pem", keys / "elsewhere.json")
    pretender = start_host("pretender", "--key", str(keys / "unknown.pem"))
    for name in ("pretender", "one"):
        address = HostAddress(name, pretender.socket)
        with pytest.raises(Unavailable):
            await HostConnection(address, worker_identity(keys)).connect()


async def test_keys_are_rotated_while_workers_come_and_go(start_host, keys, pool_for):
    host = start_host()
    agent = await opened(pool_for(host), CALLER)
    address = HostAddress("one", host.socket)
    over = asyncio.Event()
    connected = 0

    async def come_and_go():
        nonlocal connected
        mine = worker_identity(keys)
        while not over.is_set():
            connection = HostConnection(address, mine)
            await connection.connect()
            connection.close()
            connected += 1
            await asyncio.sleep(0.01)

    visitors = [asyncio.create_task(come_and_go()) for _ in range(4)]
    rotations = [
        asyncio.to_thread(
            rotate,
            service,
            keys / f"{name}.pem",
            keys / "service-keys.json",
            noticed_after_s=1.5,
            lapses_after_s=0.5,
        )
        for service, name in ((ServiceName.WORKER, "worker"), (ServiceName.AGENT_HOST, "host"))
    ]
    old = read_private_key(keys / "worker.pem")
    try:
        await asyncio.gather(*rotations)
    finally:
        over.set()
        # A connection that was refused raises here.
        await asyncio.gather(*visitors)
    assert connected > 20
    assert (await agent.ask()).action == "call"
    # Retired means refused, within the second in which the host looks at the file again.
    robbed = worker_identity(keys, old)
    async with asyncio.timeout(30):
        while True:
            connection = HostConnection(address, robbed)
            try:
                await connection.connect()
            except Unavailable as error:
                assert "not known here" in error.message
                break
            connection.close()
            await asyncio.sleep(0.1)
    await agent.player.close()
    await asyncio.sleep(0.1)


async def test_a_package_that_is_not_the_one_named_is_refused(start_host, pool_for):
    pool = pool_for(start_host())
    player = remote(pool, CALLER)
    other = remote(pool, CALLER + " ")
    pool.packages[player._digest] = pool.packages[other._digest]
    with pytest.raises(Unavailable, match="not the one that was named"):
        await player.open()


async def test_over_tls_it_works_the_same(start_host, keys, identity, tmp_path):
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", private, "-out", certificate, "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    host = start_host(
        "one", "--listen", "127.0.0.1:0", "--tls-certificate", str(certificate),
        "--tls-private", str(private),
    )  # fmt: skip
    address, _, port = host.where.rpartition(":")
    context = ssl.create_default_context(cafile=str(certificate))
    package = read_upload(upload(CALLER))

    async def load(_):
        return pack(package)

    pool = HostPool([HostAddress("one", None, address, int(port), context)], identity, load)
    player = RemotePlayer(pool, package.digest, 1, TIGHT)
    await player.open()
    assert (await Hosted(player).ask()).action == "call"
    await player.close()
    pool.close()
    await asyncio.sleep(0.05)
    # A client that does not know the certificate refuses to talk.
    strict = HostAddress("one", None, address, int(port), ssl.create_default_context())
    with pytest.raises(Unavailable):
        await HostConnection(strict, identity).connect()
    await asyncio.sleep(0.1)


# What it holds.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POKERARENA_DATABASE_URL", "x"),
        ("POKERARENA_MASTER_KEY", "x"),
        ("POKERARENA_MASTER_KEY_FILE", "/run/secrets/x"),
        ("POKERARENA_TOKEN_PEPPER", "x"),
        ("POKERARENA_MASTER_KEYS_PREVIOUS", "x"),
        ("POKERARENA_TOKEN_PEPPERS_PREVIOUS_FILE", "/run/secrets/x"),
        ("PGPASSWORD", "x"),
        ("SOME_API_KEY", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("GITHUB_TOKEN", "x"),
        ("ANYTHING", "postgresql+psycopg://user@host/db"),
        ("ANYTHING", "https://user:secret@host/"),  # pragma: allowlist secret
        ("ANYTHING", "-----BEGIN PRIVATE KEY-----"),  # pragma: allowlist secret
    ],
)
def test_it_refuses_to_start_with_a_secret_and_names_the_variable(name, value):
    with pytest.raises(ConfigurationError, match=name):
        refuse_secrets({"PATH": "/usr/bin", name: value})


def test_an_ordinary_environment_is_accepted():
    refuse_secrets({"PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": "/root", "TZ": "UTC"})
    kept = clean_environment({"PATH": "/bin", "POKERARENA_MASTER_KEY": "x", "HOME": "/root"})
    assert kept == {"PATH": "/bin"}


def test_the_process_itself_refuses(keys, root_tree):
    environ = clean_environment(os.environ) | {
        "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
        "POKERARENA_DATABASE_URL": "postgresql+psycopg://x",
    }
    host = Host(keys, root_tree, "one", environ=environ)
    _, errors = host.process.communicate(timeout=20)
    assert host.process.returncode == 1
    assert "POKERARENA_DATABASE_URL" in errors
    assert "postgresql" not in errors


def test_of_keys_it_takes_its_own_and_a_set_of_public_ones(keys, root_tree):
    shutil.copy(keys / "host.pem", keys / "service-keys.json")
    host = Host(keys, root_tree, "one")
    _, errors = host.process.communicate(timeout=20)
    assert host.process.returncode == 1
    assert "no set of public keys" in errors
    assert (keys / "host.pem").stat().st_mode & 0o077 == 0


async def test_a_running_host_has_no_secret_no_network_and_no_sight_of_hidden_folders(
    start_host, open_folder, monkeypatch
):
    monkeypatch.setenv("POKERARENA_MASTER_KEY", "hunted")
    hidden = open_folder / "database"
    hidden.mkdir()
    (hidden / "socket").write_text("hunted")
    host = start_host("one", "--hide", str(hidden))
    proc = Path(f"/proc/{host.process.pid}")
    assert b"hunted" not in (proc / "environ").read_bytes()
    devices = [
        line.split(":")[0].strip() for line in (proc / "net/dev").read_text().splitlines()[2:]
    ]
    assert devices == ["lo"]
    assert len((proc / "net/tcp").read_text().splitlines()) == 1
    root = proc / "root" / str(hidden).lstrip("/")
    assert list(root.iterdir()) == []
    assert (hidden / "socket").read_text() == "hunted"
