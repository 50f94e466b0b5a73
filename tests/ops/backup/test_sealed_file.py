"""What was sealed comes back byte for byte, or not at all."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pokerarena.errors import Unavailable
from pokerarena.ops.backup import sealed_file
from pokerarena.ops.backup.sealed_file import DamagedBackup, SealedReader, opened, sealed
from pokerarena.ops.backup.storage import DirectoryStorage

KEY = bytes(range(32))
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def seal(path: Path, content: bytes, name: str = "name", pieces: int = 3) -> None:
    step = max(1, len(content) // pieces)
    with sealed(DirectoryStorage(path.parent), path.name, KEY, name) as out:
        for begin in range(0, len(content), step):
            out.write(content[begin : begin + step])


def content_of(path: Path, key: bytes = KEY, name: str = "name") -> bytes:
    return b"".join(opened(DirectoryStorage(path.parent), path.name, key, name))


@quick
@given(size=st.integers(0, 5000), frame=st.integers(16, 400), seed=st.integers())
def test_content_of_any_length_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, frame: int, seed: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sealed_file, "FRAME_BYTES", frame)
        content = random.Random(seed).randbytes(size)
        seal(tmp_path / "file", content)
        assert content_of(tmp_path / "file") == content
        assert (
            SealedReader(opened(DirectoryStorage(tmp_path), "file", KEY, "name")).read() == content
        )
        if size > 64:
            assert content[:32] not in (tmp_path / "file").read_bytes()


@quick
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), seed=st.integers())
def test_no_changed_byte_goes_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, flip: int, seed: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sealed_file, "FRAME_BYTES", 200)
        seal(tmp_path / "file", random.Random(seed).randbytes(1500))
        data = bytearray((tmp_path / "file").read_bytes())
        data[at % len(data)] ^= flip
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(DamagedBackup):
            content_of(tmp_path / "file")


def test_a_file_that_is_cut_extended_or_reordered_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_file, "FRAME_BYTES", 200)
    path = tmp_path / "file"
    seal(path, random.Random(1).randbytes(1000))
    whole = path.read_bytes()
    header = 5 + 4 + 32 + 4 + 4
    frame = 4 + 200 + 16
    first, second = whole[header : header + frame], whole[header + frame : header + 2 * frame]
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [
        whole + b"\0",
        whole + first,
        whole[:header] + second + first + whole[header + 2 * frame :],
        whole[:header] + second + whole[header + 2 * frame :],
    ]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DamagedBackup):
            content_of(path)


def test_another_name_or_key_does_not_open_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seal(path, b"content")
    with pytest.raises(DamagedBackup, match="does not hold other"):
        content_of(path, name="other")
    with pytest.raises(DamagedBackup, match="sealed under key"):
        content_of(path, key=bytes(32))


def test_a_failure_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)

    def write_half() -> None:
        with sealed(storage, "base/file", KEY, "name") as out:
            out.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list((tmp_path / "base").iterdir()) == []


def test_a_full_disk_is_told_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    storage = DirectoryStorage(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left"), storage.writing("base/file") as out:
        out.write(b"content")
    assert list((tmp_path / "base").iterdir()) == []
