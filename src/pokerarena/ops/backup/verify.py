"""Whether the backups are whole, found out by opening every byte of them.

Each base backup is unsealed and held against its manifest; each WAL segment is unsealed and
measured, and none may be missing between a base backup and the end.
Must never: change a backup, or call whole what was not read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pokerarena.ops.backup.repository import (
    SEGMENT_BYTES,
    BaseBackup,
    Repository,
    next_segment,
    segment_of,
)
from pokerarena.ops.backup.restore import unseal_base
from pokerarena.ops.backup.sealed_file import DamagedBackup, opened
from pokerarena.settings import Settings


def verify(settings: Settings, repository: Repository, scratch: Path | None) -> Iterator[str]:
    """A sentence for each finding."""
    bases = repository.bases()
    if not bases:
        yield "There is no base backup."
    for base in bases:
        with tempfile.TemporaryDirectory(dir=scratch, prefix="pokerarena-verify-") as directory:
            try:
                unseal_base(settings, repository, base, Path(directory) / "base", None)
            except DamagedBackup as damage:
                yield damage.message
    names = repository.wal_names()
    for name in names:
        yield from _wal(settings, repository, name)
    for base in bases:
        yield from _gaps(base, names)


def _wal(settings: Settings, repository: Repository, name: str) -> Iterator[str]:
    file, key = repository.sealed_wal(name), settings.backup_key_bytes()
    try:
        size = sum(len(piece) for piece in opened(repository.storage, file, key, name))
    except DamagedBackup as damage:
        yield damage.message
        return
    if not name.endswith(".history") and size != SEGMENT_BYTES:
        yield f"{repository.storage.where(file)} holds {size} bytes of WAL instead of {SEGMENT_BYTES}."


def _gaps(base: BaseBackup, names: list[str]) -> Iterator[str]:
    """A base backup holds the segment of its own end, which ended with it; others carry on."""
    timeline = base.start_segment[:8]
    present = {name[:24] for name in names if name.startswith(timeline) and len(name) >= 24}
    wanted = next_segment(segment_of(int(timeline, 16), base.end_lsn))
    last = max(present, default="")
    while wanted <= last:
        if wanted not in present:
            yield f"WAL segment {wanted} is missing: {base.label} cannot be brought beyond it."
            return
        wanted = next_segment(wanted)
