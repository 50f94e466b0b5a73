"""The files of an archive: every hand of some runs, line by line, with the proof that it is whole.

Owns the format. A folder holds ``hands.ndjson.gz``, one JSON object a line: the archive, then each run
followed by its hands in order; and ``manifest.json`` with the file's SHA-256, its counts, and of each
run the number of its hands and the end of its chain. Packed parts are as in the database (base64; see
history.codec), so that the chain can be computed anew from the file alone. Memory is one line.
Must never: leave a half-written file under its final name, open an archive to others than its owner
(it has every hole card), or read a database.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import UUID

from pokerarena.errors import ArenaError
from pokerarena.history.chain import first_link, next_link
from pokerarena.history.models import DecisionNote, HandRow

FORMAT: Final = "pokerarena hands 1"
HANDS_FILE: Final = "hands.ndjson.gz"
MANIFEST: Final = "manifest.json"
LINE_MAX_BYTES: Final = 4 * 1024 * 1024

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COMPRESSION: Final = 6
_PACKED: Final = ("board", "seats", "actions", "cards")


class DamagedArchive(ArenaError):
    """An archive is not what was written, or the hands in it do not follow each other."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__("archive_damaged", f"{path} {why}.")


@dataclass(frozen=True, slots=True)
class ArchivedRun:
    """One run of an archive, and where its chain ends."""

    run_id: str
    hands: int
    chain_head: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive is said to hold."""

    format: str
    archive: str
    sha256: str
    size_bytes: int
    hands: int
    notes: int
    first_hand_at: str | None
    last_hand_at: str | None
    runs: tuple[ArchivedRun, ...]

    def digest(self) -> bytes:
        """What the database remembers of it."""
        return hashlib.sha256(self.text().encode()).digest()

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises `DamagedArchive`."""
        path = folder / MANIFEST
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            runs = tuple(ArchivedRun(**run) for run in said.pop("runs"))
            manifest = cls(**said, runs=runs)
        except OSError as error:
            raise DamagedArchive(path, f"cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError):
            raise DamagedArchive(path, "is no manifest of an archive") from None
        if manifest.format != FORMAT:
            raise DamagedArchive(path, "has a format that this program does not know")
        return manifest


class ArchiveWriter:
    """Takes the hands of run after run; `end` gives the manifest."""

    def __init__(self, out: BinaryIO, archive: str) -> None:
        self._archive = archive
        self._counted = _Counted(out)
        self._lines = gzip.GzipFile(
            fileobj=self._counted, mode="wb", compresslevel=_COMPRESSION, mtime=0, filename=""
        )
        self._runs: list[ArchivedRun] = []
        self._hands = self._notes = 0
        self._moments: list[datetime] = []
        self._write({"format": FORMAT, "archive": archive})

    def run(self, run_id: UUID, facts: Mapping[str, Any], hands: int, head: bytes | None) -> None:
        """The next run; its hands follow. `facts` must have its ``seed_sha256`` in hexadecimal."""
        known = ArchivedRun(str(run_id), hands, None if head is None else head.hex())
        self._runs.append(known)
        self._write({"run": {**asdict(known), **facts}})

    def hand(self, row: HandRow, cards: bytes, notes: Sequence[DecisionNote]) -> None:
        """The next hand of the run."""
        packed = {"board": row.board, "seats": row.seats, "actions": row.actions, "cards": cards}
        self._write(
            {
                "hand": {
                    "id": str(row.id),
                    "hand_no": row.hand_no,
                    "deal_no": row.deal_no,
                    "epoch": row.epoch,
                    "level": row.level,
                    "button_seat": row.button_seat,
                    "ended_at_us": (row.ended_at - _EPOCH) // timedelta(microseconds=1),
                    "chain": None if row.chain is None else row.chain.hex(),
                    **{name: base64.b64encode(part).decode() for name, part in packed.items()},
                    "notes": [
                        [note.action_no, note.seat_no, note.note, note.failure] for note in notes
                    ],
                }
            }
        )
        self._hands += 1
        self._notes += len(notes)
        ends = [*self._moments, row.ended_at]
        self._moments = [min(ends), max(ends)]

    def end(self) -> Manifest:
        """Nothing more comes."""
        self._lines.close()
        first, last = self._moments or (None, None)
        return Manifest(
            format=FORMAT,
            archive=self._archive,
            sha256=self._counted.digest.hexdigest(),
            size_bytes=self._counted.bytes,
            hands=self._hands,
            notes=self._notes,
            first_hand_at=None if first is None else first.isoformat(),
            last_hand_at=None if last is None else last.isoformat(),
            runs=tuple(self._runs),
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


class _Counted:
    """Passes bytes on, and knows what they were."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder beside the final one, which takes its place when the block ends well.

    What an earlier try left half-written is thrown away; what is finished is never replaced.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    yield unfinished
    _sync(unfinished)
    unfinished.rename(folder)
    _sync(folder.parent)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that only its owner reads, on the disk when the block ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(folder: Path) -> Manifest:
    """Read all of an archive and compute every chain anew. Raises `DamagedArchive`."""
    manifest = Manifest.read(folder)
    path = folder / HANDS_FILE
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedArchive(path, f"cannot be read: {error.strerror}") from None
    if found != manifest.sha256:
        raise DamagedArchive(path, "is not the file that its manifest describes")
    reading = _Reading(path, manifest)
    try:
        with gzip.open(path, "rb") as lines:
            while line := lines.readline(LINE_MAX_BYTES):
                reading.take(json.loads(line))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DamagedArchive(path, f"cannot be read ({type(error).__name__})") from None
    reading.end()
    return manifest


class _Reading:
    """Follows the lines of an archive, and the chain of the run that it is at."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self._manifest = manifest
        self._expected = iter(manifest.runs)
        self._run: ArchivedRun | None = None
        self._link = b""
        self._hand_no = self._hands = self._notes = 0

    def take(self, line: Mapping[str, Any]) -> None:
        if (run := line.get("run")) is not None:
            self._end_run()
            self._run = ArchivedRun(run["run_id"], run["hands"], run["chain_head"])
            if self._run != next(self._expected, None):
                raise DamagedArchive(self._path, f"has a run that is not listed: {run['run_id']}")
            self._link = first_link(UUID(run["run_id"]), bytes.fromhex(run["seed_sha256"]))
            self._hand_no = 0
        elif (hand := line.get("hand")) is not None:
            self._follow(hand)
        elif line != {"format": FORMAT, "archive": self._manifest.archive}:
            raise DamagedArchive(self._path, "has a line that is neither a run nor a hand")

    def _follow(self, hand: Mapping[str, Any]) -> None:
        self._hand_no += 1
        self._hands += 1
        self._notes += len(hand["notes"])
        self._link = next_link(
            self._link,
            hand_id=UUID(hand["id"]),
            hand_no=hand["hand_no"],
            deal_no=hand["deal_no"],
            epoch=hand["epoch"],
            level=hand["level"],
            button_seat=hand["button_seat"],
            ended_at=_EPOCH + timedelta(microseconds=hand["ended_at_us"]),
            parts=[base64.b64decode(hand[name], validate=True) for name in _PACKED],
        )
        if self._run is None or hand["hand_no"] != self._hand_no:
            raise DamagedArchive(self._path, f"lacks a hand before {self._where()}")
        if hand["chain"] != self._link.hex():
            raise DamagedArchive(self._path, f"breaks the chain at {self._where()}")

    def _where(self) -> str:
        return f"hand {self._hand_no} of run {self._run.run_id if self._run else 'none'}"

    def _end_run(self) -> None:
        run = self._run
        if run is None:
            return
        head = self._link.hex() if run.hands else None
        if self._hand_no != run.hands or head != run.chain_head:
            raise DamagedArchive(
                self._path, f"does not end as run {run.run_id} does, at hand {run.hands}"
            )

    def end(self) -> None:
        self._end_run()
        counted = (self._hands, self._notes, next(self._expected, None))
        if counted != (self._manifest.hands, self._manifest.notes, None):
            raise DamagedArchive(self._path, "holds less than its manifest says")
