"""A small file that is read again when it changes: what is in it is replaced without a restart.

Owns noticing the change. A file that is replaced by something unreadable changes nothing: what was
read last stays, and the log says so. It must never log what is in a file.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import structlog

from pokerarena.errors import ConfigurationError

# How long a change may go unnoticed; the look itself costs some microseconds.
CHECK_EVERY_S: Final = 1.0
FILE_MAX_BYTES: Final = 64 * 1024

log = structlog.get_logger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_Mark = tuple[int, int, int, int]


class Source(Protocol[T_co]):
    """Where a value comes from that may be another one later."""

    def current(self) -> T_co:
        """The value as it was a moment ago, at most."""

    def fresh(self) -> T_co:
        """The value as it is now."""


class Fixed(Generic[T]):
    """A value that was given directly, and stays."""

    def __init__(self, value: T) -> None:
        self._value = value

    def current(self) -> T:
        return self._value

    def fresh(self) -> T:
        return self._value


class WatchedFile(Generic[T]):
    """The parsed content of a file. Raises `ConfigurationError` where it is no good at first."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes], T],
        *,
        private: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._parse = parse
        self._private = private
        self._monotonic = monotonic
        self._looked_at_s = monotonic()
        self._mark, self._value = self._read()

    def __repr__(self) -> str:
        return f"WatchedFile({self._path})"

    def current(self) -> T:
        if self._monotonic() - self._looked_at_s >= CHECK_EVERY_S:
            self._look()
        return self._value

    def fresh(self) -> T:
        self._look()
        return self._value

    def _look(self) -> None:
        self._looked_at_s = self._monotonic()
        try:
            mark = _mark_of(self._path.stat())
            if mark == self._mark:
                return
            # Whatever comes of it, the same content is not tried again and again.
            self._mark = mark
            self._mark, self._value = self._read()
        except (OSError, ConfigurationError) as error:
            why = error.message if isinstance(error, ConfigurationError) else error.strerror
            log.error("watched_file_unusable", file=str(self._path), why=why)
        else:
            log.info("watched_file_read", file=str(self._path))

    def _read(self) -> tuple[_Mark, T]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be read: {error.strerror}") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise ConfigurationError(f"{self._path} is no file")
        with os.fdopen(descriptor, "rb") as file:
            if self._private and status.st_mode & 0o007:
                raise ConfigurationError(
                    f"{self._path} may be used by everybody on the machine: "
                    "give it mode 0400 or 0440"
                )
            raw = file.read(FILE_MAX_BYTES + 1)
        if len(raw) > FILE_MAX_BYTES:
            raise ConfigurationError(f"{self._path} is too large for what it should hold")
        try:
            return _mark_of(status), self._parse(raw)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._path}: {error.message}") from None


def source_of(
    path: Path | None, text: str, parse: Callable[[bytes], T], *, private: bool = False
) -> Source[T]:
    """The file where there is one, or else the text that was given instead."""
    if path is None:
        return Fixed(parse(text.encode()))
    return WatchedFile(path, parse, private=private)


def _mark_of(status: os.stat_result) -> _Mark:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
