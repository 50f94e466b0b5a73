"""The player processes of one worker: started, watched, replaced.

Owns the pipes to them and who gets the next run. It never plays and never touches the database; a
process that died is reported, so that its runs can be taken up at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from pydantic import SecretStr

from pokerarena import metrics
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger
from pokerarena.worker.tasks import WorkerFull

log = get_logger("worker.processes")

READY_TIMEOUT_S: Final = 60.0
RESTART_CAP_S: Final = 10.0
# A process that has lived this long did not die of its start.
HEALTHY_AFTER_S: Final = 10.0
PLAYER_MODULE: Final = (sys.executable, "-m", "pokerarena.worker.player")
SETTLE_S: Final = 4.0
# Each keeps a sandbox busy for a while, and a slot of the queue that runs need as well.
CHECKS_AT_ONCE: Final = 4
# Each costs the memory of a process.
ALONE_MAX: Final = 4
MAX_REPORT_BYTES: Final = 256 * 1024


class PlayerProcessLost(Exception):
    """The player process died, or there is none."""


class ClaimFailed(Exception):
    """A player process could not claim the run, for a reason that may pass."""


class PlayerProcess:
    """One child and the runs that it has; one that is for a single run ends with it."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        counted: metrics.Aggregate,
        *,
        for_one: bool = False,
    ) -> None:
        self.name = name
        self._for_one = for_one
        self._counted = counted
        self.orders: dict[int, asyncio.Future[bool]] = {}
        self.runs: set[int] = set()
        self.ready = asyncio.Event()
        self._process = process

    @property
    def load(self) -> int:
        return len(self.orders) + len(self.runs)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: dict[str, Any]) -> None:
        """Write one order; a process that is gone is noticed by its reader."""
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def read(self) -> int:
        """Take reports until the process ends; its exit code."""
        assert self._process.stdout is not None, "it was started with a pipe"
        while line := await self._process.stdout.readline():
            self._take(json.loads(line))
        code = await self._process.wait()
        for order in self.orders.values():
            if not order.done():
                order.set_exception(PlayerProcessLost(f"player process {self.name} ended"))
        self.orders.clear()
        self._counted.gone(self.name)
        return code

    def _take(self, report: dict[str, Any]) -> None:
        op = report["op"]
        if op == "ready":
            self.ready.set()
        elif op == "metrics":
            self._counted.take(self.name, report["samples"])
        elif op == "ended":
            self.runs.discard(report["order"])
        elif (order := self.orders.pop(report["order"], None)) is not None:
            if op == "claimed":
                self.runs.add(report["order"])
            if order.done():
                pass  # whoever asked waits no more
            elif op == "error":
                order.set_exception(ClaimFailed(report["why"]))
            else:
                order.set_result(op in ("claimed", "checked"))
        if self._for_one and op not in ("ready", "metrics") and not self.load:
            self.send({"op": "drain", "within_s": SETTLE_S})


