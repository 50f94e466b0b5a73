"""What a sandbox costs: a callback, a start, decisions a second, memory. Ratios in one run.

python -m bench.sandbox [--rootfs DIR] [--runtimes runc,runsc] [--seconds 1.5]
"""

# ruff: noqa: SLF001 - it measures the parts that a player keeps to itself

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

import pokerarena_sdk
from pokerarena.errors import Unavailable
from pokerarena.sandbox import rootfs
from pokerarena.sandbox.archive import pack, read_upload
from pokerarena.sandbox.home import SandboxHome
from pokerarena.sandbox.limits import MIB, SandboxLimits
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import SandboxLauncher
from pokerarena.sandbox.runtime import RuntimeName, find_runtime
from pokerarena.sandbox.store import AgentStore
from pokerarena_sdk.practice import positions

AGENT = b"def act(view):\n    return view.check_or_call()\n"
CALLBACK = next(positions())[1]
IN_FLIGHT = (1, 4, 16, 64)


class Solo:
    """Whether the bench asks one player at a time, as a single sequential match does."""

    alone = False


SLICES = 5
BUDGET_BYTES = 4096 * MIB


@dataclass
class Bench:
    """Where things are, and for how long each figure is taken."""

    folder: Path
    tree: Path
    seconds: float


def line(number: int) -> bytes:
    return json.dumps(CALLBACK | {"decision_id": f"d{number}"}).encode() + b"\n"


LINES = [line(number) for number in range(4096)]


