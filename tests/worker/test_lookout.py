"""What a worker tells Prometheus, of its player processes and of the whole arena."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request
from pathlib import Path

from tests.arena import open_arena
from tests.test_metrics import read
from tests.worker.workers import SLOW_PLAYER, WorkerProcess, worker

Readings = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(process: WorkerProcess) -> Readings:
    """The worker's metrics, as soon as it serves them."""
    give_up_s = time.monotonic() + 30
    while not (listening := process.events("metrics_listening")):
        assert time.monotonic() < give_up_s, process.log_path.read_text()
        await asyncio.sleep(0.05)
    url = f"http://127.0.0.1:{listening[0]['port']}/metrics"

    def get() -> str:
        with urllib.request.urlopen(url, timeout=10) as response:
            return str(response.read().decode())

    return read(await asyncio.to_thread(get))


async def until(process: WorkerProcess, name: str, at_least: float, **labels: str) -> Readings:
    give_up_s = time.monotonic() + 60
    key = (name, tuple(sorted(labels.items())))
    while True:
        readings = await scrape(process)
        if readings.get(key, 0) >= at_least:
            return readings
        assert time.monotonic() < give_up_s, f"{key} is {readings.get(key)}"
        await asyncio.sleep(0.1)


async def test_a_worker_adds_up_what_its_player_processes_count(
    database_url: str, tmp_path: Path
) -> None:
    settings = {"worker_metrics_port": 0, "metrics_interval_s": 0.1}
    async with open_arena(database_url, **settings) as arena:
        runs = [await arena.order(["caller", "tight"], 40) for _ in range(4)]
        with worker(arena.settings, tmp_path, processes=2) as process:
            for run_id in runs:
                await arena.until_ended(run_id)
            decisions = await arena.value("SELECT sum(decisions)::float8 FROM run_seats")
            readings = await until(process, "pokerarena_hands_stored_total", 160)
            readings = await until(process, "pokerarena_runs_left_total", 4, end="completed")
            assert readings["pokerarena_hands_stored_total", ()] == 160
            count = readings["pokerarena_callback_seconds_count", (("kind", "house"),)]
            # A hand that was cut by nothing is asked for exactly once.
            assert count == decisions
            assert readings["pokerarena_player_processes", ()] == 2
            assert readings["pokerarena_commit_hands_sum", ()] == 160

            for child in process.children():
                os.kill(child, signal.SIGKILL)
            after = await until(process, "pokerarena_player_processes_died_total", 2)
            assert after["pokerarena_hands_stored_total", ()] == 160, "counters never fall"
            assert after.get(("pokerarena_runs_playing", ()), 0) == 0


async def test_a_worker_knows_how_long_the_queue_is_and_who_has_been_left(
    database_url: str, tmp_path: Path
) -> None:
    settings = {
        "worker_metrics_port": 0,
        "metrics_interval_s": 0.1,
        "worker_runs_per_process": 1,
        "reaper_interval_s": 60,
        "run_lease_s": 2.0,
    }
    async with open_arena(database_url, **settings) as arena:
        for _ in range(3):
            await arena.order(["caller", "tight"], 100_000)
        with worker(arena.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="0.05") as process:
            await until(process, "pokerarena_runs_active", 1, status="running")
            readings = await until(
                process, "pokerarena_queue_oldest_job_seconds", 0.2, queue="runs"
            )
            assert readings["pokerarena_runs_active", (("status", "running"),)] == 1
            assert readings["pokerarena_runs_active", (("status", "queued"),)] == 2
            await until(process, "pokerarena_queue_jobs", 1, queue="runs", status="todo")
            # Halted, it neither plays nor renews; only the clock of the database sees it.
            for child in process.children():
                os.kill(child, signal.SIGSTOP)
            await until(process, "pokerarena_runs_unattended", 1)
