"""The way back: a base backup and WAL become a database as it was at a chosen moment.

Owns unsealing into an empty directory, the check of what was unsealed against its manifest, and
recovery up to the moment. The result is a database directory of its own; the one that is in use is
not touched.
Must never: write into a directory that holds anything, or call a database restored that did not
reach its moment.
"""

from __future__ import annotations

import io
import os
import pwd
import shutil
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pokerarena.errors import ConfigurationError, Invalid, Unavailable
from pokerarena.ops import system_user
from pokerarena.ops.backup import manifest
from pokerarena.ops.backup.repository import BaseBackup, Repository
from pokerarena.ops.backup.sealed_file import DamagedBackup, SealedReader, opened
from pokerarena.ops.backup.unpacking import ahead, unpack
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.ops.embedded_errors import EmbeddedPostgresError
from pokerarena.settings import Settings

# Opening and decompressing leave the interpreter's lock to others.
WAL_STREAMS: Final = 4
RECOVERY_MAX_S: Final = 6 * 3600.0
_BUFFER_BYTES: Final = 1024 * 1024
_NOT_REACHED: Final = "recovery ended before configured recovery target was reached"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored, and what it took."""

    base: BaseBackup
    at: datetime | None
    base_s: float
    wal_s: float
    replay_s: float
    wal_bytes: int

    @property
    def took_s(self) -> float:
        return self.base_s + self.wal_s + self.replay_s


def restore(
    settings: Settings,
    repository: Repository,
    target: Path,
    *,
    at: datetime | None = None,
    label: str | None = None,
) -> Restored:
    """Restore into `target`, a new or empty directory, as of `at`, or of the last shipped WAL."""
    target = target.expanduser().absolute()
    if target.exists() and any(target.iterdir()):
        raise ConfigurationError(f"{target} is not empty: restore into a new directory.")
    reach = repository.reach()
    if at is not None and at > datetime.now(UTC):
        raise Invalid("moment_in_future", f"{at.isoformat()} has not come yet.")
    if at is not None and (reach is None or at > reach.at):
        until = "their own end" if reach is None else reach.at.isoformat()
        raise Invalid(
            "moment_not_reached", f"The backups reach until {until}: choose a moment by then."
        )
    base = repository.base_for(at, label)
    began_s = time.monotonic()
    user = system_user.NAME if os.geteuid() == 0 else None
    if user is not None:
        system_user.ensure(user)
    unseal_base(settings, repository, base, target, user)
    base_ended_s = time.monotonic()
    spool = target.with_name(target.name + "-wal")
    try:
        wal_bytes = _unseal_wal(settings, repository, base, spool, user)
        unsealed_s = time.monotonic()
        _recover(target, spool, at)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    ended_s = time.monotonic()
    return Restored(
        base,
        at,
        base_s=base_ended_s - began_s,
        wal_s=unsealed_s - base_ended_s,
        replay_s=ended_s - unsealed_s,
        wal_bytes=wal_bytes,
    )


def unseal_base(
    settings: Settings, repository: Repository, base: BaseBackup, target: Path, user: str | None
) -> None:
    """A base backup's files, found whole by its manifest."""
    file, key = repository.sealed_base(base.label), settings.backup_key_bytes()
    where = repository.storage.where(file)
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.chmod(0o700)
    try:
        with closing(ahead(opened(repository.storage, file, key, base.label))) as pieces:
            reader = SealedReader(pieces)
            written = unpack(io.BufferedReader(reader, _BUFFER_BYTES), target)
            reader.drain()
    except tarfile.TarError as error:
        raise DamagedBackup(where, f"holds no archive ({error})") from None
    shutil.rmtree(target / "log", ignore_errors=True)
    for finding in manifest.findings(target, written):
        raise DamagedBackup(where, finding)
    # The socket lies in the database's directory, and its lock came along: it is not ours.
    for stale in target.glob(".s.PGSQL.*"):
        stale.unlink()
    _give_to(target, user)


def _unseal_wal(
    settings: Settings, repository: Repository, base: BaseBackup, spool: Path, user: str | None
) -> int:
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(mode=0o700)
    key = settings.backup_key_bytes()

    def unseal(name: str) -> int:
        count = 0
        with (spool / name.removesuffix(".partial")).open("wb") as out:
            for piece in opened(repository.storage, repository.sealed_wal(name), key, name):
                count += out.write(piece)
        return count

    names = set(repository.wal_from(base.start_segment))
    # A partial one whose whole is there was only not deleted yet.
    needed = sorted(
        n for n in names if n == (whole := n.removesuffix(".partial")) or whole not in names
    )
    with ThreadPoolExecutor(WAL_STREAMS, thread_name_prefix="backup unsealing") as streams:
        count = sum(streams.map(unseal, needed))
    _give_to(spool, user)
    return count


def _give_to(directory: Path, user: str | None) -> None:
    if user is None:
        return
    record = pwd.getpwnam(user)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, record.pw_uid, record.pw_gid, follow_symlinks=False)


def _recover(target: Path, spool: Path, at: datetime | None) -> None:
    """Replay, and end the server again: from now on it is a database like any other."""
    quoted = str(spool).replace("%", "%%").replace("'", "'\\''")
    replay = {
        "restore_command": f"cp '{quoted}/%f' '%p'",
        "hot_standby": "off",
        "archive_mode": "off",
    }
    signal_file = target / "recovery.signal"
    signal_file.touch()
    if os.geteuid() == 0:
        _give_to(signal_file.parent, system_user.NAME)
    to_moment = {}
    if at is not None:
        to_moment = {
            "recovery_target_time": at.astimezone(UTC).isoformat(sep=" "),
            "recovery_target_action": "promote",
        }
    try:
        _serve_once(target, {**replay, **to_moment})
    except EmbeddedPostgresError as error:
        if at is None or _NOT_REACHED not in _log_of(target):
            fatal = [line for line in _log_of(target).splitlines() if " FATAL: " in line]
            why = fatal[-1].partition(" FATAL: ")[2].strip() if fatal else str(error)
            raise Unavailable("restore_failed", f"Recovery failed: {why}") from None
        # Nothing was committed after the moment, and the WAL covers it: its end is that moment.
        shutil.rmtree(target / "log", ignore_errors=True)
        _serve_once(target, replay)


def _serve_once(target: Path, settings: dict[str, str]) -> None:
    # It is ready once it is promoted, not before.
    with EmbeddedPostgres(target, settings=settings, start_timeout_s=RECOVERY_MAX_S):
        pass


def _log_of(target: Path) -> str:
    logs = (target / "log").glob("*.log") if (target / "log").is_dir() else ()
    return "".join(path.read_text(errors="replace") for path in logs)
