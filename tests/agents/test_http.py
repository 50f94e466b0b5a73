"""HTTP players: every bad habit of an agent has its reason, and none disturbs the arena."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pokerarena.agents.dial import Dialer, DialLimits
from pokerarena.agents.http import HttpLimits, HttpPlayer
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.egress.policy import EgressPolicy
from pokerarena.protocol.messages import Answer, LineupSeat, RunEnd, RunStart, encode
from pokerarena.protocol.signing import new_secret, verify
from tests.agents.misbehaving import Misbehaving
from tests.protocol.hands import a_callback

LOCAL = EgressPolicy(allow_private=True)
# Far away, so that a busy machine is no reason for another reason.
DEADLINE_MS = 20_000
SOON_MS = 400

RUN_START = RunStart(
    run_id="run_1",
    table_id="tbl_1",
    seat=1,
    lineup=(LineupSeat(1, "me"), LineupSeat(2, "you")),
    format="cash",
    planned_hands=None,
    small_blind=50,
    big_blind=100,
    ante=0,
    ante_kind="each",
    starting_stack=10_000,
    time_limit_ms=2_000,
    time_bank_ms=0,
)
RUN_END = RunEnd(
    run_id="run_1", table_id="tbl_1", seat=1, status="completed", hands_played=3, net=7
)


@pytest.fixture
async def server():
    async with Misbehaving() as server:
        yield server


@pytest.fixture
async def dialer():
    dialer = Dialer(LOCAL)
    yield dialer
    await dialer.close()


async def ask(url, dialer, deadline_ms=DEADLINE_MS, **options):
    player = HttpPlayer(url, dialer, **options)
    try:
        return await player.decide(a_callback(), deadline_ms)
    finally:
        await player.close()


async def test_a_good_agent_is_asked_and_answers(server, dialer):
    assert await ask(server.url("good"), dialer) == Answer("call")
    (request,) = server.received
    assert request.body == encode(a_callback())
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"cookie", "referer", "authorization", "webhook-signature"} & set(request.headers)


@pytest.mark.parametrize(
    ("habit", "reason", "says"),
    [
        ("malformed", "malformed", "not JSON"),
        ("empty", "malformed", "empty"),
        ("wrong-id", "malformed", "another"),
        ("gzip-bomb", "malformed", "compressed"),
        ("gzip-unannounced", "malformed", "UTF-8"),
        ("garbage", "malformed", "not HTTP"),
        ("hang", "timeout", "in time"),
        ("drip", "timeout", "in time"),
        ("drip-headers", "timeout", "in time"),
        ("big", "too_large", "16384"),
        ("big-unannounced", "too_large", "16384"),
        ("big-headers", "too_large", "headers"),
        ("server-error", "http_status", "500"),
        ("no-content", "http_status", "204"),
        ("redirect", "http_status", "307"),
        ("half", "connect_failed", "in the middle"),
        ("hang-up", "connect_failed", "closed"),
    ],
)
async def test_every_bad_habit_has_its_reason(server, dialer, habit, reason, says):
    deadline_ms = SOON_MS if reason == "timeout" else DEADLINE_MS
    reply = await ask(server.url(habit), dialer, deadline_ms)
    assert isinstance(reply, Failure)
    assert reply.reason == FallbackReason(reason)
    assert says in reply.detail
    assert all(request.path == f"/{habit}" for request in server.received), (
        "a redirect was followed"
    )


@pytest.mark.parametrize("habit", ["hang", "drip", "drip-headers"])
async def test_the_deadline_is_total_whatever_arrives_meanwhile(server, dialer, habit):
    started = time.monotonic()
    await ask(server.url(habit), dialer, deadline_ms=300)
    assert 0.25 < time.monotonic() - started < 15


async def test_an_answer_in_slow_pieces_is_complete_when_it_is_in_time(server, dialer):
    assert await ask(server.url("pieces"), dialer, deadline_ms=5_000) == Answer("call")


async def test_connections_are_kept_alive_and_shared_between_players(server, dialer):
    for _ in range(5):
        await ask(server.url("good"), dialer)
    assert len(server.received) == 5
    assert server.connections == 1


async def test_a_connection_that_the_agent_closed_is_replaced_without_a_failure(server, dialer):
    for _ in range(20):
        assert await ask(server.url("once-per-connection"), dialer) == Answer("call")


async def test_an_agent_that_hangs_up_is_asked_at_most_twice(server, dialer):
    await ask(server.url("hang-up"), dialer)
    assert 1 <= len(server.received) <= 2
    assert len({request.body for request in server.received}) == 1


async def test_cookies_are_not_kept(server, dialer):
    await ask(server.url("cookie"), dialer)
    await ask(server.url("cookie"), dialer)
    assert "cookie" not in server.received[1].headers


async def test_proxies_of_the_environment_are_ignored(server, monkeypatch):
    async with Misbehaving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        dialer = Dialer(LOCAL)
        assert await ask(server.url("good"), dialer) == Answer("call")
        await dialer.close()
        assert proxy.connections == 0


async def test_a_refused_connection_is_connect_failed(dialer):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reply = await ask(f"http://127.0.0.1:{unused.getsockname()[1]}/", dialer)
    assert reply.reason is FallbackReason.CONNECT_FAILED
    assert "refused" in reply.detail


async def test_a_host_that_does_not_accept_is_connect_failed_before_the_deadline():
    dialer = Dialer(LOCAL, DialLimits(connect_timeout_ms=200))
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # With its queue full the kernel drops what comes next, like a host that is gone.
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(full.getsockname())
        reply = await ask(f"http://127.0.0.1:{full.getsockname()[1]}/", dialer, deadline_ms=5_000)
    await dialer.close()
    assert reply == Failure(FallbackReason.CONNECT_FAILED, "no connection in time")


async def test_an_agent_killed_half_way_fails_and_is_found_again_after_its_restart(dialer):
    def spawn(port):
        command = [sys.executable, "-m", "tests.agents.misbehaving", "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return process, process.stdout.readline().split()[-1]

    process, url = spawn(0)
    player = HttpPlayer(url, dialer)
    try:
        assert await player.decide(a_callback(), 5_000) == Answer("call")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (await player.decide(a_callback(), 1_000)).reason is FallbackReason.CONNECT_FAILED
        process.stdout.close()
        process, _ = spawn(int(url.rstrip("/").rsplit(":", 1)[1]))
        assert await player.decide(a_callback(), 5_000) == Answer("call")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_callbacks_carry_a_signature_that_verifies(server, dialer):
    secret = new_secret()
    await ask(server.url("good"), dialer, secret=secret)
    (request,) = server.received
    verify(
        secret,
        message_id=request.headers["webhook-id"],
        timestamp=request.headers["webhook-timestamp"],
        signatures=request.headers["webhook-signature"],
        body=request.body,
        now_s=time.time(),
    )
    assert request.headers["webhook-id"] == json.loads(request.body)["decision_id"]


async def test_a_slow_agent_does_not_hold_up_others(server, dialer):
    slow = asyncio.create_task(ask(server.url("hang"), dialer))
    replies = await asyncio.gather(*(ask(server.url("good"), dialer) for _ in range(50)))
    assert replies == [Answer("call")] * 50
    assert not slow.done(), "the good answers waited for the bad one"
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_a_cancelled_decision_leaves_the_player_usable(server, dialer):
    player = HttpPlayer(server.url("slow"), dialer)
    task = asyncio.create_task(player.decide(a_callback(), 5_000))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await player.decide(a_callback(), 5_000) == Answer("call")


class TestBatches:
    async def test_decisions_asked_together_travel_together_up_to_the_maximum(self, server, dialer):
        player = HttpPlayer(server.url("batch"), dialer, max_batch=4)
        callbacks = [a_callback(hand_no=number) for number in range(1, 11)]
        replies = await asyncio.gather(*(player.decide(each, 5_000) for each in callbacks))
        assert [reply.action for reply in replies] == ["call"] * 10
        sizes = sorted(len(json.loads(request.body)) for request in server.received)
        assert sizes == [2, 4, 4]
        await player.close()

    async def test_a_forgotten_answer_fails_alone(self, server, dialer):
        player = HttpPlayer(server.url("batch-half"), dialer, max_batch=4)
        callbacks = [a_callback(hand_no=number) for number in range(1, 5)]
        replies = await asyncio.gather(*(player.decide(each, 5_000) for each in callbacks))
        assert [type(reply) for reply in replies] == [Answer, Failure] * 2
        assert replies[1].reason is FallbackReason.MALFORMED
        assert "no answer to decision_id" in replies[1].detail
        await player.close()

    async def test_an_agent_that_ignores_the_array_is_malformed(self, server, dialer):
        player = HttpPlayer(server.url("wrong-id"), dialer, max_batch=4)
        reply = await player.decide(a_callback(), 5_000)
        assert reply.reason is FallbackReason.MALFORMED
        assert "JSON array" in reply.detail
        await player.close()

    async def test_a_batch_that_is_not_answered_times_out(self, server, dialer):
        player = HttpPlayer(server.url("hang"), dialer, max_batch=4)
        replies = await asyncio.gather(
            player.decide(a_callback(hand_no=1), 200), player.decide(a_callback(hand_no=2), 200)
        )
        assert [reply.reason for reply in replies] == [FallbackReason.TIMEOUT] * 2
        await player.close()


class TestEvents:
    async def test_run_messages_are_delivered_to_versions_that_want_them(self, server, dialer):
        player = HttpPlayer(server.url("malformed"), dialer, wants_events=True)
        await player.open(RUN_START)
        await player.tell(RUN_END)
        await player.close()
        kinds = [json.loads(request.body)["type"] for request in server.received]
        assert kinds == ["run_start", "run_end"]

    async def test_others_are_not_bothered(self, server, dialer):
        player = HttpPlayer(server.url("good"), dialer)
        await player.open(RUN_START)
        await player.tell(RUN_END)
        await player.close()
        assert server.received == []

    async def test_an_agent_that_never_takes_them_neither_blocks_play_nor_fills_memory(
        self, server, dialer
    ):
        limits = HttpLimits(max_queued_events=3, close_grace_ms=50)
        player = HttpPlayer(server.url("hang"), dialer, wants_events=True, limits=limits)
        started = time.monotonic()
        await player.open(RUN_START)
        for _ in range(1_000):
            await player.tell(RUN_END)
        assert len(player._events) <= 3
        await player.close()
        assert time.monotonic() - started < 15


async def test_what_runs_out_on_our_side_is_our_fault(server, dialer, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    player = HttpPlayer(server.url("good"), dialer)
    await player.open(RUN_START)
    used = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    spare = []
    try:
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(0))
        reply = await player.decide(a_callback(), 2_000)
    finally:
        for descriptor in spare:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(reply, Failure)
    assert reply.reason is FallbackReason.INFRASTRUCTURE
