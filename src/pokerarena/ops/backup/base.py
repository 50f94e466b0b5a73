"""Taking a base backup: `pg_basebackup` as one stream, sealed as it comes."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from datetime import UTC, datetime
from typing import Final

from pokerarena.errors import Unavailable
from pokerarena.ops import tether
from pokerarena.ops.backup import source
from pokerarena.ops.backup.repository import BaseBackup, Repository, segment_of
from pokerarena.ops.backup.sealed_file import sealed
from pokerarena.settings import Settings

_PIECE_BYTES: Final = 1024 * 1024
_START: Final = re.compile(r"start point: ([0-9A-F]+/[0-9A-F]+) on timeline (\d+)")
_END: Final = re.compile(r"end point: ([0-9A-F]+/[0-9A-F]+)")


def create(settings: Settings, repository: Repository) -> BaseBackup:
    """Take a base backup; it is complete in itself, with the WAL of its own duration."""
    with source.connect(settings) as connection:
        server = connection.info.parameter_status("server_version") or "unknown"
    started_at = datetime.now(UTC)
    label = repository.new_label(started_at)
    arguments = [
        str(source.program("pg_basebackup")),
        f"--dbname={source.conninfo(settings)}",
        *("--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast"),
        *("--manifest-checksums=SHA256", "--verbose", f"--label=pokerarena {label}"),
    ]
    plain_bytes = 0
    with repository.turn("create"), tempfile.TemporaryFile() as said:
        file = repository.sealed_base(label)
        with sealed(repository.storage, file, settings.backup_key_bytes(), label) as out:
            process = subprocess.Popen(
                tether.command(arguments, death_signal=signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            )
            assert process.stdout is not None
            with process.stdout as stream:
                while piece := stream.read(_PIECE_BYTES):
                    plain_bytes += len(piece)
                    out.write(piece)
            code = process.wait()
            said.seek(0)
            words = said.read().decode(errors="replace")
            start, end = _START.search(words), _END.search(words)
            if code != 0 or start is None or end is None:
                last = words.strip().rpartition("\n")[2] or f"exit code {code}"
                raise Unavailable("backup_failed", f"The base backup was not made: {last}.")
        backup = BaseBackup(
            label=label,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            start_segment=segment_of(int(start[2]), start[1]),
            end_lsn=end[1],
            server=server,
            sealed_bytes=repository.storage.size_bytes(file),
            plain_bytes=plain_bytes,
        )
        repository.add(backup)
    return backup