class PlayerProcesses:
    """All player processes of this worker."""

    def __init__(
        self,
        settings: Settings,
        count: int,
        *,
        on_death: Callable[[str], None],
        command: Sequence[str] = PLAYER_MODULE,
        counted: metrics.Aggregate | None = None,
    ) -> None:
        self._counted = counted or metrics.Aggregate()
        self._settings = settings
        self._count = count
        self._on_death = on_death
        self._command = command
        self._orders = itertools.count(1)
        self._serials = itertools.count(1)
        self._living: dict[str, PlayerProcess] = {}
        self._draining = asyncio.Event()
        self._checks = 0
        self._alone_coming = 0
        self._alone: dict[asyncio.Task[None], PlayerProcess] = {}
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start them all, and return when each is ready."""
        self._keepers = [
            asyncio.create_task(self._keep(index), name=f"player {index}")
            for index in range(self._count)
        ]
        async with asyncio.timeout(READY_TIMEOUT_S):
            while len(self._ready()) < self._count:
                for keeper in self._keepers:
                    if keeper.done():
                        keeper.result()
                await asyncio.sleep(0.02)

    async def begin(self, run_id: UUID) -> bool:
        """Have the process with the fewest runs claim this one; whether it did.

        Raises `WorkerFull`, `PlayerProcessLost` and `ClaimFailed`.
        """
        ready = self._ready()
        if not ready or self._draining.is_set():
            raise PlayerProcessLost("no player process is ready")
        process = min(ready, key=lambda each: each.load)
        if process.load >= self._settings.worker_runs_per_process:
            raise WorkerFull(f"all {len(ready)} player processes are full")
        return await self._order(process, {"op": "play", "run_id": str(run_id)})

    async def begin_alone(self, run_id: UUID) -> bool:
        """Have a process claim this run that plays nothing else, and ends with it.

        For runs that may have taken their processes down: whatever becomes of this one, it takes
        no other along. Raises as `begin` does.
        """
        if self._draining.is_set():
            raise PlayerProcessLost("the worker stops")
        if len(self._alone) + self._alone_coming >= ALONE_MAX:
            raise WorkerFull(f"{ALONE_MAX} runs are played alone")
        name = self._new_name("alone")
        self._alone_coming += 1
        try:
            process = await self._spawn(name, for_one=True)
            keeper = asyncio.create_task(self._keep_one(process), name=f"player {name}")
            self._alone[keeper] = process
            keeper.add_done_callback(self._alone.pop)
        finally:
            self._alone_coming -= 1
        try:
            await self._until_ready(process, keeper)
        except BaseException:
            # Nobody will ever give it a run.
            process.kill()
            raise
        return await self._order(process, {"op": "play", "run_id": str(run_id)})

    async def _until_ready(self, process: PlayerProcess, keeper: asyncio.Task[None]) -> None:
        ready = asyncio.create_task(process.ready.wait())
        try:
            await asyncio.wait(
                (ready, keeper), timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
        if keeper.done() or self._draining.is_set() or not process.ready.is_set():
            raise PlayerProcessLost("the player process did not start")

    async def check(self, version_id: UUID) -> None:
        """Have the process with the fewest runs check a hosted version; returns when it is done.

        Raises `WorkerFull`, `PlayerProcessLost` and `ClaimFailed`.
        """
        ready = self._ready()
        if not ready or self._draining.is_set():
            raise PlayerProcessLost("no player process is ready")
        if self._checks >= CHECKS_AT_ONCE:
            raise WorkerFull(f"{CHECKS_AT_ONCE} checks are in progress")
        self._checks += 1
        try:
            process = min(ready, key=lambda each: each.load)
            await self._order(process, {"op": "check", "version_id": str(version_id)})
        finally:
            self._checks -= 1

    async def _order(self, process: PlayerProcess, what: dict[str, Any]) -> bool:
        number = next(self._orders)
        order: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        process.orders[number] = order
        process.send({**what, "order": number})
        return await order

    async def drain(self, within_s: float) -> bool:
        """Have them finish their hands and end; whether all did in time."""
        self._draining.set()
        # What is left of the time when hands are cut: to hand the runs back and to end.
        settle_s = min(SETTLE_S, within_s / 2)
        for process in self._everyone():
            if process.ready.is_set():
                process.send({"op": "drain", "within_s": within_s - settle_s})
            else:
                # It has nothing to finish, and would not hear: orders are read from then on only.
                process.kill()
        done, late = await asyncio.wait((*self._keepers, *self._alone), timeout=within_s)
        for process in self._everyone():
            process.kill()
        if late:
            await asyncio.wait(late)
        return not late and bool(done)

    @property
    def living(self) -> int:
        return len(self._everyone())

    def _everyone(self) -> list[PlayerProcess]:
        return [*self._living.values(), *self._alone.values()]

    def _ready(self) -> list[PlayerProcess]:
        return [process for process in self._living.values() if process.ready.is_set()]

    async def _keep(self, index: int) -> None:
        """One process after the other, for as long as the worker lives."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._draining.is_set():
            began_s = loop.time()
            name = self._new_name(str(index))
            process = await self._spawn(name)
            self._living[name] = process
            if self._draining.is_set():
                process.kill()
            code = await process.read()
            self._living.pop(name, None)
            if self._draining.is_set() and (code == 0 or not process.ready.is_set()):
                return
            self._report_death(process, code)
            failures = 0 if loop.time() - began_s > HEALTHY_AFTER_S else failures + 1
            if failures:
                pause_s = min(RESTART_CAP_S, 0.1 * 2**failures)
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - jitter

    async def _keep_one(self, process: PlayerProcess) -> None:
        code = await process.read()
        if code != 0 and (process.ready.is_set() or not self._draining.is_set()):
            self._report_death(process, code)

    def _report_death(self, process: PlayerProcess, code: int) -> None:
        metrics.PLAYERS_DIED.number().add()
        log.error(
            "player_process_died",
            player=process.name,
            pid=process.pid,
            exit=_exit_text(code),
            runs=len(process.runs),
        )
        self._on_death(process.name)

    def _new_name(self, place: str) -> str:
        return f"{socket.gethostname()[:80]}:{os.getpid()}:{place}.{next(self._serials)}"

    async def _spawn(self, name: str, *, for_one: bool = False) -> PlayerProcess:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            name,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_REPORT_BYTES,
        )
        process = PlayerProcess(name, child, self._counted, for_one=for_one)
        process.send(plain(self._settings))
        return process


def plain(settings: Settings) -> dict[str, Any]:
    """The settings with their secrets, and their files, for a pipe that nobody else can read."""
    return {
        "values": {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in settings.model_dump().items()
        },
        "files": {name: str(path) for name, path in settings.files().items()},
    }


def _exit_text(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else str(code)
