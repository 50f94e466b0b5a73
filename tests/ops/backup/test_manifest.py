"""Files are held against what PostgreSQL's manifest lists of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pokerarena.ops.backup.manifest import MANIFEST, Written, findings


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "1").write_bytes(b"rows")
    (tmp_path / "PG_VERSION").write_bytes(b"18\n")
    entries = [
        {
            "Path": name,
            "Size": len(content),
            "Checksum-Algorithm": "SHA256",
            "Checksum": hashlib.sha256(content).hexdigest(),
        }
        for name, content in (("base/1", b"rows"), ("PG_VERSION", b"18\n"))
    ]
    head = f'{{ "Files": {json.dumps(entries)},\n"WAL-Ranges": [],\n'
    checksum = hashlib.sha256(head.encode()).hexdigest()
    (tmp_path / MANIFEST).write_text(f'{head}"Manifest-Checksum": "{checksum}"}}\n')
    return tmp_path


def written(directory: Path) -> dict[str, Written]:
    """What unpacking says of these files."""
    return {
        path.relative_to(directory).as_posix(): Written(
            path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_files_that_are_as_listed_are_whole(directory: Path) -> None:
    (directory / "pg_wal").mkdir()
    (directory / "pg_wal" / "anything").write_bytes(b"")
    assert list(findings(directory, written(directory))) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda d: (d / "base" / "1").write_bytes(b"rowt"), "not as its manifest says: base/1"),
        (lambda d: (d / "base" / "1").write_bytes(b"rows "), "not as its manifest says: base/1"),
        (lambda d: (d / "PG_VERSION").unlink(), "lacks PG_VERSION"),
        (lambda d: (d / "base" / "2").write_bytes(b""), "does not list: base/2"),
        (lambda d: (d / MANIFEST).unlink(), "no manifest"),
        (
            lambda d: (d / MANIFEST).write_text((d / MANIFEST).read_text().replace("rows", "x", 1)
                                                .replace('"Size": 4', '"Size": 5')),
            "manifest that was changed",
        ),
    ],
)  # fmt: skip
def test_what_is_not_as_listed_is_named(
    directory: Path, damage: Callable[[Path], object], expected: str
) -> None:
    damage(directory)
    found = list(findings(directory, written(directory)))
    assert len(found) == 1
    assert expected in found[0]
