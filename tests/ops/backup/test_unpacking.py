"""Unpacking takes what is in the archive, nowhere else, and stops when it is told of damage."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from pokerarena.ops.backup.unpacking import ahead, unpack


def archive(**files: bytes) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def test_files_come_with_their_sums(tmp_path: Path) -> None:
    large = bytes(range(256)) * 10_000
    written = unpack(archive(**{"base/1": large, "empty": b""}), tmp_path)
    assert (tmp_path / "base/1").read_bytes() == large
    assert (tmp_path / "base/1").stat().st_mode & 0o777 == 0o600
    assert written == {
        "base/1": (len(large), hashlib.sha256(large).hexdigest()),
        "empty": (0, hashlib.sha256(b"").hexdigest()),
    }


@pytest.mark.parametrize("name", ["../outside", "base/../../outside"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(tarfile.TarError):
        unpack(archive(**{name: b"x"}), target)
    assert list(tmp_path.iterdir()) == [target]
    assert list(target.rglob("*")) == []


def counted(stop_at: int) -> Generator[bytes]:
    for number in range(1000):
        if number == stop_at:
            raise ZeroDivisionError
        yield b"%d" % number


def test_what_runs_ahead_fails_where_it_is_used() -> None:
    came = []
    with pytest.raises(ZeroDivisionError):
        came.extend(ahead(counted(stop_at=50)))
    with closing(ahead(counted(stop_at=-1))) as pieces:
        assert [next(pieces) for _ in range(3)] == [b"0", b"1", b"2"]
    assert not any(t.name == "backup unsealing" for t in threading.enumerate())
