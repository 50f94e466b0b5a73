"""Unpacking a base backup: its tar becomes files, and their sums are taken as they are written.

What opens and decompresses runs ahead in a thread of its own, so that two cores share the work.
Must never: write outside of the directory, or hold more in memory than a few pieces.
"""

from __future__ import annotations

import hashlib
import os
import queue
import tarfile
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import IO, Final

from pokerarena.ops.backup.manifest import Written

PIECES_AHEAD: Final = 8
_BUFFER_BYTES: Final = 1024 * 1024
_LOOK_S: Final = 0.2


def ahead(pieces: Generator[bytes]) -> Generator[bytes]:
    """The same pieces, made in a thread while earlier ones are used. Raises what making them did."""
    made: queue.Queue[bytes | BaseException | None] = queue.Queue(PIECES_AHEAD)
    unwanted = threading.Event()

    def hand_over(piece: bytes | BaseException | None) -> None:
        while not unwanted.is_set():
            try:
                made.put(piece, timeout=_LOOK_S)
            except queue.Full:
                continue
            return

    def make() -> None:
        try:
            with closing(pieces):
                for piece in pieces:
                    hand_over(piece)
                    if unwanted.is_set():
                        return
            hand_over(None)
        except BaseException as error:  # told where the pieces are used
            hand_over(error)

    maker = threading.Thread(target=make, name="backup unsealing", daemon=True)
    maker.start()
    try:
        while (piece := made.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        unwanted.set()
        maker.join()


def unpack(source: IO[bytes], target: Path) -> dict[str, Written]:
    """Every file of a tar stream, by its name. Raises `tarfile.TarError`."""
    written = {}
    with tarfile.open(fileobj=source, mode="r|", bufsize=_BUFFER_BYTES) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                archive.extract(member, target, filter="data")
                continue
            # Refuses what would lie outside.
            name = tarfile.data_filter(member, str(target)).name
            written[name] = _written(content, target / name)
    return written


def _written(content: IO[bytes], path: Path) -> Written:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        while piece := content.read(_BUFFER_BYTES):
            digest.update(piece)
            out.write(piece)
            size += len(piece)
    return Written(size, digest.hexdigest())
