"""agent-host as a real process: tokens, refusals, play, death, and what it does not hold."""

import asyncio
import os
import signal
import time
from dataclasses import replace

import pytest

from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.errors import Unavailable
from pokerarena.sandbox import cgroups, wire
from pokerarena.sandbox.home import CGROUP_PARENT
from pokerarena.sandbox.host_client import HostAddress, HostConnection
from pokerarena.sandbox.runtime import RuntimeName
from pokerarena.sandbox.tickets import collect, counter_path
from pokerarena.service_identity.keys import ServiceName, new_private_key
from pokerarena.service_identity.rotation import publish, read_private_key, rotate
from tests.sandbox.conftest import TIGHT, Hosted
from tests.sandbox.hosts import host_of, opened, remote, worker_identity

CALLER = "def act(view): return view.check_or_call()"
pytestmark = pytest.mark.usefixtures("runc")


async def no_package(digest):
    raise AssertionError(digest)


WAYS = ["frames", "leases"]


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


@pytest.mark.parametrize("way", WAYS)
async def test_a_host_that_starts_nothing_is_left_for_another(start_host, pool_for, way):
    broken, sound = start_host("one"), start_host("two", "--players-max", "1")
    pool = pool_for(broken, sound)
    [instance] = (broken.folder / "base-one").iterdir()
    instance.rename(broken.folder / "gone")
    instance.touch()
    booking = pool.book(1, TIGHT)
    player = remote(pool, CALLER, way=way, booking=booking)
    # The broken one has more room, so it is asked first.
    with pytest.raises(Unavailable):
        await player.open()
    assert not await player.recovered(0.5)
    booking.move()
    assert await booking.held(10)
    assert await player.recovered(10)
    assert (await Hosted(player).ask()).action == "call"
    assert host_of(Hosted(player)) == "two"
    await player.close()
    instance.unlink()
    (broken.folder / "gone").rename(instance)


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


async def test_a_worker_talks_to_nobody_but_the_host_that_it_means(start_host, keys):
    """Who took a host's place has the set of public keys at most, or another host's key."""
    publish(ServiceName.AGENT_HOST, keys / "unknown.pem", keys / "elsewhere.json")
    pretender = start_host("pretender", "--key", str(keys / "unknown.pem"))
    for name in ("pretender", "one"):
        address = HostAddress(name, pretender.socket)
        with pytest.raises(Unavailable):
            await HostConnection(address, worker_identity(keys), no_package).connect()


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
            connection = HostConnection(address, mine, no_package)
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
            connection = HostConnection(address, robbed, no_package)
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
