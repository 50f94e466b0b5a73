"""Run with the code of the release before: its worker plays while this release migrates the database.

Every run has to be completed under its first epoch, with no deal void and no finding: whoever played
noticed nothing. It must never import this release's code into its process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from newer_schema import MIGRATE

from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.runs.soundness import check_run
from tests.arena import open_arena
from tests.worker.workers import worker

RUNS = 3
HANDS_A_RUN = 4_000
HANDS_BEFORE = 2_000
DEADLINE_S = 300


async def play(url: str, directory: Path) -> None:
    newer = {**os.environ, "PYTHONPATH": os.environ["COMPAT_NEWER_PATH"]}
    async with open_arena(url, run_lease_s=20, run_lease_renew_s=5) as arena:
        runs = [await arena.order(("random", "tight", "caller"), HANDS_A_RUN) for _ in range(RUNS)]
        with worker(arena.settings, directory) as process:
            await arena.until(runs[0], lambda run: run.hands_done >= HANDS_BEFORE // RUNS)
            migration = await asyncio.create_subprocess_exec(
                sys.executable, "-c", MIGRATE, url, env=newer
            )
            assert await migration.wait() == 0, "the migration failed"
            played = await arena.value("SELECT count(*) FROM hands")
            assert played < RUNS * HANDS_A_RUN, "the migration came when all was over"
            for run_id in runs:
                run = await arena.until_ended(run_id, deadline_s=DEADLINE_S)
                assert (run.status, run.epoch) == ("completed", 1), (run.status, run.failure_detail)
            failures = process.events("commit_failed")
        voids = await arena.value("SELECT count(*) FROM void_deals")
        assert (voids, failures) == (0, []), (voids, failures)
        for run_id in runs:
            checked = await check_run(arena.database, run_id)
            assert checked is not None
            assert (checked.hands, checked.findings) == (HANDS_A_RUN, ())
    print(
        f"migrated at hand {played} of {RUNS * HANDS_A_RUN}: no hand lost, no deal void, no retry"
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pokerarena-compat-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with EmbeddedPostgres(directory / "pg") as postgres:
            postgres.ensure_database("played")
            migrate.upgrade(postgres.url("played"))
            asyncio.run(play(postgres.url("played"), directory))


if __name__ == "__main__":
    main()
