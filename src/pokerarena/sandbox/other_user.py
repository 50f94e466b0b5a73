"""Giving up root: a process becomes a user without rights that rules only its own user namespace.

Owns that one-way step of an agent-host. What it needs to make sandboxes is prepared first, with root's
rights: cgroups of its own, and folders. Afterwards it is root for itself, for runtimes and for the ids
of sandboxes, and nobody to the rest of the machine: it reads no file that is not open to everybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pokerarena.errors import ConfigurationError
from pokerarena.sandbox.cgroups import Layout, roots_of
from pokerarena.sandbox.home import CGROUP_PARENT, HOST_IDS

# gVisor takes this id for what has no owner; no file belongs to it.
_NOBODY: Final = 65_534
_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWUSER: Final = 0x1000_0000
_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_V1_FILES: Final = ("cgroup.procs", "tasks")
_V2_FILES: Final = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_CONTROLLERS: Final = "+cpu +memory +pids"
_ATTEMPTS: Final = 5


def become(user: str, layout: Layout, folders: Iterable[Path]) -> str:
    """Become this user for good; `folders` are handed over to it, with all that is in them.

    Returns the cgroup below which its sandboxes go. Raises `ConfigurationError`.
    """
    try:
        record = pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationError(
            f"there is no user {user}; make one: useradd --system {user}"
        ) from None
    parent = f"{CGROUP_PARENT}/user-{record.pw_uid}"
    try:
        delegate(layout, parent, record.pw_uid, record.pw_gid)
        for folder in folders:
            _hand_over(folder, record.pw_uid, record.pw_gid)
        _change(record.pw_uid, record.pw_gid)
    except OSError as error:
        raise ConfigurationError(
            f"the agent-host cannot become the user {user}: {error}; it has to start as root"
        ) from None
    if not os.access(os.__file__, os.R_OK):
        raise ConfigurationError(
            f"the user {user} cannot read the program itself in {Path(os.__file__).parent}"
        )
    return parent


def delegate(layout: Layout, parent: str, uid: int, gid: int) -> None:
    """Make a cgroup whose insides belong to a user; limits that are set outside of it stay ours."""
    for root in roots_of(layout):
        folder = _make(root, parent, own_controllers=layout.version == 2)
        unified = (root / "cgroup.controllers").exists()
        _give(folder, _V2_FILES if unified else _V1_FILES, uid, gid)
        if unified:
            # Whoever moves a process there must be below the same cgroup of its own.
            own = folder / "agent-host"
            own.mkdir(exist_ok=True)
            _give(own, _V2_FILES, uid, gid)
            (own / "cgroup.procs").write_text(str(os.getpid()))


def _make(root: Path, parent: str, *, own_controllers: bool) -> Path:
    for left in reversed(range(_ATTEMPTS)):
        folder = root
        try:
            for name in parent.strip("/").split("/"):
                if own_controllers:
                    (folder / "cgroup.subtree_control").write_text(_CONTROLLERS)
                folder = folder / name
                folder.mkdir(exist_ok=True)
                _inherit_cpus(folder)
        except FileNotFoundError:
            # Whoever else keeps sandboxes here removes what is above when it is empty.
            if not left:
                raise
        else:
            break
    if own_controllers:
        (folder / "cgroup.subtree_control").write_text(_CONTROLLERS)
    return folder


def _inherit_cpus(folder: Path) -> None:
    """A cpuset without processors takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(OSError):
            if not (folder / name).read_text().strip():
                (folder / name).write_text((folder.parent / name).read_text())


def _give(folder: Path, files: tuple[str, ...], uid: int, gid: int) -> None:
    os.chown(folder, uid, gid)
    for name in files:
        with contextlib.suppress(FileNotFoundError):
            os.chown(folder / name, uid, gid)


def _hand_over(folder: Path, uid: int, gid: int) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    os.chown(folder, uid, gid)
    for _, folders, files, fd in os.fwalk(folder):
        for name in (*folders, *files):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            # The user has been here before: a second name of a file of root's is not root's gift.
            if status.st_uid == 0 and (stat.S_ISDIR(status.st_mode) or status.st_nlink == 1):
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)


def _change(uid: int, gid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    parent, signal_number = os.getppid(), ctypes.c_int()
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(signal_number), 0, 0, 0)
    mapper, ready, mapped = _start_mapper(uid, gid)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _do(libc.unshare(_CLONE_NEWUSER))
    os.write(ready, b".")
    if os.read(mapped, 1) != b".":
        raise OSError("its user namespace got no ids")
    os.waitpid(mapper, 0)
    for fd in (ready, mapped):
        os.close(fd)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # Its mounts are its own from here on, as its network is already.
    _do(libc.unshare(_CLONE_NEWNS))
    # A change of user makes /proc/self root's, and unties from the parent: both are taken back.
    _do(libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))
    _do(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _do(libc.prctl(_PR_SET_PDEATHSIG, signal_number.value, 0, 0, 0))
    if signal_number.value and os.getppid() != parent:
        raise OSError("whoever started it is gone")


def _start_mapper(uid: int, gid: int) -> tuple[int, int, int]:
    """A child that is still root and writes down which ids the new namespace has."""
    target = os.getpid()
    ready_read, ready = os.pipe2(os.O_CLOEXEC)
    mapped, mapped_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(ready)
            if os.read(ready_read, 1):
                for kind, own in (("uid", uid), ("gid", gid)):
                    lines = ((0, own, 1), (_NOBODY, _NOBODY, 1), (HOST_IDS[0], *HOST_IDS))
                    text = "".join(
                        f"{inside} {outside} {count}\n" for inside, outside, count in lines
                    )
                    Path(f"/proc/{target}/{kind}_map").write_text(text)
                os.write(mapped_write, b".")
        finally:
            os._exit(0)
    os.close(ready_read)
    os.close(mapped_write)
    return child, ready, mapped


def _do(failed: int) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
