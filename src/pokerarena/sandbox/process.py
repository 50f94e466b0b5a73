"""One sandbox from its start to the last trace of it.

Owns the life of a single container: bundle, start, readiness, end, why it ended, and cleaning up.
It knows nothing of poker and nothing of decisions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from pokerarena.agents.player import FallbackReason
from pokerarena.egress.lines import EgressLine, EgressLines
from pokerarena.errors import Unavailable
from pokerarena.sandbox import bundle, cgroups, runtime
from pokerarena.sandbox.cgroups import Cgroup
from pokerarena.sandbox.home import SandboxHome
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.pipes import AgentPipes, Listener
from pokerarena.sandbox.runtime import StartFailed
from pokerarena.sandbox.store import StoredAgent
from pokerarena.sandbox.turns import Meter

_RUNTIME_TIMEOUT_S: Final = 20.0
_KILL_TIMEOUT_S: Final = 10.0
_READY_POLL_S: Final = (0.002, 0.004, 0.008, 0.016)
# A program whose CPU time stands still for this long waits for something.
_STILL_S: Final = 0.03
# Numbers of the calls in which a program waits for input, and whether their first argument is a fd.
_READ_CALLS: Final = {"x86_64": "0", "aarch64": "63"}
_WAIT_CALLS: Final = {
    "x86_64": ("7", "23", "232", "270", "271", "281"),
    "aarch64": ("22", "72", "73"),
}


class Ended(NamedTuple):
    """Why a sandbox is over: the reason its owner's decisions fail with, and a sentence."""

    reason: FallbackReason
    detail: str


def memory_end(limits: SandboxLimits) -> Ended:
    return Ended(
        FallbackReason.SANDBOX_MEMORY,
        f"needed more than its {limits.memory_bytes >> 20} MiB of memory",
    )


class SandboxReport(NamedTuple):
    """What one sandbox used, for its owner."""

    cpu_ns: int
    memory_peak_bytes: int
    oom_kills: int
    stderr: str
    stderr_total_bytes: int


class Running(Protocol):
    """An agent that runs, as its player sees it, wherever and however it does."""

    pipes: AgentPipes

    @property
    def meter(self) -> Meter: ...

    @property
    def alive(self) -> bool: ...

    async def ready(self) -> Ended | None: ...

    def why_ended(self) -> Ended: ...

    def out_of_memory(self) -> Ended | None: ...

    def kill(self) -> None: ...

    async def wait(self, timeout_s: float) -> bool: ...

    def report(self) -> SandboxReport: ...

    async def stop(self) -> SandboxReport: ...


class Launcher(Protocol):
    """Starts agents. Raises `StartFailed` for the agent's faults and `Unavailable` for ours."""

    async def launch(self, limits: SandboxLimits, listener: Listener) -> Running: ...


class SandboxLauncher:
    """Starts one agent's sandboxes in this process."""

    def __init__(
        self, home: SandboxHome, agent: StoredAgent, egress: EgressLines | None = None
    ) -> None:
        self._home = home
        self._agent = agent
        self._egress = egress

    async def launch(self, limits: SandboxLimits, listener: Listener) -> SandboxProcess:
        line = self._egress.line() if self._egress is not None else None
        process = SandboxProcess(self._home, self._agent, limits, listener, line)
        await process.start()
        return process


