"""agent-host as a real process: tokens, refusals, play, death, and what it does not hold."""

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pokerarena
import pokerarena_sdk
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.errors import ConfigurationError, Unauthenticated, Unavailable
from pokerarena.ops import system_user
from pokerarena.sandbox import cgroups, wire
from pokerarena.sandbox.archive import pack, read_upload
from pokerarena.sandbox.confinement import clean_environment, refuse_secrets
from pokerarena.sandbox.home import CGROUP_PARENT
from pokerarena.sandbox.host_client import HostAddress, HostConnection, HostPool
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.remote_player import RemotePlayer
from pokerarena.sandbox.runtime import RuntimeName
from pokerarena.sandbox.service_tokens import (
    TokenJudge,
    TokenMaker,
    read_private_key,
    read_public_key,
    write_key_pair,
)
from pokerarena.sandbox.tickets import collect, counter_path
from tests.sandbox.conftest import TIGHT, Hosted, upload

SOURCES = [Path(pokerarena.__file__).parents[1], Path(pokerarena_sdk.__file__).parents[1]]
CALLER = "def act(view): return view.check_or_call()"
HOST_USER = "pokerarena-host"
pytestmark = pytest.mark.usefixtures("runc")


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
            "--public-key", str(folder / "public.pem"), "--rootfs", str(root_tree.parent),
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
    write_key_pair(open_folder / "private.pem", open_folder / "public.pem")
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


@pytest.fixture
def tokens(keys):
    return TokenMaker(read_private_key(keys / "private.pem"), "worker-1", time.time)


@pytest.fixture
async def pool_for(tokens):
    packages = {}
    loads = []
    pools = []

    async def load(digest):
        loads.append(digest)
        return packages[digest]

    def make(*hosts):
        pool = HostPool([HostAddress(host.name, host.socket) for host in hosts], tokens, load)
        pools.append(pool)
        pool.host_folder = hosts[0].folder
        pool.packages, pool.loads = packages, loads
        return pool

    yield make
    for pool in pools:
        pool.close()
    await asyncio.sleep(0.05)


async def no_package(digest):
    raise AssertionError(digest)


WAYS = ["frames", "leases"]


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


@pytest.mark.parametrize("way", WAYS)
async def test_lines_that_answer_nothing_are_counted_for_the_owner(start_host, pool_for, way):
    source = (
        "import os\nOUT = os.dup(1)\ndef act(view):\n"
        ' os.write(OUT, b\'{"action": "fold", "decision_id": "nobody asked"}\\n\' * 2)\n'
        " return view.check_or_call()"
    )
    agent = await opened(pool_for(start_host()), source, way=way)
    assert (await agent.ask()).action == "call"
    assert (await agent.ask()).action == "call"
    await agent.player.close()
    assert agent.player.usage().stray_lines == 4


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


async def test_a_full_host_lets_wait_and_the_worker_takes_another_meanwhile(start_host, pool_for):
    small = start_host("one", "--players-max", "1")
    large = start_host("two", "--players-max", "2")
    pool = pool_for(small, large)
    bookings = [pool.book(1, TIGHT) for _ in range(3)]
    agents = [await opened(pool, CALLER, booking=one) for one in bookings]
    assert sorted(host_of(agent) for agent in agents) == ["one", "two", "two"]
    late = pool.book(1, TIGHT)
    assert not await late.held(0.2)
    with pytest.raises(Unavailable, match="has room"):
        await opened(pool, CALLER, booking=late)
    await agents[0].player.close()
    bookings[0].release()
    again = await opened(pool, CALLER, booking=late)
    assert (await again.ask()).action == "call"


