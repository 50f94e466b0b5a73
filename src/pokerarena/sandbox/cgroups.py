"""The cgroup of one sandbox, in both versions: freeze and thaw, CPU time, memory, and its end.

Owns the files under the cgroup mounts and the differences between version 1 and version 2. The OCI
runtime makes a sandbox's cgroup; this module reads it, freezes it, and makes sure that it is gone.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Final, NamedTuple

from pokerarena.errors import Unavailable

_READ_BYTES: Final = 4096
_V1_CONTROLLERS: Final = ("freezer", "cpuacct", "cpu", "memory", "pids", "devices")
_GONE: Final = (errno.ENODEV, errno.ENOENT, errno.EBADF)


class Layout(NamedTuple):
    """Where cgroups are mounted. `controllers` is empty for version 2."""

    version: int
    unified: Path
    controllers: dict[str, Path]

    def split_controllers(self) -> list[str]:
        """In the hybrid layout, the controllers that are in version 2 while others are in 1."""
        try:
            there = (self.unified / "cgroup.controllers").read_text(encoding="utf-8").split()
        except OSError:
            return []
        return there if self.version == 1 else []


def detect(mountinfo: Path = Path("/proc/self/mountinfo")) -> Layout:
    """Find the mounts. Raises `Unavailable` with what is missing."""
    unified: Path | None = None
    controllers: dict[str, Path] = {}
    for line in mountinfo.read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, rest = after.partition(" ")
        where = Path(before.split(" ")[4])
        if kind == "cgroup2" and unified is None:
            unified = where
        elif kind == "cgroup":
            for option in rest.split(" ")[-1].split(","):
                controllers.setdefault(option, where)
    # Version 1 wins where both are mounted: in the hybrid layout the controllers are there.
    if all(name in controllers for name in _V1_CONTROLLERS):
        return Layout(1, unified or Path("/nonexistent"), controllers)
    if unified is not None:
        available = (unified / "cgroup.controllers").read_text(encoding="utf-8").split()
        missing = {"cpu", "memory", "pids"} - set(available)
        if not missing:
            return Layout(2, unified, {})
        raise Unavailable(
            "cgroup_controllers_missing",
            f"cgroup version 2 lacks the controllers {', '.join(sorted(missing))}; delegate them.",
        )
    raise Unavailable("cgroups_missing", "No cgroups are mounted; sandboxes need them.")


class Cgroup:
    """What both versions have in common. Files used in every turn stay open."""

    _memory_events: Path

    def __init__(self, folders: list[Path], freezer: Path, cpu: Path) -> None:
        self._folders = folders
        self._freezer_fd = os.open(freezer, os.O_WRONLY | os.O_CLOEXEC)
        self._cpu_fd = os.open(cpu, os.O_RDONLY | os.O_CLOEXEC)
        self.frozen = False

    def close(self) -> None:
        """Close the open files; the cgroup itself stays."""
        for name in ("_freezer_fd", "_cpu_fd"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    def cpu_ns(self) -> int:
        """CPU time used by everything that ever ran in it."""
        raise NotImplementedError

    def memory_peak_bytes(self) -> int:
        raise NotImplementedError

    def oom_kills(self) -> int:
        """How many of its processes were killed for memory."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop all of it where it is. A cgroup that is gone is still enough."""
        if not self.frozen:
            write_freezer(self._freezer_fd, self._FROZEN)
            self.frozen = True

    def thaw(self) -> None:
        if self.frozen:
            write_freezer(self._freezer_fd, self._THAWED)
            self.frozen = False

    _FROZEN = b""
    _THAWED = b""

    def pids(self) -> list[int]:
        """Its processes, as the host numbers them."""
        found: set[int] = set()
        for folder in self._folders:
            for path in (folder, *_subfolders(folder)):
                try:
                    found.update(map(int, (path / "cgroup.procs").read_text().split()))
                except OSError:
                    continue
        return sorted(found)

    def kill(self) -> None:
        """Kill all of it, frozen or not."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # A frozen process dies when it is thawed, whoever froze it.
        self.frozen = True
        self.thaw()

    def remove(self) -> bool:
        """Remove what is left of it; true once nothing is."""
        gone = True
        for folder in self._folders:
            for path in (*reversed(_subfolders(folder)), folder):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    gone = False
        return gone

    def exists(self) -> bool:
        return any(folder.exists() for folder in self._folders)

    def lease(self) -> tuple[int, int, int]:
        """New descriptors of the freezer, the CPU time and the memory events, for `LeasedMeter`."""
        return (
            os.dup(self._freezer_fd),
            os.dup(self._cpu_fd),
            os.open(self._memory_events, os.O_RDONLY | os.O_CLOEXEC),
        )


class CgroupV1(Cgroup):
    """Version 1: one folder a controller."""

    _FROZEN = b"FROZEN"
    _THAWED = b"THAWED"

    def __init__(self, layout: Layout, path: str) -> None:
        inner = path.lstrip("/")
        self._memory = layout.controllers["memory"] / inner
        self._memory_events = self._memory / "memory.oom_control"
        super().__init__(
            [root / inner for root in roots_of(layout)],
            layout.controllers["freezer"] / inner / "freezer.state",
            layout.controllers["cpuacct"] / inner / "cpuacct.usage",
        )

    def cpu_ns(self) -> int:
        return read_cpu_ns(1, self._cpu_fd)

    def memory_peak_bytes(self) -> int:
        return _number(self._memory / "memory.max_usage_in_bytes")

    def oom_kills(self) -> int:
        return _field(self._memory_events, "oom_kill")


class CgroupV2(Cgroup):
    """Version 2: one folder for all."""

    _FROZEN = b"1"
    _THAWED = b"0"

    def __init__(self, layout: Layout, path: str) -> None:
        self._folder = layout.unified / path.lstrip("/")
        self._memory_events = self._folder / "memory.events"
        super().__init__([self._folder], self._folder / "cgroup.freeze", self._folder / "cpu.stat")

    def cpu_ns(self) -> int:
        return read_cpu_ns(2, self._cpu_fd)

    def memory_peak_bytes(self) -> int:
        return _number(self._folder / "memory.peak") or _number(self._folder / "memory.current")

    def oom_kills(self) -> int:
        return _field(self._memory_events, "oom_kill")

    def kill(self) -> None:
        try:
            (self._folder / "cgroup.kill").write_text("1")
        except OSError:
            # Kernels before 5.14 have no such file.
            super().kill()


class LeasedMeter:
    """The part of another process's cgroup that a turn needs, by open files alone."""

    def __init__(self, version: int, freezer_fd: int, cpu_fd: int, memory_fd: int) -> None:
        self._version = version
        self._fds = (freezer_fd, cpu_fd, memory_fd)
        self.frozen = False

    def cpu_ns(self) -> int:
        return read_cpu_ns(self._version, self._fds[1])

    def oom_kills(self) -> int:
        try:
            text = os.pread(self._fds[2], _READ_BYTES, 0).decode()
        except OSError:
            return 0
        return _field_of(text, "oom_kill")

    def freeze(self) -> None:
        if not self.frozen:
            write_freezer(self._fds[0], b"FROZEN" if self._version == 1 else b"1")
            self.frozen = True

    def thaw(self) -> None:
        if self.frozen:
            write_freezer(self._fds[0], b"THAWED" if self._version == 1 else b"0")
            self.frozen = False

    def close(self) -> None:
        fds, self._fds = self._fds, (-1, -1, -1)
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def write_freezer(fd: int, state: bytes) -> None:
    """Write an open `freezer.state` or `cgroup.freeze`; a cgroup that is gone is frozen enough."""
    try:
        os.pwrite(fd, state, 0)
    except OSError as error:
        if error.errno not in _GONE:
            raise


