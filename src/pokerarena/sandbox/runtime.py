"""The OCI runtimes that can carry a sandbox, and the few commands of theirs that we use.

Owns finding a runtime, starting a container from a bundle and deleting it. Standard input and
output go straight to the agent (``run --detach``): no process of the runtime stands between.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pokerarena.errors import Unavailable
from pokerarena.sandbox.cgroups import Layout, detect
from pokerarena.sandbox.limits import MIB

_COMMAND_TIMEOUT_S: Final = 30
_KEPT_MESSAGE_CHARS: Final = 500
_SYSTEM_FOLDERS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the runtimes say when the agent's own file cannot be executed.
_AGENT_FAULTS: Final = ("exec format error", "permission denied", "no such file or directory")


class RuntimeName(StrEnum):
    """Which OCI runtime. `runsc` (gVisor) is for code that nobody vouches for."""

    RUNC = "runc"
    RUNSC = "runsc"
    CRUN = "crun"


class StartFailed(Exception):
    """The agent's program could not be executed; the message is for its owner."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime on this machine, and what it adds to a sandbox's own use."""

    name: RuntimeName
    program: str
    arguments: tuple[str, ...] = ()
    # gVisor's kernel runs inside the sandbox's cgroup, threads and memory alike.
    extra_pids: int = 0
    extra_memory_bytes: int = 0
    own_kernel: bool = False
    # What it must be told where a socket of the host is mounted.
    socket_arguments: tuple[str, ...] = ()


_INSTALL: Final = {
    RuntimeName.RUNC: "apt-get install runc",
    RuntimeName.RUNSC: "apt-get install runsc",
    RuntimeName.CRUN: "apt-get install crun",
}


def find_runtime(
    name: RuntimeName = RuntimeName.RUNC,
    *,
    platform: str = "ptrace",
    layout: Callable[[], Layout] = detect,
) -> Runtime:
    """The runtime of this name. Raises `Unavailable` with what is missing and what to do."""
    program = shutil.which(name.value, path=_SYSTEM_FOLDERS)
    if program is None:
        raise Unavailable(
            "sandbox_runtime_missing", f"{name.value} is not installed; {_INSTALL[name]}."
        )
    if os.geteuid() != 0:
        raise Unavailable(
            "sandbox_needs_root",
            "Sandboxes need root to make cgroups and user mappings; start the agent-host as root.",
        )
    if name is RuntimeName.CRUN and (controllers := layout().split_controllers()):
        # It fails at its first container there: "cgroups in hybrid mode not supported, drop all
        # controllers from cgroupv2".
        raise Unavailable(
            "crun_refuses_hybrid_cgroups",
            "crun refuses the hybrid cgroup layout of this machine: version 1 is mounted, and "
            f"version 2 beside it has controllers too ({' '.join(controllers)}). Use runc or runsc, "
            "or start the machine with systemd.unified_cgroup_hierarchy=1.",
        )
    if name is RuntimeName.RUNSC:
        return Runtime(
            name,
            program,
            (f"--platform={platform}", "--network=none", "-oci-seccomp=true", "--overlay=false"),
            extra_pids=512,
            extra_memory_bytes=96 * MIB,
            own_kernel=True,
            socket_arguments=("--host-uds=open",),
        )
    return Runtime(name, program)


def runtimes_here() -> dict[RuntimeName, Runtime | Unavailable]:
    """Each runtime that we know: found, or what keeps it from working here."""
    found: dict[RuntimeName, Runtime | Unavailable] = {}
    for name in RuntimeName:
        try:
            found[name] = find_runtime(name)
        except Unavailable as error:
            found[name] = error
    return found


def write_bundle(folder: Path, config: dict[str, Any]) -> None:
    """Write a bundle; only we can read it."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


async def run_detached(
    runtime: Runtime,
    state: Path,
    bundle: Path,
    name: str,
    fds: tuple[int, int, int],
    timeout_s: float,
    *,
    with_socket: bool = False,
) -> int:
    """Start the container with these standard streams; returns the host's pid of its first process.

    Raises `StartFailed` when the agent's own file is at fault, else `Unavailable`.
    """
    log = bundle / "runtime.log"
    pid_file = bundle / "pid"
    arguments = runtime.arguments + (runtime.socket_arguments if with_socket else ())
    process = await asyncio.create_subprocess_exec(
        runtime.program, "--root", str(state), "--log", str(log), *arguments,
        "run", "--detach", "--bundle", str(bundle), "--pid-file", str(pid_file), name,
        stdin=fds[0], stdout=fds[1], stderr=fds[2],
        env={"PATH": _SYSTEM_FOLDERS}, cwd="/", close_fds=True,
    )  # fmt: skip
    try:
        code = await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Unavailable(
            "sandbox_start_failed", f"{runtime.name} did not start within {timeout_s:.1f} s."
        ) from None
    except asyncio.CancelledError:
        # Stopped half way it would leave a container that nobody knows of.
        await process.wait()
        raise
    if code == 0:
        return int(pid_file.read_text())
    message = _message(log)
    # Only the program of a binary agent comes from its owner; our own Python is there.
    if "exec" in message and any(fault in message.lower() for fault in _AGENT_FAULTS):
        raise StartFailed(f"the program cannot be executed: {message[-200:]}")
    raise Unavailable("sandbox_start_failed", f"{runtime.name} failed: {message or code}")


async def delete(runtime: Runtime, state: Path, name: str) -> None:
    """Delete what the runtime keeps of a container that has ended."""
    if runtime.name is RuntimeName.RUNSC:
        # Its own command waits five seconds for a sandbox that we have killed already.
        _forget(state, name)
        return
    if not (state / name).exists():
        return
    process = await asyncio.create_subprocess_exec(
        runtime.program, "--root", str(state), *runtime.arguments, "delete", "--force", name,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL, env={"PATH": _SYSTEM_FOLDERS}, cwd="/",
    )  # fmt: skip
    try:
        await asyncio.wait_for(process.wait(), _COMMAND_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _forget(state: Path, name: str) -> None:
    for path in state.glob(f"{name}*"):
        path.unlink(missing_ok=True)


def _message(log: Path) -> str:
    """The last error that the runtime logged."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        if "level=error" in line or "level=fatal" in line or "error" in line.lower():
            return line.partition("msg=")[2][:_KEPT_MESSAGE_CHARS] or line[:_KEPT_MESSAGE_CHARS]
    return ""
