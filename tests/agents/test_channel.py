"""Channels keep connections alive, and never let one answer meet another question."""

import asyncio
import contextlib
import socket
import threading
import time
from ipaddress import ip_address

import pytest

from pokerarena.agents.channel import Channel
from pokerarena.agents.egress import EgressDenied, EgressPolicy
from pokerarena.agents.player import Failure, FallbackReason

LOCAL = EgressPolicy(allow_private=True)
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


def answer(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Server:
    """Answers each request with what `react` returns, and counts connections."""

    def __init__(self, react):
        self.react, self.connections, self.requests, self.closed = react, 0, 0, 0
        self._writers = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0.01)

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                result = self.react(self.requests)
                writer.write(await result if asyncio.iscoroutine(result) else result)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed += 1
        finally:
            self._writers.discard(writer)
            writer.close()


class ThreadedAgent:
    """Answers one request, whatever the event loop is doing."""

    def __init__(self):
        self.asked = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(10_000)
            self.asked.set()
            time.sleep(0.05)
            connection.sendall(answer(b"ok"))
            with contextlib.suppress(ConnectionError):
                connection.recv(1)

    def stop(self):
        self._thread.join()
        self._listener.close()


def channel_to(port, *, idle_ms=5_000, admit=LOCAL.check_address):
    return Channel(
        LOCAL.target(f"http://127.0.0.1:{port}/"),
        (ip_address("127.0.0.1"),),
        admit=admit,
        tls=None,
        connect_timeout_ms=1_000,
        idle_connection_ms=idle_ms,
    )


async def ask(channel, seconds=5.0, limit=1_000):
    ends_at_s = asyncio.get_running_loop().time() + seconds
    return await channel.exchange(REQUEST, limit, ends_at_s)


async def test_one_connection_serves_one_question_after_the_other():
    async with Server(lambda n: answer(b"%d" % n)) as server:
        channel = channel_to(server.port)
        assert [await ask(channel) for _ in range(4)] == [b"1", b"2", b"3", b"4"]
        assert server.connections == 1
        channel.retire()


async def test_questions_at_the_same_time_have_connections_of_their_own():
    async def slowly(number):
        await asyncio.sleep(0.05)
        return answer(b"ok")

    async with Server(slowly) as server:
        channel = channel_to(server.port)
        assert await asyncio.gather(*(ask(channel) for _ in range(5))) == [b"ok"] * 5
        assert server.connections == 5
        channel.retire()


async def test_an_answer_that_comes_too_late_never_meets_the_next_question():
    async def first_slow(number):
        await asyncio.sleep(0.2 if number == 1 else 0)
        return answer(b"%d" % number)

    async with Server(first_slow) as server:
        channel = channel_to(server.port)
        assert (await ask(channel, 0.05)).reason is FallbackReason.TIMEOUT
        assert await ask(channel) == b"2"
        await asyncio.sleep(0.3)
        assert await ask(channel) == b"3"
        channel.retire()


async def test_a_question_that_was_given_up_takes_its_connection_with_it():
    async def never(number):
        await asyncio.sleep(60)

    async with Server(never) as server:
        channel = channel_to(server.port)
        task = asyncio.create_task(ask(channel))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not channel._idle


async def test_a_server_that_talks_unasked_loses_its_connection():
    async with Server(lambda n: answer(b"%d" % n) + answer(b"forged")) as server:
        channel = channel_to(server.port)
        assert [await ask(channel), await ask(channel)] == [b"1", b"2"]
        assert server.connections == 2
        channel.retire()


async def test_a_server_that_talks_later_loses_it_too():
    async def twice(number):
        return answer(b"%d" % number)

    async with Server(twice) as server:
        channel = channel_to(server.port)
        assert await ask(channel) == b"1"
        for writer in list(server._writers):
            writer.write(answer(b"forged"))
        await asyncio.sleep(0.05)
        assert await ask(channel) == b"2"
        assert server.connections == 2
        channel.retire()


async def test_idle_connections_are_closed_by_us_after_a_while():
    async with Server(lambda n: answer(b"ok")) as server:
        channel = channel_to(server.port, idle_ms=60)
        await ask(channel)
        await asyncio.sleep(0.3)
        assert server.closed == 1
        assert not channel._idle
        assert channel._sweeper is None


async def test_a_retired_channel_ends_what_is_under_way_and_keeps_nothing():
    async def slowly(number):
        await asyncio.sleep(0.05)
        return answer(b"ok")

    async with Server(slowly) as server:
        channel = channel_to(server.port)
        await ask(channel)
        task = asyncio.create_task(ask(channel))
        await asyncio.sleep(0.01)
        channel.retire()
        assert await task == b"ok"
        assert not channel._idle


async def test_our_own_busy_loop_is_no_timeout_of_an_agent_that_answered_in_time():
    agent = ThreadedAgent()
    channel = channel_to(agent.port)
    task = asyncio.create_task(ask(channel, 0.5))
    while not agent.asked.is_set():
        await asyncio.sleep(0.005)
    # The agent answers meanwhile, and this loop sees it only after the deadline.
    time.sleep(0.8)
    assert await task == b"ok"
    channel.retire()
    await asyncio.to_thread(agent.stop)


async def test_an_address_is_judged_again_at_the_moment_of_dialling():
    def refuse(address):
        raise EgressDenied("no longer allowed")

    async with Server(lambda n: answer(b"ok")) as server:
        channel = channel_to(server.port, admit=refuse)
        assert await ask(channel) == Failure(FallbackReason.EGRESS_DENIED, "no longer allowed")
        assert server.connections == 0