def read_cpu_ns(version: int, fd: int) -> int:
    """CPU time from an open `cpuacct.usage` or `cpu.stat`; 0 when the cgroup is gone."""
    try:
        text = os.pread(fd, _READ_BYTES, 0)
    except OSError as error:
        if error.errno in _GONE:
            return 0
        raise
    if version == 1:
        return int(text)
    # The kernel documents the name of the field, not its place.
    for line in text.splitlines():
        if line.startswith(b"usage_usec "):
            return int(line[11:]) * 1000
    return 0


def open_cgroup(layout: Layout, path: str) -> Cgroup:
    """The cgroup at `path` below the mounts."""
    return CgroupV1(layout, path) if layout.version == 1 else CgroupV2(layout, path)


def leftovers(layout: Layout, parent: str) -> list[str]:
    """Paths of all cgroups below `parent`, deepest first."""
    inner = parent.strip("/")
    found: set[str] = set()
    for root in roots_of(layout):
        found.update(
            f"/{path.relative_to(root)}" for path in _subfolders(root / inner) if path.is_dir()
        )
    return sorted(found, key=lambda path: -path.count("/"))


def remove_empty(layout: Layout, path: str) -> None:
    """Remove a cgroup without processes from every hierarchy, if it is there."""
    for root in roots_of(layout):
        try:
            (root / path.lstrip("/")).rmdir()
        except OSError:
            continue


def roots_of(layout: Layout) -> list[Path]:
    """Every hierarchy in which a runtime makes folders: in the hybrid layout the unified one too."""
    roots = dict.fromkeys(layout.controllers.values())
    if layout.unified.is_dir():
        roots[layout.unified] = None
    return list(roots)


def _subfolders(folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return found
    for entry in entries:
        found.append(entry)
        found.extend(_subfolders(entry))
    return found


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _field(path: Path, name: str) -> int:
    try:
        return _field_of(path.read_text(), name)
    except OSError:
        return 0


def _field_of(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
