"""The drill: restore into a scratch instance, check everything, and say what a disaster would cost.

Must never: touch the database in use, or leave the scratch instance behind.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from sqlalchemy.engine import make_url

from pokerarena.ops import migrate
from pokerarena.ops.backup import source
from pokerarena.ops.backup.repository import Repository
from pokerarena.ops.backup.restore import Restored, restore
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.ops.verify import Verified, verify_database
from pokerarena.settings import Settings

_BLOCKS: Final = re.compile(r"Blocks scanned:\s+(\d+)")
_TOLD_MAX: Final = 20
EXTRAPOLATE_TO_BYTES: Final = 50_000_000_000
SAMPLE_MIN_BYTES: Final = 1_000_000_000
TOO_HIGH: Final = "; too high, as a small database is mostly the fixed cost of a thousand files"


@dataclass(frozen=True, slots=True)
class Drilled:
    """What the drill measured."""

    restored: Restored
    moment: datetime
    rpo_s: float | None
    start_s: float
    verify_s: float
    verified: Verified
    blocks: int | None
    schema: str

    @property
    def whole(self) -> bool:
        return not self.verified.findings and self.blocks is not None

    @property
    def rto_s(self) -> float:
        """From the decision to restore until a server answers with every file found whole.

        Verifying the hands runs while the arena serves, and is told on its own.
        """
        return self.restored.took_s + self.start_s

    def lines(self) -> list[str]:
        """The report, with its arithmetic."""
        restored, base = self.restored, self.restored.base
        rate = base.plain_bytes / max(restored.base_s, 0.001)
        scaled_s = EXTRAPOLATE_TO_BYTES / rate
        rest_s = restored.wal_s + restored.replay_s + self.start_s
        hands_rate = self.verified.hands / max(self.verify_s, 0.001)
        too_high = "" if base.plain_bytes >= SAMPLE_MIN_BYTES else TOO_HIGH
        rpo = "unknown, no WAL was shipped" if self.rpo_s is None else f"{self.rpo_s:.2f} s"
        return [
            f"restored    {base.label} to {self.moment.isoformat()}",
            f"schema      {self.schema}",
            f"verified    {self.verified.sentence()}",
            "pages       "
            + ("damaged" if self.blocks is None else f"{self.blocks} with the right checksum"),
            f"RPO         {rpo}: the age of the last WAL in the backups when the drill began",
            f"RTO         {self.rto_s:.2f} s until it answers: base {restored.base_s:.2f}, "
            f"WAL {restored.wal_s:.2f}, replay {restored.replay_s:.2f}, start {self.start_s:.2f}",
            f"verify      {self.verify_s:.2f} s more, {hands_rate:.0f} hands/s, while it serves",
            f"measured    {base.plain_bytes / 1e6:.1f} MB of files at {rate / 1e6:.1f} MB/s, "
            f"{restored.wal_bytes / 1e6:.1f} MB of WAL",
            f"RTO, 50 GB  {(scaled_s + rest_s) / 60:.1f} min: 50,000 MB / {rate / 1e6:.1f} MB/s "
            f"= {scaled_s:.0f} s, and {rest_s:.1f} s for WAL, replay and start as measured{too_high}",
        ]


def drill(
    settings: Settings,
    repository: Repository,
    *,
    at: datetime | None,
    scratch: Path | None,
    tell: Callable[[str], object],
) -> Drilled:
    """Restore to `at`, or to the last moment that the backups reach; `tell` gets each finding."""
    began = datetime.now(UTC)
    reach = repository.reach()
    rpo_s = None if reach is None else max(0.0, (began - reach.at).total_seconds())
    moment = at or (reach.at if reach is not None else None)
    directory = Path(tempfile.mkdtemp(dir=scratch, prefix="pokerarena-drill-"))
    # The database's system user has to walk through when root drills.
    directory.chmod(0o711)
    try:
        restored = restore(settings, repository, directory / "postgres", at=moment)
        started_s = time.monotonic()
        with EmbeddedPostgres(directory / "postgres") as server:
            start_s = time.monotonic() - started_s
            name = make_url(settings.database_url.get_secret_value()).database or "pokerarena"
            there = settings.model_copy(update={"database_url": SecretStr(server.url(name))})
            state = migrate.check(server.url(name))
            verified_s = time.monotonic()
            verified = asyncio.run(verify_database(there, None, tell))
            verify_s = time.monotonic() - verified_s
        blocks = _checked_blocks(directory / "postgres", tell)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return Drilled(
        restored=restored,
        moment=moment or restored.base.finished_at,
        rpo_s=rpo_s,
        start_s=start_s,
        verify_s=verify_s,
        verified=verified,
        blocks=blocks,
        schema=f"at {state.current}" + ("" if state.up_to_date else f", expected {state.head}"),
    )


def _checked_blocks(directory: Path, tell: Callable[[str], object]) -> int | None:
    """How many pages of a database at rest have the right checksum; None if any has not."""
    done = subprocess.run(
        [str(source.program("pg_checksums")), "--check", f"--pgdata={directory}"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    blocks = _BLOCKS.search(done.stdout)
    if done.returncode != 0 or blocks is None:
        for line in done.stderr.strip().splitlines()[:_TOLD_MAX]:
            tell(line)
        return None
    return int(blocks[1])