@contextmanager
def bare_agent(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    """The same agent as a plain process on pipes."""
    path = bench.folder / "bot.py"
    path.write_bytes(AGENT)
    process = subprocess.Popen(
        [sys.executable, "-m", "pokerarena_sdk", "run", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={"PYTHONPATH": str(Path(pokerarena_sdk.__file__).parents[1]), "PATH": os.defpath},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def round_trips(write: Callable[[bytes], Any], read: Callable[[], bytes], seconds: float) -> float:
    """Median microseconds of a blocking round trip."""
    taken = []
    until_s = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < until_s:
        started_s = time.perf_counter()
        write(LINES[number % len(LINES)])
        read()
        taken.append(time.perf_counter() - started_s)
        number += 1
    return statistics.median(taken) * 1e6


class PingPong:
    """The yardstick: two plain processes, asked in turn, by the shortest code there is."""

    def __init__(self, bench: Bench, one: Any, other: Any) -> None:
        self._slice_s = bench.seconds / SLICES
        self._agents = (one, other)
        for agent in self._agents:
            agent.stdin.write(LINES[0])
            agent.stdout.read(4096)

    def rate(self) -> float:
        """Decisions a second in one short slice of time."""
        count, begun_s = 0, time.perf_counter()
        while (now_s := time.perf_counter()) < begun_s + self._slice_s:
            agent = self._agents[count % 2]
            agent.stdin.write(LINES[count % len(LINES)])
            agent.stdout.read(4096)
            count += 1
        return count / (now_s - begun_s)

    def round_trip_us(self, seconds: float) -> float:
        agent = self._agents[0]
        return round_trips(agent.stdin.write, lambda: agent.stdout.read(4096), seconds)


@asynccontextmanager
async def sandboxes(bench: Bench, runtime: RuntimeName, count: int) -> Any:
    home = SandboxHome(find_runtime(runtime), bench.tree, bench.folder / "home")
    manifest = {"runtime": "python3", "entry_point": "bot.py", "max_in_flight": 64}
    agent = AgentStore(bench.folder / "store").put(read_upload(zipped(manifest)))
    players = [
        HostedPlayer(SandboxLauncher(home, agent), agent.manifest, alone=lambda: Solo.alone)
        for _ in range(count)
    ]
    try:
        started_s = time.perf_counter()
        await asyncio.gather(*(player.open() for player in players))
        yield players, (time.perf_counter() - started_s) * 1000 / count
    finally:
        await asyncio.gather(*(player.close() for player in players))
        home.close()


def zipped(manifest: dict[str, Any]) -> bytes:
    import io
    import zipfile

    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("agent.json", json.dumps(manifest))
        archive.writestr("bot.py", AGENT)
    return raw.getvalue()


async def rate(players: list[Any], in_flight: int, seconds: float) -> float:
    """Decisions a second: each player has so many callbacks in flight, all the time."""
    Solo.alone = in_flight == 1
    count, begun_s = 0, time.perf_counter()
    until_s = begun_s + seconds

    async def keep(player: Any, slot: int) -> None:
        nonlocal count
        number = slot
        while time.perf_counter() < until_s:
            await player.ask(f"d{number}", LINES[number], 5_000)
            number = (number + in_flight) % len(LINES)
            count += 1

    if in_flight == 1:
        # As in a hand: one player at a time.
        while time.perf_counter() < until_s:
            number = count % len(LINES)
            await players[count % len(players)].ask(f"d{number}", LINES[number], 5_000)
            count += 1
    else:
        await asyncio.gather(
            *(keep(player, slot) for player in players for slot in range(in_flight))
        )
    return count / (time.perf_counter() - begun_s)


async def rates(bench: Bench, players: list[Any], yardstick: PingPong) -> dict[str, float]:
    """Each rate, and its ratio to the yardstick measured in between: load that comes and goes on
    the machine meets both alike."""
    figures = {}
    for in_flight in IN_FLIGHT:
        measured, ratios = [], []
        for _ in range(SLICES):
            before = yardstick.rate()
            measured.append(await rate(players, in_flight, bench.seconds / SLICES))
            ratios.append(measured[-1] / ((before + yardstick.rate()) / 2))
        figures[f"decisions_per_s_{in_flight}"] = statistics.median(measured)
        figures[f"times_ping_pong_{in_flight}"] = statistics.median(ratios)
    return figures


async def sandbox_figures(
    bench: Bench, runtime: RuntimeName, yardstick: PingPong
) -> dict[str, float]:
    figures: dict[str, float] = {}
    async with sandboxes(bench, runtime, 1) as (players, start_ms):
        figures["start_ms"] = start_ms
        process = players[0]._process
        process.cgroup.thaw()
        loop = asyncio.get_running_loop()
        # The pipes alone, with the same blocking code as the plain process has.
        pipes = process.pipes
        loop.remove_reader(pipes._out)
        for fd in (pipes._in, pipes._out):
            os.set_blocking(fd, True)
        trips, bare = [], []
        for _ in range(SLICES):
            bare.append(yardstick.round_trip_us(bench.seconds / SLICES))
            trips.append(
                round_trips(
                    lambda data: os.write(pipes._in, data),
                    lambda: os.read(pipes._out, 4096),
                    bench.seconds / SLICES,
                )
            )
        figures["round_trip_us"] = statistics.median(trips)
        figures["bare_round_trip_us"] = statistics.median(bare)
        for fd in (pipes._in, pipes._out):
            os.set_blocking(fd, False)
        loop.add_reader(pipes._out, pipes._on_output)
        figures["memory_bytes"] = process.cgroup.memory_peak_bytes()
        freeze_us = []
        for _ in range(50):
            started_s = time.perf_counter()
            process.cgroup.freeze()
            process.cgroup.thaw()
            freeze_us.append((time.perf_counter() - started_s) * 1e6)
        figures["freeze_and_thaw_us"] = statistics.median(freeze_us)
    async with sandboxes(bench, runtime, 2) as (players, _):
        figures |= await rates(bench, players, yardstick)
        await asyncio.sleep(0.05)
        cgroup = players[0]._process.cgroup
        before_ns = cgroup.cpu_ns()
        await asyncio.sleep(0.2)
        figures["cpu_ns_while_others_think"] = cgroup.cpu_ns() - before_ns
    return figures


async def host_figures(bench: Bench, way: str, yardstick: PingPong) -> dict[str, float]:
    """The same with an agent-host in its own process: on leased sandboxes, or by frames."""
    from pokerarena.sandbox.confinement import clean_environment
    from pokerarena.sandbox.host_client import HostAddress, HostPool
    from pokerarena.sandbox.remote_player import RemotePlayer
    from pokerarena.service_identity.keys import ServiceName
    from pokerarena.service_identity.rotation import publish, read_key_set, read_private_key
    from pokerarena.service_identity.tokens import ServiceIdentity
    from pokerarena.watched_file import Fixed

    folder = bench.folder
    keys = folder / "service-keys.json"
    if not keys.exists():
        publish(ServiceName.WORKER, folder / "worker.pem", keys)
        publish(ServiceName.AGENT_HOST, folder / "host.pem", keys)
    process = subprocess.Popen(
        [sys.executable, "-m", "pokerarena.sandbox.host", "--name", "bench", "--key",
         str(folder / "host.pem"), "--public-keys", str(keys), "--rootfs", str(bench.tree.parent), "--store",
         str(folder / "host-store"), "--base", str(folder / "host-home"), "--socket",
         str(folder / "host.sock")],
        stdout=subprocess.PIPE, text=True,
        env=clean_environment(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    try:
        if not process.stdout.readline().startswith("ready"):
            return {}
        package = read_upload(zipped({"runtime": "python3", "entry_point": "bot.py"}))

        async def load(_: str) -> bytes:
            return pack(package)

        identity = ServiceIdentity(
            ServiceName.WORKER,
            "bench",
            key=Fixed(read_private_key(folder / "worker.pem")),
            keys=Fixed(read_key_set(keys)),
            believes={ServiceName.AGENT_HOST},
        )
        pool = HostPool([HostAddress("bench", folder / "host.sock")], identity, load)
        booking = pool.book(2)
        players = [
            booking.player(package.digest, package.manifest, alone=lambda: Solo.alone)
            if way == "lease"
            else RemotePlayer(booking, package.digest, 64)
            for _ in range(2)
        ]
        for player in players:
            await player.open()
        figures = await rates(bench, players, yardstick)
        for player in players:
            await player.close()
        pool.close()
        await asyncio.sleep(0.05)
        return figures
    finally:
        process.terminate()
        process.communicate(timeout=20)


def show(measured: dict[str, dict[str, float]]) -> None:
    for name, figures in measured.items():
        print(name)
        if "round_trip_us" in figures:
            trip_us, bare_us = figures["round_trip_us"], figures["bare_round_trip_us"]
            used = int(figures["memory_bytes"])
            print(
                f"  a callback       {trip_us:8.1f} µs, {trip_us - bare_us:+.1f} µs against the plain "
                f"process ({bare_us:.1f} µs)\n"
                f"  a start          {figures['start_ms']:8.0f} ms until the agent reads "
                f"(plain process {figures['bare_start_ms']:.0f} ms)\n"
                f"  freeze and thaw  {figures['freeze_and_thaw_us']:8.0f} µs; CPU used while others "
                f"think: {figures['cpu_ns_while_others_think']:.0f} ns\n"
                f"  memory           {used / MIB:8.0f} MiB: {BUDGET_BYTES // used} such agents in 4 GiB,"
                f" {BUDGET_BYTES // SandboxLimits().memory_bytes} that use up their quotas"
            )
        for in_flight in IN_FLIGHT:
            print(
                f"  {in_flight:2} in flight     {figures[f'decisions_per_s_{in_flight}']:8.0f} "
                f"decisions/s, {figures[f'times_ping_pong_{in_flight}']:.2f} × bare ping-pong"
            )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.sandbox")
    parser.add_argument("--rootfs", type=Path, default=Path("/var/lib/pokerarena/rootfs"))
    parser.add_argument("--runtimes", default="runc,runsc")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if rootfs.check_record(options.rootfs):
        rootfs.build(options.rootfs)
    with tempfile.TemporaryDirectory(prefix="pokerarena-bench-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        bench = Bench(Path(name), options.rootfs / rootfs.ROOT, options.seconds)
        measured: dict[str, dict[str, float]] = {}
        started_s = time.perf_counter()
        with bare_agent(bench) as one, bare_agent(bench) as other:
            yardstick = PingPong(bench, one, other)
            bare_start_ms = (time.perf_counter() - started_s) * 1000 / 2
            for runtime in options.runtimes.split(","):
                try:
                    figures = uvloop.run(sandbox_figures(bench, RuntimeName(runtime), yardstick))
                except Unavailable as error:
                    print(f"{runtime}: not measured: {error}", file=sys.stderr)
                    continue
                measured[runtime] = figures | {"bare_start_ms": bare_start_ms}
            for way in ("lease", "frames"):
                measured[f"runc through an agent-host, {way}"] = uvloop.run(
                    host_figures(bench, way, yardstick)
                )
    if options.json:
        print(json.dumps(measured))
    else:
        show(measured)
    failed = not reached(measured)
    return 1 if failed else 0


def reached(measured: dict[str, dict[str, float]]) -> bool:
    """Whether runc adds at most 0.1 ms to a callback and runs many hands at 3 × ping-pong."""
    figures = measured.get("runc")
    if figures is None:
        return False
    added_us = figures["round_trip_us"] - figures["bare_round_trip_us"]
    return added_us <= 100 and figures["times_ping_pong_16"] >= 3


if __name__ == "__main__":
    sys.exit(main())
