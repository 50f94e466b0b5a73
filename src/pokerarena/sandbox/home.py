"""The folder in which one process keeps its running sandboxes, and the sweep after its death.

Owns the layout below ``/run`` (bundles, runtime state), the parent cgroup, the numbers of host users
and the lock that says whether the owner lives. A sandbox whose owner is dead is killed by whoever
comes next: nothing is left behind, whatever ended the owner.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from pokerarena.sandbox import cgroups
from pokerarena.sandbox.bundle import IDS_PER_SANDBOX
from pokerarena.sandbox.cgroups import Layout
from pokerarena.sandbox.runtime import Runtime

DEFAULT_BASE: Final = Path("/run/pokerarena/sandboxes")
CGROUP_PARENT: Final = "/pokerarena"
_LOCK: Final = "owner.lock"
# The first id of the host that sandboxes use, and how many.
HOST_IDS: Final = (0x4000_0000, 0x2000_0000)
_HOST_ID_SLOTS: Final = HOST_IDS[1] // IDS_PER_SANDBOX
_PR_SET_CHILD_SUBREAPER: Final = 36
_SWEEP_WAIT_S: Final = 5.0


class SandboxHome:
    """One process's sandboxes. Closing it removes every trace that is left."""

    def __init__(
        self,
        runtime: Runtime,
        rootfs: Path,
        base: Path = DEFAULT_BASE,
        *,
        cgroup_parent: str = CGROUP_PARENT,
    ) -> None:
        self.runtime = runtime
        self.rootfs = rootfs
        self.layout = cgroups.detect()
        base.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._cgroup_parent = cgroup_parent
        sweep(base, self.layout, cgroup_parent)
        self.instance = secrets.token_hex(6)
        self.folder = base / self.instance
        # Made under another name: a folder without a lock looks abandoned to a sweep.
        staged = base / f".{self.instance}"
        # Sandboxes pass through it to what is mounted; nothing in it is open to them.
        staged.mkdir()
        staged.chmod(0o711)
        self._lock_fd = os.open(staged / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        staged.rename(self.folder)
        self.state = self.folder / "state"
        self.state.mkdir(mode=0o700)
        self._out = self.folder / "out"
        self._out.mkdir()
        # Whatever the umask says.
        self._out.chmod(0o711)
        self.cgroup = f"{cgroup_parent}/{self.instance}"
        self._host_ids: set[int] = set()
        self._next = 0
        become_subreaper()
        self._warden = _start_warden(base, cgroup_parent)

    def new_name(self) -> str:
        self._next += 1
        return f"{self.instance}-{self._next}"

    def bundle(self, name: str) -> Path:
        return self.folder / "bundles" / name

    def egress_folder(self, name: str) -> Path:
        """Where a sandbox with a way out has its socket; the path of one must be short."""
        return self._out / name

    def cgroup_path(self, name: str) -> str:
        return f"{self.cgroup}/{name}"

    def take_host_ids(self) -> int:
        """The first of the host ids that a new sandbox alone uses."""
        while True:
            base = HOST_IDS[0] + secrets.randbelow(_HOST_ID_SLOTS) * IDS_PER_SANDBOX
            if base not in self._host_ids:
                self._host_ids.add(base)
                return base

    def return_host_ids(self, base: int) -> None:
        self._host_ids.discard(base)

    def close(self) -> None:
        """Kill what still runs and remove the folder."""
        if self._lock_fd < 0:
            return
        _clear(self.folder, self.layout, self._cgroup_parent)
        os.close(self._lock_fd)
        self._lock_fd = -1
        if self._warden.stdin:
            self._warden.stdin.close()
        self._warden.wait(timeout=_SWEEP_WAIT_S)


def become_subreaper() -> None:
    """Make this process the parent of its orphaned descendants.

    A runtime leaves the sandbox's first process behind when it returns; its exit status reaches us
    only so.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def sweep(
    base: Path, layout: Layout | None = None, cgroup_parent: str = CGROUP_PARENT
) -> list[str]:
    """Kill and remove the sandboxes of owners that are dead; returns their instances."""
    swept = []
    layout = layout or cgroups.detect()
    for folder in sorted(base.iterdir()) if base.is_dir() else ():
        try:
            fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            _clear(folder, layout, cgroup_parent)
            swept.append(folder.name.lstrip("."))
        finally:
            os.close(fd)
    return swept


def _clear(folder: Path, layout: Layout, cgroup_parent: str) -> None:
    parent = f"{cgroup_parent}/{folder.name.lstrip('.')}"
    deadline_s = time.monotonic() + _SWEEP_WAIT_S
    for path in cgroups.leftovers(layout, parent):
        with contextlib.suppress(OSError):
            cgroup = cgroups.open_cgroup(layout, path)
            try:
                cgroup.kill()
                while not cgroup.remove() and time.monotonic() < deadline_s:
                    cgroup.kill()
                    time.sleep(0.02)
            finally:
                cgroup.close()
        cgroups.remove_empty(layout, path)
    cgroups.remove_empty(layout, parent)
    cgroups.remove_empty(layout, cgroup_parent)
    shutil.rmtree(folder, ignore_errors=True)


def _start_warden(base: Path, cgroup_parent: str) -> subprocess.Popen[bytes]:
    """A small process that sweeps as soon as we are gone, however we went."""
    return subprocess.Popen(
        [sys.executable, "-c", _WARDEN, str(base), cgroup_parent, os.pathsep.join(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.defpath},
        cwd="/",
        # Signals to our process group must not take it down with us.
        start_new_session=True,
    )


# It waits without our modules in memory, and loads them only when there is something to do.
_WARDEN: Final = """
import os, sys
while os.read(0, 1): pass
sys.path[:] = sys.argv[3].split(os.pathsep)
from pathlib import Path
from pokerarena.sandbox.home import sweep
sweep(Path(sys.argv[1]), cgroup_parent=sys.argv[2])
"""
