"""The player process: plays runs, many at once, on an event loop of its own.

Started by `worker.processes` as ``python -m pokerarena.worker.player NAME PARENT``. Its standard
input is JSON lines: first the settings (secrets do not belong into an environment), then orders
(``play``, ``check``, ``drain``). It reports on standard output: ``ready``, ``claimed`` or
``not_claimed`` or ``checked`` or ``error`` for an order, ``ended`` when a claimed run has left it,
and ``metrics``.
It never talks to the queue, and it never outlives its parent: the end of its input or the parent's
death ends it at once; whatever was not stored becomes void.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import uvloop

from pokerarena import metrics
from pokerarena.ids import IdKind, id_text
from pokerarena.settings import Settings
from pokerarena.telemetry import bind_contextvars, configure_logging, get_logger
from pokerarena.tracing import configure_tracing
from pokerarena.worker.stage import Stage

log = get_logger("worker.player")

PR_SET_PDEATHSIG: Final = 1
EXIT_PARENT_GONE: Final = 70
MAX_ORDER_BYTES: Final = 64 * 1024


class PlayerProcess:
    """Reads orders, plays, reports."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._stage = Stage(settings, name=name)
        self._tasks: set[asyncio.Task[None]] = set()
        self._checks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._drained = asyncio.Event()

    async def run(self) -> int:
        """Serve until drained; the exit code."""
        orders = await _standard_input()
        services = asyncio.create_task(self._stage.serve(), name="services")
        reading = asyncio.create_task(self._read(orders), name="orders")
        drained = asyncio.create_task(self._drained.wait(), name="drained")
        counting = asyncio.create_task(self._report_metrics(), name="metrics")
        self._report({"op": "ready"})
        done, _ = await asyncio.wait(
            (services, reading, drained), return_when=asyncio.FIRST_COMPLETED
        )
        for task in (services, reading, drained, counting):
            if task not in done:
                task.cancel()
        if services in done:
            log.error("services_ended", exc_info=services.exception())
            return 1
        await asyncio.gather(services, return_exceptions=True)
        await self._stage.close()
        return 0

    async def _read(self, orders: asyncio.StreamReader) -> None:
        while line := await orders.readline():
            order: dict[str, Any] = json.loads(line)
            if order["op"] == "play":
                self._begin(self._play(order["order"], UUID(order["run_id"])))
            elif order["op"] == "check":
                checking = self._begin(self._check(order["order"], UUID(order["version_id"])))
                self._checks.add(checking)
                checking.add_done_callback(self._checks.discard)
            elif order["op"] == "drain":
                self._drain(order["within_s"])
        # The parent is gone, and with it everybody who could take a report.
        os._exit(EXIT_PARENT_GONE)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _check(self, order: int, version_id: UUID) -> None:
        why = "the worker stops"
        try:
            await self._stage.check(version_id)
        except asyncio.CancelledError:
            self._report({"op": "error", "order": order, "why": why})
        except Exception as error:
            why = f"{type(error).__name__}: {error}".split("\n", 1)[0][:300]
            log.warning("check_failed", version_id=id_text(IdKind.VERSION, version_id), why=why)
            self._report({"op": "error", "order": order, "why": why})
        else:
            self._report({"op": "checked", "order": order})

    async def _play(self, order: int, run_id: UUID) -> None:
        try:
            claim = await self._stage.claim(run_id)
        except Exception as error:
            why = f"{type(error).__name__}: {error}".split("\n", 1)[0][:300]
            log.warning("claim_failed", run_id=id_text(IdKind.RUN, run_id), why=why)
            self._report({"op": "error", "order": order, "why": why})
            return
        if claim is None:
            self._report({"op": "not_claimed", "order": order})
            return
        self._report({"op": "claimed", "order": order})
        end = "crashed"
        try:
            end = (await self._stage.play(claim)).value
        except Exception:
            log.exception("play_crashed", run_id=id_text(IdKind.RUN, run_id))
        self._report({"op": "ended", "order": order, "end": end})

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._draining and not self._tasks:
            self._drained.set()

    def _drain(self, within_s: float) -> None:
        self._draining = True
        self._stage.drain()
        for check in self._checks:
            check.cancel()  # it is made anew by whoever takes its job
        asyncio.get_running_loop().call_later(within_s, self._stage.cut)
        if not self._tasks:
            self._drained.set()

    async def _report_metrics(self) -> None:
        """Tell the parent what was counted; it serves the metrics of all its players."""
        if self._settings.worker_metrics_port is None:
            return
        while True:
            metrics.RUNS_PLAYING.number().set(self._stage.playing)
            used = resource.getrusage(resource.RUSAGE_SELF)
            metrics.PLAYER_CPU_SECONDS.number().set(used.ru_utime + used.ru_stime)
            metrics.PLAYER_MEMORY_BYTES.number().set(_resident_bytes())
            self._report({"op": "metrics", "samples": metrics.snapshot()})
            await asyncio.sleep(self._settings.metrics_interval_s)

    def _report(self, report: dict[str, Any]) -> None:
        # Small lines into a pipe that the parent always reads: this does not block.
        sys.stdout.buffer.write(json.dumps(report).encode() + b"\n")
        sys.stdout.buffer.flush()


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=MAX_ORDER_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    return reader


def tether_to_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, and end now if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_PARENT_GONE)


def settings_of(given: dict[str, Any]) -> Settings:
    """The settings as the parent has them, down to the files that are read again when they change."""
    files = {name: Path(path) for name, path in given["files"].items()}
    return Settings(**given["values"]).read_from(files)


def main(arguments: list[str]) -> int:
    """The whole life of a player process; the exit code."""
    name, parent = arguments
    tether_to_parent(int(parent))
    # The parent decides when to end: a Ctrl-C at the terminal reaches this process too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The parent sends nothing more until this process is ready: nothing is read ahead here.
    settings = settings_of(json.loads(sys.stdin.buffer.readline()))
    configure_logging(settings.log_level, settings.log_format, role="player")
    bind_contextvars(player=name)
    configure_tracing(settings, role="worker")
    with contextlib.suppress(KeyboardInterrupt):
        return uvloop.run(PlayerProcess(settings, name).run())
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