class SandboxProcess:
    """A running agent. `start` makes one; `stop` leaves nothing of it."""

    def __init__(
        self, home: SandboxHome, agent: StoredAgent, limits: SandboxLimits, listener: Listener,
        egress: EgressLine | None = None,
    ) -> None:  # fmt: skip
        self._egress = egress
        self._home = home
        self._agent = agent
        self._listener = listener
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self.name = home.new_name()
        self.pipes = AgentPipes(limits, listener, self._loop)
        self._host_ids = home.take_host_ids()
        self._pid = 0
        self._pid_fd = -1
        self._cgroup: Cgroup | None = None
        self._exit_status: tuple[int, int] | None = None
        self._gone = asyncio.Event()
        self._stopped = False
        self._report: SandboxReport | None = None

    @property
    def cgroup(self) -> Cgroup:
        if self._cgroup is None:
            raise RuntimeError("the sandbox has not been started")
        return self._cgroup

    @property
    def meter(self) -> Meter:
        return self.cgroup

    @property
    def alive(self) -> bool:
        return self._pid_fd >= 0 and not self._gone.is_set()

    async def start(self) -> None:
        """Start the agent's program; it is not ready yet.

        Raises `StartFailed` when the program is at fault, `Unavailable` when we are.
        """
        home = self._home
        spec = bundle.SandboxSpec(
            rootfs=str(home.rootfs),
            agent_folder=str(self._agent.folder),
            manifest=self._agent.manifest,
            limits=self.limits,
            cgroup_path=home.cgroup_path(self.name),
            host_id_base=self._host_ids,
            extra_pids=home.runtime.extra_pids,
            extra_memory_bytes=home.runtime.extra_memory_bytes,
            own_kernel=home.runtime.own_kernel,
            egress_folder=str(home.egress_folder(self.name)) if self._egress else None,
        )
        try:
            if self._egress is not None:
                folder = home.egress_folder(self.name)
                folder.mkdir()
                folder.chmod(0o755)
                await self._egress.open(folder / bundle.EGRESS_SOCKET, self._host_ids + 1)
            runtime.write_bundle(home.bundle(self.name), bundle.config(spec))
            # The agent runs as a user of its own, who must be able to use the pipes it inherits.
            for fd in self.pipes.inner:
                os.fchown(fd, self._host_ids + 1, self._host_ids + 1)
            self._pid = await runtime.run_detached(
                home.runtime, home.state, home.bundle(self.name), self.name,
                (self.pipes.inner[0], self.pipes.inner[1], self.pipes.inner[2]), _RUNTIME_TIMEOUT_S,
                with_socket=self._egress is not None,
            )  # fmt: skip
            self._cgroup = cgroups.open_cgroup(home.layout, home.cgroup_path(self.name))
            self._pid_fd = os.pidfd_open(self._pid)
        except StartFailed:
            await self.stop()
            raise
        except (OSError, ValueError) as error:
            await self.stop()
            raise Unavailable(
                "sandbox_start_failed", f"No sandbox could be made: {error}."
            ) from error
        except BaseException:
            await self.stop()
            raise
        self._loop.add_reader(self._pid_fd, self._on_exit)
        self.pipes.start()

    async def ready(self) -> Ended | None:
        """Wait until the agent waits for its first line. None when it does, else why it never will."""
        deadline_s = self._loop.time() + self.limits.start_timeout_ms / 1000
        turn = 0
        still_since_s, still_ns = self._loop.time(), -1
        while not self._gone.is_set():
            now_s, now_ns = self._loop.time(), self.cgroup.cpu_ns()
            if now_ns > self.limits.start_cpu_ms * 1_000_000:
                return Ended(
                    FallbackReason.SANDBOX_CPU,
                    f"used more than {self.limits.start_cpu_ms} ms of CPU before it was ready",
                )
            if now_ns != still_ns or self._wants_cpu():
                still_since_s, still_ns = now_s, now_ns
            elif now_s - still_since_s > _STILL_S:
                return None
            if self._waits_for_input():
                return None
            if now_s > deadline_s:
                return Ended(
                    FallbackReason.SANDBOX_EXIT,
                    f"was not ready {self.limits.start_timeout_ms} ms after its start",
                )
            await asyncio.sleep(_READY_POLL_S[min(turn, len(_READY_POLL_S) - 1)])
            turn += 1
        return self.why_ended()

    def why_ended(self) -> Ended:
        """The reason for an end that nobody ordered."""
        if (memory := self.out_of_memory()) is not None:
            return memory
        if self._exit_status is None:
            return Ended(FallbackReason.SANDBOX_EXIT, "ended")
        code, status = self._exit_status
        if code == os.CLD_EXITED:
            return Ended(
                FallbackReason.SANDBOX_EXIT,
                f"ended with exit code {status}{self._last_words()}",
            )
        try:
            name = signal.Signals(status).name
        except ValueError:
            name = f"signal {status}"
        return Ended(FallbackReason.SANDBOX_EXIT, f"was killed by {name}{self._last_words()}")

    def out_of_memory(self) -> Ended | None:
        """The end for want of memory, if something in it was killed for that."""
        return memory_end(self.limits) if self.cgroup.oom_kills() else None

    def report(self) -> SandboxReport:
        """What it has used so far; after `stop`, what it used in all."""
        if self._report is not None:
            return self._report
        if self._cgroup is None:
            return SandboxReport(0, 0, 0, self.pipes.stderr_text(), self.pipes.stderr_total_bytes)
        return SandboxReport(
            self._cgroup.cpu_ns(),
            self._cgroup.memory_peak_bytes(),
            self._cgroup.oom_kills(),
            self.pipes.stderr_text(),
            self.pipes.stderr_total_bytes,
        )

    def kill(self) -> None:
        """Kill every process in it, frozen or not; returns at once."""
        if self._cgroup is not None:
            if self._pid_fd >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pid_fd, signal.SIGKILL)
            self._cgroup.kill()

    async def wait(self, timeout_s: float) -> bool:
        """Whether it ended within this time."""
        try:
            await asyncio.wait_for(self._gone.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> SandboxReport:
        """End it and remove its cgroup, bundle, runtime state and descriptors."""
        if self._stopped:
            return self.report()
        self._stopped = True
        home = self._home
        if self._cgroup is None:
            # The start was broken off; whatever there is of it has to go as well.
            with contextlib.suppress(OSError):
                self._cgroup = cgroups.open_cgroup(home.layout, home.cgroup_path(self.name))
        descendants = self._cgroup.pids() if self._cgroup is not None else []
        try:
            self.kill()
            if self._pid_fd >= 0 and not await self.wait(_KILL_TIMEOUT_S):
                raise Unavailable(
                    "sandbox_unkillable", f"The sandbox {self.name} cannot be killed."
                )
            self.pipes.drain()
        finally:
            if self._egress is not None:
                await self._egress.close()
                shutil.rmtree(home.egress_folder(self.name), ignore_errors=True)
            self._report = self.report()
            self.pipes.close()
            self._forget_process()
            if home.bundle(self.name).exists():
                await runtime.delete(home.runtime, home.state, self.name)
            await self._remove_cgroup()
            _reap(descendants)
            shutil.rmtree(home.bundle(self.name), ignore_errors=True)
            home.return_host_ids(self._host_ids)
        return self._report

    async def _remove_cgroup(self) -> None:
        path = self._home.cgroup_path(self.name)
        if self._cgroup is not None:
            deadline_s = self._loop.time() + _KILL_TIMEOUT_S
            while not self._cgroup.remove() and self._loop.time() < deadline_s:
                self._cgroup.kill()
                await asyncio.sleep(0.01)
            self._cgroup.close()
        else:
            for left in cgroups.leftovers(self._home.layout, path):
                cgroups.remove_empty(self._home.layout, left)
            cgroups.remove_empty(self._home.layout, path)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pid_fd)
        try:
            result = os.waitid(os.P_PIDFD, self._pid_fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            # Not our child: another process of this machine is the subreaper.
            result = None
        if result is not None:
            self._exit_status = (result.si_code, result.si_status)
        self.pipes.drain()
        self._gone.set()
        self._listener.ended()

    def _forget_process(self) -> None:
        if self._pid_fd >= 0:
            self._loop.remove_reader(self._pid_fd)
            os.close(self._pid_fd)
            self._pid_fd = -1

    def _waits_for_input(self) -> bool:
        """Whether its first process is blocked in a read of stdin, or waits for some descriptor."""
        try:
            call = Path(f"/proc/{self._pid}/syscall").read_text().split()
        except OSError:
            return False
        machine = os.uname().machine
        if len(call) > 1 and call[0] == _READ_CALLS.get(machine) and call[1] == "0x0":
            return True
        return call[0] in _WAIT_CALLS.get(machine, ())

    def _wants_cpu(self) -> bool:
        """Whether its first process waits for a core: on a busy machine that looks like standing still."""
        try:
            stat = Path(f"/proc/{self._pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in ("R", "D")

    def _last_words(self) -> str:
        lines = self.pipes.stderr_text().strip().splitlines()
        return f"; its last line on stderr: {lines[-1][:160]}" if lines else ""


def _reap(pids: list[int]) -> None:
    """Take the exit status of those that became our children, so that no zombie stays."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
