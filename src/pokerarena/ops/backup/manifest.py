"""Whether unpacked files are those that PostgreSQL's backup manifest lists.

Does what `pg_verifybackup` does: each file's size and SHA-256, nothing missing, nothing added, the
manifest's own checksum, and the WAL that the backup brings, read by `pg_waldump`. The wheel's
`pg_verifybackup` of PostgreSQL 18 ends with a segmentation fault, so it cannot be asked; and sums
that are taken while files are written spare reading them all again.
Must never: change a file.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pokerarena.ops.backup import source

MANIFEST: Final = "backup_manifest"
_CHECKSUM_LINE: Final = b'"Manifest-Checksum"'
# The server's log is no part worth keeping; WAL has checksums of its own.
_UNLISTED: Final = ("pg_wal", "log")


class Written(NamedTuple):
    """What was written under a file's name."""

    size_bytes: int
    sha256: str


def findings(directory: Path, files: Mapping[str, Written]) -> Iterator[str]:
    """What is not as the manifest says, a few words each; `files` are all that were written."""
    try:
        content = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        yield "has no manifest"
        return
    signed = content[: content.rfind(_CHECKSUM_LINE)]
    manifest = json.loads(content)
    if hashlib.sha256(signed).hexdigest() != manifest["Manifest-Checksum"]:
        yield "has a manifest that was changed"
        return
    listed = set()
    for entry in manifest["Files"]:
        name = entry.get("Path") or bytes.fromhex(entry["Encoded-Path"]).decode()
        listed.add(name)
        if name.split("/", 1)[0] in _UNLISTED:
            continue
        yield from _file(files.get(name), name, entry)
    for name in files:
        known = name in listed or name == MANIFEST or name.split("/", 1)[0] in _UNLISTED
        if not known:
            yield f"has a file that its manifest does not list: {name}"
    for wal in manifest["WAL-Ranges"]:
        yield from _wal(directory, wal["Timeline"], wal["Start-LSN"], wal["End-LSN"])


def _file(written: Written | None, name: str, entry: dict[str, object]) -> Iterator[str]:
    if written is None:
        yield f"lacks {name}"
    elif entry["Checksum-Algorithm"] != "SHA256" or written != (entry["Size"], entry["Checksum"]):
        yield f"has a file that is not as its manifest says: {name}"


def _wal(directory: Path, timeline: int, start: str, end: str) -> Iterator[str]:
    done = subprocess.run(
        [
            *(str(source.program("pg_waldump")), "--quiet", f"--path={directory / 'pg_wal'}"),
            *(f"--timeline={timeline}", f"--start={start}", f"--end={end}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        yield f"has WAL that cannot be read: {done.stderr.strip()}"
