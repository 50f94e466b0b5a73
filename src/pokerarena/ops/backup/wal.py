"""Shipping WAL as it is written: `pg_receivewal` into a spool, sealed from there into the backups.

Owns the receiver's process, its replication slot, and the statement of how far the backups reach.
The segment that is being written is sealed anew at each turn, so that what a crash can lose is as
long as one turn. The spool holds the last seconds of WAL unsealed, closed to others.
Must never: delete a spooled segment before it is sealed and on the disk, or claim a reach that was
not checked with the server.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from pokerarena.errors import Unavailable
from pokerarena.ops import tether
from pokerarena.ops.backup import source
from pokerarena.ops.backup.repository import SEGMENT_BYTES, Reach, Repository
from pokerarena.ops.backup.sealed_file import sealed
from pokerarena.settings import Settings

SLOT: Final = "pokerarena_backup"
RECEIVER_NAME: Final = "pokerarena wal"
CATCH_UP_S: Final = 10.0
STOP_PATIENCE_S: Final = 10.0
_PIECE_BYTES: Final = 1024 * 1024
_COMPLETE: Final = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
_PARTIAL: Final = re.compile(r"([0-9A-F]{24})\.partial")


class WalShipper:
    """Receives and ships while it is open."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        self._settings = settings
        self._repository = repository
        self._key = settings.backup_key_bytes()
        spool = settings.backup_spool_directory or f"{settings.backup_directory}-spool"
        self.spool = Path(spool).expanduser().absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._partial_reaches = ""

    def __enter__(self) -> Self:
        self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.spool.chmod(0o700)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the receiver; the server keeps what is missing until the next start."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def ship(self) -> Reach:
        """One turn: everything committed by now is in the backups when it returns.

        Raises `Unavailable` while the server or the receiver is not there; the next turn starts
        what is missing.
        """
        try:
            self._receive()
            target = self._flushed()
            self._wait_for(target.lsn)
        except psycopg.Error as error:
            self.stop()
            raise Unavailable(
                "wal_not_shipped", f"The database is away: {str(error).strip()[:200]}"
            ) from None
        self._ship_spool(target.lsn)
        self._repository.reached(target)
        return target

    def _receive(self) -> None:
        if self._connection is None:
            self._connection = source.connect(self._settings)
        if self._process is not None and self._process.poll() is None:
            return
        common = [
            str(source.program("pg_receivewal")),
            f"--dbname={self._receiver_conninfo()}",
            f"--slot={SLOT}",
        ]
        done = subprocess.run(
            [*common, "--create-slot", "--if-not-exists"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0:
            last = done.stderr.strip().rpartition("\n")[2]
            raise Unavailable("wal_not_shipped", f"No replication slot could be made: {last}")
        self._drop_cut_segments()
        log_path = self.spool / "receiver.log"
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                tether.command(
                    [*common, f"--directory={self.spool}", "--synchronous", "--no-loop"],
                    death_signal=signal.SIGINT,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _drop_cut_segments(self) -> None:
        """A full disk leaves a segment that is too short, and the receiver starts over none such.

        The server still has it: the slot keeps what was not acknowledged.
        """
        for path in self.spool.glob("*.partial"):
            if path.stat().st_size not in (0, SEGMENT_BYTES):
                path.unlink()

    def _receiver_conninfo(self) -> str:
        return psycopg.conninfo.make_conninfo(
            source.conninfo(self._settings), application_name=RECEIVER_NAME
        )

    def _flushed(self) -> Reach:
        """A moment, and the position up to which the server has written at that moment.

        What was committed by then is written: the arena commits synchronously, always.
        """
        assert self._connection is not None
        row = self._connection.execute(
            "SELECT clock_timestamp(), pg_current_wal_flush_lsn()::text"
        ).fetchone()
        assert row is not None
        at: datetime = row[0]
        return Reach(at, row[1])

    def _wait_for(self, lsn: str) -> None:
        assert self._connection is not None and self._process is not None
        give_up_s = time.monotonic() + CATCH_UP_S
        while True:
            row = self._connection.execute(
                "SELECT coalesce(bool_or(flush_lsn >= %s::pg_lsn), false) FROM pg_stat_replication"
                " WHERE application_name = %s",
                (lsn, RECEIVER_NAME),
            ).fetchone()
            if row is not None and row[0]:
                return
            if self._process.poll() is not None:
                said = (self.spool / "receiver.log").read_text(errors="replace").strip()
                raise Unavailable(
                    "wal_not_shipped", f"The receiver ended: {said.rpartition(chr(10))[2]}"
                )
            if time.monotonic() >= give_up_s:
                # What has come so far is worth keeping.
                self._ship_spool(lsn="")
                raise Unavailable("wal_not_shipped", "The receiver is behind the database.")
            time.sleep(0.02)

    def _ship_spool(self, lsn: str) -> None:
        names = sorted(entry.name for entry in os.scandir(self.spool))
        for name in names:
            if _COMPLETE.fullmatch(name):
                self._seal(self.spool / name, name)
                (self.spool / name).unlink()
                self._repository.storage.delete(self._repository.sealed_wal(f"{name}.partial"))
        if lsn and lsn == self._partial_reaches:
            return  # nothing was written since
        for name in names:
            if not _PARTIAL.fullmatch(name):
                continue
            try:
                self._seal(self.spool / name, name)
            except FileNotFoundError:
                # It was completed and renamed meanwhile, and this turn is to reach what is in it.
                self._ship_spool(lsn)
                return
        self._partial_reaches = lsn

    def _seal(self, path: Path, name: str) -> None:
        with (
            path.open("rb") as content,
            sealed(
                self._repository.storage, self._repository.sealed_wal(name), self._key, name
            ) as out,
        ):
            while piece := content.read(_PIECE_BYTES):
                out.write(piece)