async def test_room_for_a_run_is_given_as_a_whole_in_the_order_of_arrival(start_host, pool_for):
    pool, other = (pool_for(host) for host in [start_host("one", "--players-max", "4")] * 2)
    first, rest = pool.book(3, TIGHT), pool.book(1, TIGHT)
    assert await first.held(10)
    assert await rest.held(10)
    # A large one waits; a small one that would fit earlier does not overtake it.
    large, small = pool.book(4, TIGHT), other.book(1, TIGHT)
    assert not await large.held(0.2)
    assert not await small.held(0.2)
    first.release()
    assert not await small.held(0.2)
    assert not await large.held(0.2)
    # One that lost its host, or is over in seconds, goes first.
    urgent = other.book(3, TIGHT, urgent=True)
    assert await urgent.held(10)
    urgent.release()
    rest.release()
    assert await large.held(10)
    assert not await small.held(0.2)
    large.release()
    assert await small.held(10)
    # More than there will ever be is no reason to wait.
    with pytest.raises(Unavailable, match="never has room for 5 agents"):
        await pool.book(5, TIGHT).held(10)
    with pytest.raises(Unavailable, match="offers runc"):
        await pool.book(1, TIGHT, RuntimeName.RUNSC).held(10)


async def test_agents_beyond_the_booked_number_are_not_started(start_host, pool_for):
    pool = pool_for(start_host())
    booking = pool.book(1, TIGHT)
    agent = await opened(pool, CALLER, booking=booking)
    with pytest.raises(Unavailable, match="no booked room"):
        await opened(pool, CALLER, booking=booking)
    # What is still in it ends when the room is given back.
    [instance] = [path.name for path in (pool.host_folder / "base-one").iterdir()]
    booking.release()
    deadline_s = time.monotonic() + 10
    parent = f"{CGROUP_PARENT}/{instance}"
    while cgroups.leftovers(cgroups.detect(), parent) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
    assert cgroups.leftovers(cgroups.detect(), parent) == []
    await agent.player.close()


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


def fresh(maker, **changes):
    return maker.make(changes.pop("audience", "one"), **changes)


def test_a_token_is_for_one_audience_and_a_short_time(keys, tokens):
    now = [time.time()]
    judge = TokenJudge(read_public_key(keys / "public.pem"), "one", lambda: now[0])
    assert judge.judge(fresh(tokens)).subject == "worker-1"
    stranger = TokenMaker(Ed25519PrivateKey.generate(), "worker-1", time.time)
    good = fresh(tokens)
    header, claims, signature = good.split(".")
    for bad in (
        fresh(tokens, audience="two"),
        fresh(stranger),
        fresh(tokens, lifetime_s=3600),
        f"{header}.{claims}.{signature[:-4]}AAAA",
        f"{header}.{claims}.",
        f"eyJhbGciOiJub25lIn0.{claims}.",
        f"{good}=",
        "",
        "a.b.c",
        "x" * 5_000,
    ):
        with pytest.raises(Unauthenticated):
            judge.judge(bad)
    now[0] += 75
    with pytest.raises(Unauthenticated, match="not valid at this time"):
        judge.judge(good)


async def test_without_a_valid_token_nothing_is_done(start_host, keys):
    host = start_host()
    stranger = TokenMaker(Ed25519PrivateKey.generate(), "worker-1", time.time)
    with pytest.raises(Unavailable):
        await HostConnection(HostAddress("one", host.socket), stranger, no_package).connect()
    # Frames before the token end the connection.
    reader, writer = await asyncio.open_unix_connection(str(host.socket))
    frame = wire._encode(wire.OpenPlayer(1, 1, "0" * 64, {}, None))
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


async def test_a_package_that_is_not_the_one_named_is_refused(start_host, pool_for):
    pool = pool_for(start_host())
    player = remote(pool, CALLER)
    other = remote(pool, CALLER + " ")
    pool.packages[player._digest] = pool.packages[other._digest]
    with pytest.raises(Unavailable, match="not the one that was named"):
        await player.open()


