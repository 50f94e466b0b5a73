"""An agent as a plain process, without a sandbox: for one's own code, in `match` only.

Owns nothing that protects anybody: the agent runs with the caller's rights. It exists so that an
author needs no root and no runtime to try an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

import pokerarena_sdk
from pokerarena.agents.player import FallbackReason
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.pipes import AgentPipes, Listener
from pokerarena.sandbox.process import Ended, SandboxReport
from pokerarena.sandbox.runtime import StartFailed
from pokerarena_sdk.manifest import Manifest

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")


class BareLauncher:
    """Implements `process.Launcher` by starting the agent's own file."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest

    async def launch(self, limits: SandboxLimits, listener: Listener) -> BareProcess:
        entry = str(self._folder / self._manifest.entry_point)
        command = [entry]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if self._manifest.runtime == "python3":
            command = [sys.executable, "-B", "-m", "pokerarena_sdk", "run", entry]
            environment["PYTHONPATH"] = str(Path(pokerarena_sdk.__file__).parents[1])
        pipes = AgentPipes(limits, listener, asyncio.get_running_loop())
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipes.inner[0], stdout=pipes.inner[1], stderr=pipes.inner[2],
                cwd=self._folder, env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            pipes.close()
            raise StartFailed(f"the program cannot be executed: {error.strerror}") from None
        pipes.start()
        return BareProcess(process, pipes, listener)


class BareMeter:
    """CPU time of one process; it is never frozen."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._last_ns = 0
        self.frozen = False

    def cpu_ns(self) -> int:
        with contextlib.suppress(OSError):
            fields = self._stat.read_text().rpartition(")")[2].split()
            self._last_ns = (int(fields[11]) + int(fields[12])) * 1_000_000_000 // _TICKS_PER_S
        return self._last_ns

    def freeze(self) -> None:
        """Nothing: there is no quota to protect on the author's own machine."""

    def thaw(self) -> None:
        """Nothing."""


class BareProcess:
    """Implements `process.Running` over a plain child process."""

    def __init__(
        self, process: asyncio.subprocess.Process, pipes: AgentPipes, listener: Listener
    ) -> None:
        self.pipes = pipes
        self.meter = BareMeter(process.pid)
        self._process = process
        self._listener = listener
        self._watch = asyncio.create_task(self._wait_for_end())

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ready(self) -> Ended | None:
        """It may take its time: here nobody else waits for the machine."""
        return None

    def why_ended(self) -> Ended:
        code = self._process.returncode
        if code is not None and code < 0:
            return Ended(FallbackReason.SANDBOX_EXIT, f"was killed by signal {-code}")
        words = self.pipes.stderr_text().strip().splitlines()
        said = f"; its last line on stderr: {words[-1][:160]}" if words else ""
        return Ended(FallbackReason.SANDBOX_EXIT, f"ended with exit code {code}{said}")

    def out_of_memory(self) -> Ended | None:
        return None

    def kill(self) -> None:
        # The whole session: an agent's children must not outlive a match.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def report(self) -> SandboxReport:
        text = self.pipes.stderr_text()
        return SandboxReport(self.meter.cpu_ns(), 0, 0, text, self.pipes.stderr_total_bytes)

    async def stop(self) -> SandboxReport:
        self.kill()
        await self._process.wait()
        self._watch.cancel()
        self.pipes.drain()
        report = self.report()
        self.pipes.close()
        return report

    async def _wait_for_end(self) -> None:
        await self._process.wait()
        self.pipes.drain()
        self._listener.ended()
