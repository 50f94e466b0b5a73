"""What an agent-host may not have: secrets of the control plane, and a way to it.

Owns the refusal to start with a secret in the environment, and the cutting off of network and
folders before the first sandbox is made.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pokerarena.errors import ConfigurationError

_SECRET_NAME: Final = re.compile(
    r"(_KEY|_SECRET|_TOKEN|_PASSWORD|_PASSWD|_PEPPER|_CREDENTIALS|_DSN|DATABASE_URL|REDIS_URL)"
    r"(S_PREVIOUS)?(_FILE|_PATH)?$|^PG(PASSWORD|PASSFILE|SERVICE|SERVICEFILE|HOST|USER)$"
)
_SECRET_VALUE: Final = re.compile(
    r"PRIVATE KEY-----|^(postgres(ql)?|redis|mysql)(\+\w+)?://|^[a-z][a-z0-9+.-]*://[^/@\s]+:[^/@\s]+@"
)
# What a service needs to run; whoever starts an agent-host passes these on and nothing else.
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONUNBUFFERED")
_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWNET: Final = 0x4000_0000
_MS_NOSUID_NODEV: Final = 2 | 4
_MS_BIND_REC: Final = 0x1000 | 0x4000
_MS_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_MS_REC_PRIVATE: Final = 0x4000 | (1 << 18)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that an agent-host may be given."""
    return {name: environ[name] for name in _KEPT if name in environ}


def refuse_secrets(environ: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` that names the first variable that holds a secret."""
    for name in sorted(environ):
        if _SECRET_NAME.search(name.upper()) or _SECRET_VALUE.search(environ[name]):
            raise ConfigurationError(
                f"{name} looks like a secret of the control plane; an agent-host must not hold one: "
                "unset it and start again"
            )


def program_folders() -> dict[Path, list[Path]]:
    """Folders that only their owner may enter, and below each what this program is made of."""
    closed: dict[Path, list[Path]] = {}
    named = {*sys.path, sys.prefix, sys.base_prefix, str(Path(os.__file__).parent)}
    parts = {Path(one).resolve() for one in named if one and Path(one).is_dir()}
    for part in sorted(part for part in parts if not parts & {*part.parents}):
        for folder in reversed(part.parents):
            if not folder.stat().st_mode & 0o001:
                closed.setdefault(folder, []).append(part)
                break
    return closed


def cut_off(
    hidden: Iterable[Path] = (),
    *,
    network: bool = False,
    kept: Mapping[Path, Iterable[Path]] | None = None,
) -> None:
    """Leave the host's network behind, unless it is needed, and cover folders with nothing.

    Of a folder in `kept` nothing is left but what is named. For this process and all it starts. A
    sandbox is cut off by itself; this is for the day on which something gets out of one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _CLONE_NEWNS | (0 if network else _CLONE_NEWNET)
    if libc.unshare(flags):
        raise _failed("leave the host's namespaces")
    if libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None):
        raise _failed("make its mounts private")
    for folder in hidden:
        if not folder.is_dir():
            continue
        options = b"size=4k,nr_inodes=2,mode=000"
        if libc.mount(
            b"hidden", os.fsencode(folder.resolve()), b"tmpfs", _MS_NOSUID_NODEV_NOEXEC | 1, options
        ):
            raise _failed(f"hide {folder}")
    for folder, parts in (kept or {}).items():
        _cover(libc, folder, list(parts))


def _cover(libc: ctypes.CDLL, folder: Path, parts: list[Path]) -> None:
    """Replace a folder by an empty one in which only these parts of it can be seen."""
    opened = [(part, os.open(part, os.O_PATH | os.O_DIRECTORY)) for part in parts]
    try:
        if libc.mount(b"covered", os.fsencode(folder), b"tmpfs", _MS_NOSUID_NODEV, b"mode=755"):
            raise _failed(f"cover {folder}")
        for part, fd in opened:
            part.mkdir(parents=True, exist_ok=True)
            source = f"/proc/self/fd/{fd}".encode()
            if libc.mount(source, os.fsencode(part), None, _MS_BIND_REC, None):
                raise _failed(f"keep {part}")
    finally:
        for _, fd in opened:
            os.close(fd)


def _failed(what: str) -> ConfigurationError:
    reason = os.strerror(ctypes.get_errno())
    return ConfigurationError(f"the agent-host cannot {what}: {reason}; it has to start as root")
