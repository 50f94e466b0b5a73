"""The schedule: WAL all the time, a base backup now and then, and what is too old deleted.

Must never: end because the database is away, or let a base backup hold up the WAL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from pokerarena import metrics
from pokerarena.errors import ArenaError
from pokerarena.exposition import served
from pokerarena.ops.backup import base
from pokerarena.ops.backup.repository import BaseBackup, Repository
from pokerarena.ops.backup.wal import WalShipper
from pokerarena.retrying import RetryPolicy
from pokerarena.settings import Settings

SHIP_RETRIES: Final = RetryPolicy(base_s=0.5, cap_s=30.0)
BASE_RETRIES: Final = RetryPolicy(base_s=60.0, cap_s=3600.0)


class BackupService:
    """Serves one repository until it is asked to stop."""

    def __init__(
        self, settings: Settings, repository: Repository, tell: Callable[[str], object]
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._tell = tell
        self._next_base_at = datetime.min.replace(tzinfo=UTC)
        self._base: threading.Thread | None = None
        self._base_failures = 0

    def serve(self, stopping: threading.Event) -> None:
        """Ship and back up until `stopping` is set."""
        failures = 0
        self._announce()
        with (
            served(self._settings.metrics_host, self._settings.backup_metrics_port),
            self._repository.turn("serve"),
            WalShipper(self._settings, self._repository) as shipper,
        ):
            while not stopping.is_set():
                try:
                    reach = shipper.ship()
                except ArenaError as error:
                    failures += 1
                    metrics.BACKUP_FAILURES.number("wal").add()
                    self._tell(f"WAL not shipped ({failures} in a row): {error.message}")
                    stopping.wait(SHIP_RETRIES.pause_s(failures))
                    continue
                if failures:
                    self._tell(f"WAL is shipped again, after {failures} failures")
                failures = 0
                metrics.BACKUP_WAL_REACHED.number().set(reach.at.timestamp())
                self._back_up_when_due()
                stopping.wait(self._settings.backup_ship_s)
            if self._base is not None:
                self._base.join()

    def _announce(self) -> None:
        """What is known before anything is done."""
        metrics.BACKUP_BASE_INTERVAL.number().set(self._settings.backup_interval_s)
        metrics.BACKUP_BASE_FAILING.number().set(0)
        try:
            reach, bases = self._repository.reach(), self._repository.bases()
        except ArenaError as error:
            self._tell(f"backups not readable: {error.message}")
            reach, bases = None, []
        metrics.BACKUP_WAL_REACHED.number().set(reach.at.timestamp() if reach else 0)
        if bases:
            _count(bases[-1])
        else:
            metrics.BACKUP_BASE_FINISHED.number().set(0)

    def _back_up_when_due(self) -> None:
        now = datetime.now(UTC)
        if now < self._next_base_at or (self._base is not None and self._base.is_alive()):
            return
        try:
            bases = self._repository.bases()
        except ArenaError as error:
            self._base_failed(error)
            return
        interval = timedelta(seconds=self._settings.backup_interval_s)
        if bases and bases[-1].finished_at + interval > now:
            self._next_base_at = bases[-1].finished_at + interval
            return
        self._base = threading.Thread(target=self._back_up, name="base backup")
        self._base.start()

    def _back_up(self) -> None:
        try:
            made = base.create(self._settings, self._repository)
        except ArenaError as error:
            self._base_failed(error)
            return
        self._base_failures = 0
        metrics.BACKUP_BASE_FAILING.number().set(0)
        _count(made)
        try:
            pruned = prune(self._settings, self._repository)
        except ArenaError as error:
            # The backup is there all the same; the next one comes with another attempt.
            pruned = f"old ones not deleted: {error.message}"
        self._tell(f"base backup {made.label}: {made.sealed_bytes} bytes; {pruned}")

    def _base_failed(self, error: ArenaError) -> None:
        self._base_failures += 1
        metrics.BACKUP_FAILURES.number("base").add()
        metrics.BACKUP_BASE_FAILING.number().set(self._base_failures)
        pause_s = BASE_RETRIES.later_s(self._base_failures)
        self._next_base_at = datetime.now(UTC) + timedelta(seconds=pause_s)
        self._tell(f"base backup failed, again in {pause_s:.0f} s: {error.message}")


def _count(made: BaseBackup) -> None:
    metrics.BACKUP_BASE_FINISHED.number().set(made.finished_at.timestamp())
    metrics.BACKUP_BASE_BYTES.number("plain").set(made.plain_bytes)
    metrics.BACKUP_BASE_BYTES.number("sealed").set(made.sealed_bytes)


def prune(settings: Settings, repository: Repository) -> str:
    """Delete what the retention settings say; what that was."""
    pruned = repository.prune(
        keep_min=settings.backup_keep_min,
        keep_days=settings.backup_keep_days,
        now=datetime.now(UTC),
    )
    return f"deleted {len(pruned.bases)} base backups and {pruned.segments} WAL segments"