async def test_over_tls_it_works_the_same(start_host, keys, tokens, tmp_path):
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

    pool = HostPool([HostAddress("one", None, address, int(port), context)], tokens, load)
    player = pool.book(1, TIGHT).player(package.digest, package.manifest)
    assert isinstance(player, RemotePlayer)
    await player.open()
    assert (await Hosted(player).ask()).action == "call"
    await player.close()
    pool.close()
    await asyncio.sleep(0.05)
    # A client that does not know the certificate refuses to talk.
    strict = HostAddress("one", None, address, int(port), ssl.create_default_context())
    with pytest.raises(Unavailable):
        await HostConnection(strict, tokens, no_package).connect()
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


def test_a_private_key_is_refused_where_a_public_one_belongs(keys):
    with pytest.raises(ConfigurationError, match="holds no other"):
        read_public_key(keys / "private.pem")
    assert (keys / "private.pem").stat().st_mode & 0o077 == 0


# What somebody would look for who got out of a sandbox and into the agent-host.
PROBE = """
import json, os, socket, sys
folder, port = sys.argv[1], int(sys.argv[2])
found = {"uid": os.getuid(), "read": [], "written": [], "connected": []}
for where, folders, files in os.walk(folder):
    for name in files:
        try:
            found["read"].append(open(os.path.join(where, name), "rb").read().decode())
        except OSError:
            pass
for path in (folder + "/planted", "/etc/planted", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
    try:
        with open(path, "a"):
            found["written"].append(path)
    except OSError:
        pass
database = folder + "/postgres/.s.PGSQL.5432"
for kind, address in ((socket.AF_UNIX, database), (socket.AF_INET, ("127.0.0.1", port))):
    try:
        socket.socket(kind).connect(address)
        found["connected"].append(str(address))
    except OSError:
        pass
found["network"] = [name for _, name in socket.if_nameindex()]
environment = open(f"/proc/{sys.argv[3]}/environ", "rb").read()
found["environment"] = [one.decode() for one in environment.split(b"\\0")]
print(json.dumps(found))
"""


async def test_from_inside_a_host_there_is_no_secret_no_database_and_no_right(
    start_host, pool_for, open_folder, monkeypatch
):
    """By a program in all of its namespaces, as its user: with everything that it has itself."""
    monkeypatch.setenv("POKERARENA_MASTER_KEY", "hunted")
    system_user.ensure(HOST_USER)
    data = open_folder / "data"
    for name in ("secrets", "postgres", "logs"):
        (data / name).mkdir(parents=True, mode=0o700)
        (data / name / "canary").write_text("hunted")
        (data / name / "canary").chmod(0o600)
    (data / "postgres").chmod(0o711)
    database = socket.socket(socket.AF_UNIX)
    database.bind(str(data / "postgres" / ".s.PGSQL.5432"))
    database.listen()
    (data / "postgres" / ".s.PGSQL.5432").chmod(0o777)
    api = socket.create_server(("127.0.0.1", 0))
    host = start_host("one", "--user", HOST_USER, "--hide", str(data / "postgres"))
    agent = await opened(pool_for(host), CALLER, way="leases")
    assert (await agent.ask()).action == "call"
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    assert f"Uid:\t{pwd.getpwnam(HOST_USER).pw_uid}\t" in status
    assert "NoNewPrivs:\t1" in status
    with database, api:
        probed = subprocess.run(
            ["nsenter", "--target", str(host.process.pid), "--user", "--mount", "--net",
             "/usr/bin/python3", "-c", PROBE, str(data), str(api.getsockname()[1]),
             str(host.process.pid)],
            capture_output=True, text=True, check=True, env={"PATH": os.defpath},
        )  # fmt: skip
    found = json.loads(probed.stdout)
    assert found["uid"] == 0, "the probe is as strong as the host itself"
    assert (found["read"], found["written"], found["connected"]) == ([], [], [])
    assert found["network"] == ["lo"]
    assert not [one for one in found["environment"] if "hunted" in one or "POKERARENA" in one]
    await agent.player.close()


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
