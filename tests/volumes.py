"""A file system so small that it can really be full.

Owns: one mount in memory, its filling and its emptying. It is gone at the end, whoever still uses it.
Nothing here skips. Where nothing can be mounted the test fails and says so.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

BLOCK: Final = bytes(1024 * 1024)


class Volume:
    """A small file system, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_bsize

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take the room away, to the last byte or but for some."""
        with self._ballast.open("ab", buffering=0) as ballast:
            while (room := self.free_bytes - leave_bytes) > 0:
                try:
                    ballast.write(BLOCK[:room])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_volume(path: Path, size_mib: int) -> Iterator[Volume]:
    """A file system of this size at `path`, until the block ends."""
    path.mkdir(mode=0o711)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=711", "small", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.fail(f"this test mounts a small file system, which needs root: {mounted.stderr}")
    try:
        yield Volume(path)
    finally:
        # Lazily: a process that failed to end must not keep the mount.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
