"""Where the files of the backups are kept: the seam between them and a disk or an object storage.

A file has a name with one slash, such as ``wal/SEGMENT.sealed``. It appears under its name when it
is complete and lasting, and not at all when writing it failed; an existing one is replaced whole.
Owns the storage in a directory; `object_storage` is the other one.
Must never: show half a file, or leave a failure of the storage without its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from pokerarena.errors import ConfigurationError, Unavailable
from pokerarena.settings import Settings


class Readable(Protocol):
    """A stream that is read from its beginning to its end."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """A stream that takes a file's content piece by piece."""

    def write(self, data: bytes, /) -> object: ...


class Storage(Protocol):
    """What backups need of a place to be kept."""

    #: A directory of this machine in which locks can be held.
    locks: Path

    def where(self, name: str) -> str:
        """The file's full address, for people."""

    def writing(self, name: str) -> AbstractContextManager[Writable]:
        """Write a file. Raises `Unavailable`."""

    def reading(self, name: str) -> AbstractContextManager[Readable]:
        """Read a file. Raises `FileNotFoundError`, `Unavailable`."""

    def size_bytes(self, name: str) -> int:
        """How long it is. Raises `FileNotFoundError`."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, without it, sorted."""

    def delete(self, name: str) -> None:
        """Delete it, if it is there."""


FOLDERS: Final = ("base", "wal")
_NEW: Final = ".new"


def storage_of(settings: Settings) -> Storage:
    """The one that the settings name. Raises `ConfigurationError` when they name none, or two."""
    if settings.backup_bucket and settings.backup_directory:
        raise ConfigurationError(
            "POKERARENA_BACKUP_DIRECTORY and POKERARENA_BACKUP_BUCKET are both set: keep one."
        )
    if settings.backup_bucket:
        from pokerarena.ops.backup.object_storage import ObjectStorage

        return ObjectStorage.of(settings)
    if settings.backup_directory:
        return DirectoryStorage(Path(settings.backup_directory).expanduser().absolute())
    raise ConfigurationError(
        "POKERARENA_BACKUP_DIRECTORY is not set: name a directory for backups, best on another disk "
        "or host than the database's, or set POKERARENA_BACKUP_BUCKET for object storage."
    )


class DirectoryStorage:
    """Files in a directory that is closed to others."""

    def __init__(self, path: Path) -> None:
        self.path = self.locks = path
        with _told(path):
            for directory in (path, *(path / folder for folder in FOLDERS)):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def where(self, name: str) -> str:
        return str(self.path / name)

    @contextmanager
    def writing(self, name: str) -> Iterator[Writable]:
        path = self.path / name
        building = path.with_name(path.name + _NEW)
        try:
            with _told(path):
                out = building.open("wb")
            with out:
                yield _Checked(out, path)
                with _told(path):
                    building.chmod(0o600)
                    out.flush()
                    os.fsync(out.fileno())
            with _told(path):
                building.replace(path)
                _sync_directory(path.parent)
        except BaseException:
            with suppress(OSError):
                building.unlink(missing_ok=True)
            raise

    @contextmanager
    def reading(self, name: str) -> Iterator[Readable]:
        with (self.path / name).open("rb") as source:
            yield source

    def size_bytes(self, name: str) -> int:
        return (self.path / name).stat().st_size

    def names(self, folder: str) -> list[str]:
        with _told(self.path / folder):
            entries = [path.name for path in (self.path / folder).iterdir()]
        return sorted(name for name in entries if not name.endswith(_NEW))

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)


class _Checked:
    """A file of which a full disk is an expected failure; what its content fails with is not."""

    def __init__(self, out: BinaryIO, path: Path) -> None:
        self._out = out
        self._path = path

    def write(self, data: bytes) -> None:
        with _told(self._path):
            self._out.write(data)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            "backup_storage_failed", f"{path} cannot be used: {error.strerror}."
        ) from None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
