"""Real worker processes for tests: started, signalled, and always ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from pokerarena.ops.privileges import DatabaseRole
from pokerarena.settings import Settings
from tests.database_server import as_role

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from pokerarena.settings import load_settings
from pokerarena.worker.main import run_worker
sys.exit(run_worker(load_settings(), int(sys.argv[1]), player_command=sys.argv[2:]))
"""
PLAYER = "pokerarena.worker.player"
SLOW_PLAYER = "tests.worker.slow_player"


class WorkerProcess:
    """A worker in a process group of its own."""

    def __init__(
        self,
        settings: Settings,
        log_path: Path,
        processes: int = 1,
        player: str = PLAYER,
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.log_path = log_path
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("POKERARENA_")
        }
        address = as_role(settings.database_url.get_secret_value(), DatabaseRole.WORKER)
        whole = {
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'sdk/src'}:{ROOT}",
            **environment_of(settings),
            "POKERARENA_DATABASE_URL": address,
            **environment,
        }
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*prefix, sys.executable, "-c", WORKER, str(processes)),
                    *(sys.executable, "-m", player),
                ],
                env=inherited | whole,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        """The player processes that live now."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        """To the worker alone."""
        self.process.send_signal(number)

    def signal_group(self, number: signal.Signals) -> None:
        """To the worker and its player processes."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the parent only: its player processes must end by themselves."""
        self.process.kill()
        self.process.wait()

    def events(self, name: str | None = None) -> list[dict[str, object]]:
        """The structured log so far."""
        events = []
        for line in self.log_path.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and (name is None or event.get("event") == name):
                events.append(event)
        return events

    async def wait(self, deadline_s: float = 30.0) -> int:
        """Its exit code."""
        give_up_s = time.monotonic() + deadline_s
        while (code := self.process.poll()) is None:
            assert time.monotonic() < give_up_s, "the worker does not end"
            await asyncio.sleep(0.02)
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            for number in (signal.SIGCONT, signal.SIGKILL):
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:
                    break
            self.process.wait()


@contextmanager
def worker(
    settings: Settings,
    directory: Path,
    processes: int = 1,
    *,
    player: str = PLAYER,
    prefix: Sequence[str] = (),
    **environment: str,
) -> Iterator[WorkerProcess]:
    """A worker until the block ends, however it ends; `prefix` stands before its command line."""
    path = directory / f"worker-{time.monotonic_ns()}.log"
    process = WorkerProcess(settings, path, processes, player, prefix, **environment)
    try:
        yield process
    finally:
        process.end()


def environment_of(settings: Settings) -> dict[str, str]:
    values = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if isinstance(value, tuple):
            value = ",".join(str(part) for part in value)
        values[f"POKERARENA_{name.upper()}"] = str(value)
    return values
