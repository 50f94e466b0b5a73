"""The faults of a storm, one function each: what breaks, and that it is mended again.

A fault chooses its victim and its length by the storm's own chance. It ends mended, so that what
follows is the arena's doing: dead processes have successors, disks room, networks cables.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import psycopg

from tests.chaos.scene import Scene

Fault = Callable[[Scene, random.Random], Awaitable[None]]
# Behind the token's life and behind what agents believe; a run's pauses are far shorter.
CLOCK_JUMPS_S: Final = (3600, -3600, 86_400, -86_400)


async def kill_worker(scene: Scene, chance: random.Random) -> None:
    at = chance.randrange(len(scene.workers))
    victim = scene.workers[at]
    children = victim.children()
    victim.kill()
    scene.start_worker(at)
    for child in children:
        await gone(child)


async def kill_player(scene: Scene, chance: random.Random) -> None:
    victim = chance.choice(scene.workers)
    for child in victim.children():
        os.kill(child, signal.SIGKILL)


async def halt_worker(scene: Scene, chance: random.Random) -> None:
    """Longer than a lease, or shorter: it goes on as if nothing had been."""
    victim = chance.choice(scene.workers)
    victim.signal_group(signal.SIGSTOP)
    await asyncio.sleep(chance.choice((0.2, 1.0, 4.0)))
    victim.signal_group(signal.SIGCONT)


async def stop_database(scene: Scene, chance: random.Random) -> None:
    pid = scene.postgres.pid
    assert pid is not None
    # SIGQUIT: immediate stop, as a crash; the next start recovers.
    os.kill(pid, signal.SIGQUIT)
    await asyncio.to_thread(scene.postgres.stop)
    await asyncio.sleep(chance.uniform(0, 1.5))
    await asyncio.to_thread(scene.start_database)


async def cut_connections(scene: Scene, chance: random.Random) -> None:
    with psycopg.connect(scene.postgres.conninfo(), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pokerarena%'"
            " AND pid <> pg_backend_pid() ORDER BY pid"
        ).fetchall()
        for (pid,) in chance.sample(rows, k=(len(rows) + 1) // 2):
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


async def kill_api(scene: Scene, _: random.Random) -> None:
    scene.server.process.kill()
    await asyncio.to_thread(scene.server.process.wait)
    await asyncio.to_thread(scene.start_api)


async def cut_network(scene: Scene, chance: random.Random) -> None:
    """Between one worker's host and the database; packets vanish, and nobody is told."""
    host = scene.network.hosts[0]
    host.cut()
    await asyncio.sleep(chance.choice((0.5, 2.0, 7.0)))
    host.mend()


async def fill_disk(scene: Scene, chance: random.Random) -> None:
    """The database's: it refuses, or it crashes; with room it is there again."""
    scene.disk.fill(leave_bytes=chance.choice((0, 65_536, 1_000_000)))
    await asyncio.sleep(chance.choice((0.5, 2.0, 4.0)))
    scene.disk.empty()
    await asyncio.to_thread(scene.start_database)


async def fill_host_disk(scene: Scene, chance: random.Random) -> None:
    """The agent-host's, where packages and sandboxes are made."""
    scene.host_disk.fill()
    await asyncio.sleep(chance.choice((0.5, 2.0)))
    scene.host_disk.empty()


async def kill_host(scene: Scene, _: random.Random) -> None:
    """The agent-host; its sandboxes must go with it."""
    scene.note_sandboxes()
    await asyncio.to_thread(scene.host.end, signal.SIGKILL)
    await asyncio.to_thread(scene.start_host)


async def jump_clock(scene: Scene, chance: random.Random) -> None:
    """The wall clock of one worker, there and back."""
    scene.clock.set(chance.choice(CLOCK_JUMPS_S))
    await asyncio.sleep(chance.choice((0.5, 3.0)))
    scene.clock.set(0)


FAULTS: Final[tuple[Fault, ...]] = (
    kill_worker,
    kill_player,
    halt_worker,
    stop_database,
    cut_connections,
    kill_api,
    cut_network,
    fill_disk,
    fill_host_disk,
    kill_host,
    jump_clock,
)


async def gone(pid: int, deadline_s: float = 60.0) -> None:
    """Wait until a process has ended."""
    give_up_s = time.monotonic() + deadline_s
    stat = Path(f"/proc/{pid}/stat")
    while True:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        assert time.monotonic() < give_up_s, f"process {pid} is left over"
        await asyncio.sleep(0.02)
