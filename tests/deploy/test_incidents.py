"""A real Prometheus over a real arena: it is silent in health, and each incident fires its own alert.

The incidents come one after the other and stay, so that nobody has to wait for calm: what fires must
be exactly what has happened so far, at every look.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.runs.dead_letters import Held, bury_run
from pokerarena.settings import Settings
from tests.api.served import Server
from tests.arena import Arena, arena_settings, open_arena
from tests.database_server import UNSAFE_BUT_FAST, new_directory
from tests.deploy.prometheus import RULES, Prometheus, free_port, prometheus, queries, quickened
from tests.journeys.test_http_agents import MISBEHAVING, agent
from tests.worker.workers import ROOT, SLOW_PLAYER, environment_of, worker

# What a rule compares with, and what that is where a minute is two seconds.
THRESHOLDS = {
    "pokerarena_queue_oldest_job_seconds) > 120": "pokerarena_queue_oldest_job_seconds) > 4",
    "pokerarena_backup_wal_reached_seconds) > 60": "pokerarena_backup_wal_reached_seconds) > 6",
}
SETTLED_S = 6
JOBS = ("pokerarena-api", "pokerarena-worker", "pokerarena-backup", "sandboxes")


class Watch:
    """What has to fire by now, and nothing else."""

    def __init__(self, server: Prometheus) -> None:
        self._server = server
        self._expected: set[str] = set()
        self._lasting: set[str] = set()

    async def fires(self, name: str, *, lasting: bool = True) -> None:
        """This alert too, soon, and no other on the way; `lasting`: its incident goes on."""
        await self.until(
            f"{name} does not fire", lambda: name in self.firing(self._expected | {name})
        )
        self._expected.add(name)
        if lasting:
            self._lasting.add(name)

    async def settled(self) -> None:
        """Long enough for anything that fires to fire: it is what is expected."""
        seen = self._server.value("vector(time())")
        await self.until(
            "time does not pass",
            lambda: (
                self.firing(self._expected) is not None
                and self._server.value("vector(time())") > seen + SETTLED_S
            ),
        )
        assert self._lasting <= self.firing(self._expected)

    def firing(self, allowed: set[str]) -> set[str]:
        found = self._server.firing()
        assert found <= allowed, f"{found - allowed} fires, and it did not happen"
        return found

    async def until(self, what: str, condition: Callable[[], object]) -> None:
        await asyncio.to_thread(self._server.until, what, condition)


@contextmanager
def backing_up(settings: Settings, directory: Path, port: int) -> Iterator[Path]:
    """`backup serve` as a process of its own; where it keeps what it makes."""
    kept = directory / "backups"
    with (directory / "backup.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pokerarena.ops.cli", "backup", "serve"],
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'sdk/src'}",
                **environment_of(settings),
                "POKERARENA_BACKUP_DIRECTORY": str(kept),
                "POKERARENA_BACKUP_METRICS_PORT": str(port),
                "POKERARENA_BACKUP_SHIP_S": "0.2",
            },
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield kept
    finally:
        process.kill()
        process.wait()


@contextmanager
def killing_sandboxes(
    directory: Path, root_tree: Path, port: int
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.deploy.killed_sandboxes",
            str(port),
            str(root_tree),
            directory,
        ],
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": f"src:sdk/src:{ROOT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        hear(process, "ready")
        yield process
    finally:
        # It cleans up what it made once its input ends.
        process.communicate(timeout=60)


def hear(process: subprocess.Popen[str], word: str) -> None:
    """Wait until it says this."""
    assert process.stdout is not None
    while (line := process.stdout.readline()).strip() != word:
        assert line, f"it ended before it said {word}"


async def give_up(arena: Arena) -> None:
    """A run ends, and is buried as one that failed by our fault is."""
    run_id = await arena.order(["caller", "tight"], 1)
    run = await arena.until_ended(run_id)
    async with arena.database.unit_of_work() as session:
        await bury_run(session, Held.of(run), code="internal_error", detail="by a test", attempts=1)


@pytest.mark.usefixtures("runc")
async def test_each_incident_fires_its_own_alert_and_no_other(root_tree: Path) -> None:
    ports = {job: free_port() for job in JOBS}
    with (
        new_directory() as directory,
        EmbeddedPostgres(
            directory / "pg", settings={**UNSAFE_BUT_FAST, "synchronous_commit": "on"}
        ) as postgres,
    ):
        postgres.ensure_database("pokerarena")
        migrate.upgrade(postgres.url())
        settings = arena_settings(
            postgres.url(), backup_key=SecretStr(base64.b64encode(bytes(range(32))).decode())
        )
        api = Server(postgres.url(), POKERARENA_API_METRICS_PORT=str(ports["pokerarena-api"]))
        try:
            with (
                backing_up(settings, directory, ports["pokerarena-backup"]) as backups,
                killing_sandboxes(directory, root_tree, ports["sandboxes"]) as sandboxes,
                prometheus(directory, ports, quickened(RULES.read_text(), THRESHOLDS)) as server,
            ):
                async with open_arena(
                    postgres.url(),
                    worker_metrics_port=ports["pokerarena-worker"],
                    metrics_interval_s=0.2,
                    worker_runs_per_process=3,
                ) as arena:
                    with worker(
                        arena.settings, directory, player=SLOW_PLAYER, HOUSE_DELAY_S="0.02"
                    ) as process:
                        await incidents(
                            server, arena, api, backups=backups, sandboxes=sandboxes,
                            die=lambda: process.signal_group(signal.SIGKILL),
                        )  # fmt: skip
        finally:
            api.stop()


async def incidents(
    server: Prometheus,
    arena: Arena,
    api: Server,
    *,
    backups: Path,
    sandboxes: subprocess.Popen[str],
    die: Callable[[], object],
) -> None:
    watch = Watch(server)
    steady = await arena.order(["caller", "tight"], 100_000)
    api.log_in("watcher")
    for _ in range(20):
        api.ok("GET", "/v1/me")
    for metric in (
        "pokerarena_hands_stored_total",
        "pokerarena_backup_base_finished_seconds",
        "pokerarena_backup_wal_reached_seconds",
    ):
        await watch.until(metric, lambda: server.value(f"sum({metric})") > 0)
    await watch.until("health", lambda: not server.firing())
    await watch.settled()

    with agent(*MISBEHAVING, "drip") as (url, _):
        await arena.order([url, "caller"], 100_000, format="reset", action_time_ms=150)
        await watch.fires("AgentsSlow")
        empty = [
            query
            for query in queries()
            if not server.query(query.replace("$__rate_interval", "20s"))
        ]
        assert empty == [], "queries of the dashboard without data"

        await give_up(arena)
        await watch.fires("DeadLetters")

        assert sandboxes.stdin is not None
        sandboxes.stdin.write("begin\n")
        sandboxes.stdin.flush()
        await watch.fires("SandboxKills", lasting=False)
        await asyncio.to_thread(hear, sandboxes, "killed")

        for _ in range(5):
            await arena.order(["caller", "tight"], 100_000)
        await watch.fires("QueueGrowing")

        backups.rename(backups.with_name("unmounted"))
        await watch.fires("BackupStale")
        await watch.settled()

        assert (await arena.look(steady)).status == "running"
        die()
        # With the only worker goes what it told: of its alerts nothing is left but that it is gone.
        await watch.until(
            "a dead worker",
            lambda: server.firing() == {"WorkerDown", "BackupStale"},
        )
