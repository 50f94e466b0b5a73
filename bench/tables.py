"""Many slow tables in one worker process, and how soon the runs of a killed worker go on.

1. A thousand heads-up tables in one player process, all of their agents answering after 200 ms.
   Ideal are five decisions a second at each table, one after the other; what is lost is the time
   that the arena adds. The agent counts what it was asked, so warming up and ending do not count.
2. Two hundred running runs; their worker is killed with SIGKILL while another one stands by.
   Measured is the time until every one of them has a new epoch and has stored a hand since.

Both play through a real worker into a real PostgreSQL with fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import uvloop

from bench.callbacks import FastAgent
from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from tests.arena import Arena, open_arena
from tests.soundness import assert_sound
from tests.worker.workers import worker

ANSWERS_AFTER_S = 0.2
OF_IDEAL_AT_LEAST = 0.95
RESUMED_WITHIN_S = 60.0
STARTED_WITHIN_S = 300.0
# As an operator has them who changes nothing.
LEASES = {"run_lease_s": 20.0, "run_lease_renew_s": 5.0, "reaper_interval_s": 5.0}


class SlowAgent(FastAgent):
    """Calls and checks, 200 ms after it was asked; answers a GET at once with how often it was."""

    asked = 0

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            body = b"%d" % SlowAgent.asked
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            self._transport.write(body)
            return
        SlowAgent.asked += 1
        asyncio.get_running_loop().call_later(ANSWERS_AFTER_S, self._answer, data)

    def _answer(self, data: bytes) -> None:
        if not self._transport.is_closing():
            super().data_received(data)


async def _serve_slow_agent() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(SlowAgent, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"agent ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}/\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def slow_agent() -> Iterator[str]:
    """The slow agent in a process of its own; yields its URL."""
    agent = subprocess.Popen(
        [sys.executable, "-m", "bench.tables", "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert agent.stdout is not None
        yield agent.stdout.readline().split()[-1]
    finally:
        agent.terminate()
        agent.wait()


async def asked_so_far(url: str) -> int:
    """How many callbacks the agent was sent."""

    def ask() -> int:
        with urlopen(url, timeout=30) as answer:
            return int(answer.read())

    return await asyncio.to_thread(ask)


async def until_playing(arena: Arena, tables: int) -> float:
    """Waits until all runs have begun; returns how long that took."""
    started = time.monotonic()
    while True:
        playing = await arena.value(
            "SELECT count(*) FROM runs WHERE status = 'running' AND hands_done > 0"
        )
        if playing >= tables:
            return time.monotonic() - started
        if time.monotonic() - started > STARTED_WITHIN_S:
            raise SystemExit(f"only {playing} of {tables} runs began in {STARTED_WITHIN_S:.0f} s")
        await asyncio.sleep(0.5)


async def measure_slow_tables(
    url: str, directory: Path, tables: int, seconds: float
) -> tuple[float, float, float]:
    """The share of the ideal, CPU microseconds a decision, and seconds until all tables played."""
    with slow_agent() as agent:
        async with open_arena(url, runs_active_per_user_max=tables, **LEASES) as arena:
            for _ in range(tables):
                await arena.order([agent, agent], 100_000)
            with worker(arena.settings, directory) as process:
                warming_s = await until_playing(arena, tables)
                players = process.children()
                asked, began = await asked_so_far(agent), time.monotonic()
                cpu_s = sum(map(cpu_seconds, players))
                await asyncio.sleep(seconds)
                asked = await asked_so_far(agent) - asked
                cpu_s = sum(map(cpu_seconds, players)) - cpu_s
                elapsed_s = time.monotonic() - began
    ideal = tables / ANSWERS_AFTER_S
    return asked / elapsed_s / ideal, cpu_s / asked * 1e6, warming_s


def cpu_seconds(pid: int) -> float:
    """What a process has taken of the processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_takeover(url: str, directory: Path, runs: int) -> float:
    """Seconds from the kill until each run has stored a hand under a new epoch."""
    with slow_agent() as agent:
        async with open_arena(url, runs_active_per_user_max=runs, **LEASES) as arena:
            ordered = [await arena.order([agent, "caller"], 100_000) for _ in range(runs)]
            with worker(arena.settings, directory) as first:
                await until_playing(arena, runs)
                with worker(arena.settings, directory):
                    await asyncio.sleep(2)
                    killed = time.monotonic()
                    first.kill()
                    while await arena.value(
                        "SELECT count(*) FROM runs WHERE epoch = 1 OR NOT EXISTS"
                        " (SELECT FROM hands WHERE run_id = runs.id AND hands.epoch = runs.epoch)"
                    ):
                        if time.monotonic() - killed > 5 * RESUMED_WITHIN_S:
                            raise SystemExit("not all runs went on")
                        await asyncio.sleep(0.25)
                    took_s = time.monotonic() - killed
            for run_id in ordered:
                await assert_sound(arena, run_id)
    return took_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=1_000, help="slow tables at once")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to count")
    parser.add_argument("--runs", type=int, default=200, help="runs of the killed worker")
    parser.add_argument("--serve", action="store_true", help="be the slow agent, nothing else")
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve_slow_agent())
        return 0
    with tempfile.TemporaryDirectory(prefix="pokerarena-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with EmbeddedPostgres(directory / "pg") as postgres:
            for database in ("slow", "takeover"):
                postgres.ensure_database(database)
                migrate.upgrade(postgres.url(database))
            share, cpu_us, warming_s = asyncio.run(
                measure_slow_tables(
                    postgres.url("slow"), directory, options.tables, options.seconds
                )
            )
            took_s = asyncio.run(
                measure_takeover(postgres.url("takeover"), directory, options.runs)
            )
    print(
        f"{options.tables:,} tables in one process, agents that take {ANSWERS_AFTER_S * 1000:.0f} ms"
    )
    print(f"  all of them playing after       {warming_s:8.1f} s")
    verdict = "reached" if share >= OF_IDEAL_AT_LEAST else "MISSED"
    print(
        f"  of the ideal decisions a second {share:8.1%}   at least {OF_IDEAL_AT_LEAST:.0%}: {verdict}"
    )
    print(f"  processor time a decision       {cpu_us:8.0f} µs of the player process")
    verdict = "reached" if took_s <= RESUMED_WITHIN_S else "MISSED"
    print(f"{options.runs} runs of a killed worker, another standing by")
    print(
        f"  all of them went on after       {took_s:8.1f} s   at most {RESUMED_WITHIN_S:.0f} s: {verdict}"
    )
    return 0 if share >= OF_IDEAL_AT_LEAST and took_s <= RESUMED_WITHIN_S else 1


if __name__ == "__main__":
    sys.exit(main())
