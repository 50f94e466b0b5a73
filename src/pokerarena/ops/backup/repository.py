"""Where backups lie: base backups, WAL, and how far the WAL reaches.

Owns the layout of the storage, the names of WAL segments, and what may be deleted. Base backups
are ``base/LABEL.sealed`` with ``LABEL.json`` beside it; WAL is ``wal/SEGMENT.sealed``, and of the
segment that is being written ``wal/SEGMENT.partial.sealed``.
Must never: delete the last base backup, or WAL that a kept one needs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from pokerarena.errors import Conflict, NotFound
from pokerarena.ops.backup.sealed_file import SUFFIX
from pokerarena.ops.backup.storage import Storage, storage_of
from pokerarena.settings import Settings

SEGMENT_BYTES: Final = 16 * 1024 * 1024
_SEGMENTS_OF_A_LOG: Final = 0x1_0000_0000 // SEGMENT_BYTES
_WAL_NAME: Final = re.compile(r"([0-9A-F]{24})(\.partial)?|[0-9A-F]{8}\.history")
_DESCRIPTION: Final = ".json"
_REACH: Final = "reach.json"
_TEXT_BYTES_MAX: Final = 64 * 1024
_LABEL_FORMAT: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class BaseBackup:
    """One base backup. Restoring it needs WAL from `start_segment` on, and what is in itself."""

    label: str
    started_at: datetime
    finished_at: datetime
    start_segment: str
    end_lsn: str
    server: str
    sealed_bytes: int
    plain_bytes: int

    def to_json(self) -> str:
        values: dict[str, Any] = asdict(self)
        values["started_at"] = self.started_at.isoformat()
        values["finished_at"] = self.finished_at.isoformat()
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, stored: str) -> BaseBackup:
        values = json.loads(stored)
        for name in ("started_at", "finished_at"):
            values[name] = datetime.fromisoformat(values[name])
        return cls(**values)


class Reach(NamedTuple):
    """Everything that was committed by this moment is in the backups."""

    at: datetime
    lsn: str


class Pruned(NamedTuple):
    """What was deleted."""

    bases: tuple[str, ...]
    segments: int


class Repository:
    """The backups in one storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @classmethod
    def of(cls, settings: Settings) -> Repository:
        """The one that the settings name. Raises `ConfigurationError` when they name none."""
        return cls(storage_of(settings))

    def _write_text(self, name: str, text: str) -> None:
        with self.storage.writing(name) as out:
            out.write(text.encode())

    def _read_text(self, name: str) -> str:
        with self.storage.reading(name) as source:
            return source.read(_TEXT_BYTES_MAX).decode()

    # -- base backups -------------------------------------------------------------------------

    def new_label(self, at: datetime) -> str:
        return at.astimezone(UTC).strftime(_LABEL_FORMAT)

    def sealed_base(self, label: str) -> str:
        return f"base/{label}{SUFFIX}"

    def add(self, backup: BaseBackup) -> None:
        """Only from now on is it one of the backups."""
        self._write_text(f"base/{backup.label}{_DESCRIPTION}", backup.to_json())

    def bases(self) -> list[BaseBackup]:
        """Oldest first."""
        found = [
            BaseBackup.from_json(self._read_text(f"base/{name}"))
            for name in self.storage.names("base")
            if name.endswith(_DESCRIPTION)
        ]
        return sorted(found, key=lambda backup: backup.finished_at)

    def base_for(self, at: datetime | None, label: str | None = None) -> BaseBackup:
        """The one to start from: the named one, or the last that was complete by then."""
        fitting = [
            backup
            for backup in self.bases()
            if (label is None or backup.label == label) and (at is None or backup.finished_at <= at)
        ]
        if not fitting:
            raise NotFound("base backup" + ("" if at is None else f" from before {at.isoformat()}"))
        return fitting[-1]

    # -- WAL ----------------------------------------------------------------------------------

    def sealed_wal(self, name: str) -> str:
        return f"wal/{name}{SUFFIX}"

    def wal_names(self) -> list[str]:
        """Segments, the partial one and histories, by name."""
        files = (name for name in self.storage.names("wal") if name.endswith(SUFFIX))
        names = (name.removesuffix(SUFFIX) for name in files)
        return sorted(name for name in names if _WAL_NAME.fullmatch(name))

    def wal_from(self, segment: str) -> list[str]:
        """What a restore from this segment on may need: of any time line, and every history."""
        return [
            name
            for name in self.wal_names()
            if name.endswith(".history") or name[8:24] >= segment[8:24]
        ]

    def reach(self) -> Reach | None:
        """How far the WAL reaches; None before any was shipped."""
        try:
            stored = json.loads(self._read_text(_REACH))
        except FileNotFoundError:
            return None
        return Reach(datetime.fromisoformat(stored["at"]), stored["lsn"])

    def reached(self, reach: Reach) -> None:
        text = json.dumps({"at": reach.at.isoformat(), "lsn": reach.lsn})
        self._write_text(_REACH, text + "\n")

    # -- retention ----------------------------------------------------------------------------

    def prune(self, *, keep_min: int, keep_days: int, now: datetime) -> Pruned:
        """Delete base backups that are too old, but never the last `keep_min`; then their WAL."""
        bases = self.bases()
        oldest = now - timedelta(days=keep_days)
        gone = [one for one in bases[: max(0, len(bases) - keep_min)] if one.finished_at < oldest]
        for backup in gone:
            # The description goes first: half a deletion leaves a file, never a false promise.
            self.storage.delete(f"base/{backup.label}{_DESCRIPTION}")
            self.storage.delete(self.sealed_base(backup.label))
        kept = bases[len(gone) :]
        segments = 0
        if kept:
            first = min(one.start_segment[8:] for one in kept)
            for name in self.wal_names():
                if not name.endswith(".history") and name[8:24] < first:
                    self.storage.delete(self.sealed_wal(name))
                    segments += 1
        return Pruned(tuple(backup.label for backup in gone), segments)

    @contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """One process of this machine at a time does this. Raises `Conflict` (``backup_running``)."""
        descriptor = os.open(
            self.storage.locks / f"{what}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(
                "backup_running", f"Another process does this already ({what}): wait for its end."
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)


def segment_of(timeline: int, lsn: str) -> str:
    """The name of the WAL segment that holds a position."""
    high, low = (int(part, 16) for part in lsn.split("/"))
    number = (high << 32 | low) // SEGMENT_BYTES
    return f"{timeline:08X}{number // _SEGMENTS_OF_A_LOG:08X}{number % _SEGMENTS_OF_A_LOG:08X}"


def next_segment(name: str) -> str:
    """The segment after this one, on the same time line."""
    number = int(name[8:16], 16) * _SEGMENTS_OF_A_LOG + int(name[16:24], 16) + 1
    return f"{name[:8]}{number // _SEGMENTS_OF_A_LOG:08X}{number % _SEGMENTS_OF_A_LOG:08X}"
