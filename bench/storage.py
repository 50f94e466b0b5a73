"""How many bytes a stored six-seat hand takes, indexes included, and how many are played a second.

A house-only run goes through a real worker with its player process into a real PostgreSQL that
keeps its promises (fsync on). The house agents decide at once, so the figure is what play, store
and queue can do together on this machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from tests.arena import Arena, open_arena
from tests.worker.workers import worker

HANDS = int(os.environ.get("BENCH_HANDS", "20000"))
LINEUP = ("random", "tight", "caller", "random", "tight", "caller")
BYTES_A_HAND_MAX = 600
RELATIONS = ("hands", "hand_cards", "decision_notes")


async def play(arena: Arena, runs: int, processes: int, directory: Path) -> float:
    """Hands a second over all runs, from the first claim to the last hand."""
    ordered = [await arena.order(LINEUP, HANDS // runs) for _ in range(runs)]
    with worker(arena.settings, directory, processes):
        for run_id in ordered:
            run = await arena.until_ended(run_id, deadline_s=600)
            assert run.status == "completed", run.failure_detail
    seconds = await arena.value(
        "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM runs"
        " WHERE id = ANY(:ids)",
        ids=ordered,
    )
    return float((HANDS // runs) * runs / seconds)


async def measure(url: str, directory: Path) -> int:
    async with open_arena(url, run_lease_s=20, run_lease_renew_s=5) as arena:
        one = await play(arena, 1, 1, directory)
        sizes = {
            name: await arena.value(
                "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree(:name)",
                name=name,
            )
            for name in RELATIONS
        }
        hands, actions = (
            await arena.rows("SELECT count(*), sum(length(actions)) / 10 FROM hands")
        )[0]
        eight = await play(arena, 8, 2, directory)
    bytes_a_hand = sum(sizes.values()) / hands
    print(f"stored bytes a six-seat hand    {bytes_a_hand:8.0f}   (at most {BYTES_A_HAND_MAX})")
    for name, size in sizes.items():
        print(f"  {name:28s}  {size / hands:8.0f}   with its indexes")
    print(f"actions a hand                  {actions / hands:8.1f}")
    print(f"hands/s, one run, one process   {one:8.0f}   worker, commits and all")
    print(f"hands/s, 8 runs, two processes  {eight:8.0f}")
    return 0 if bytes_a_hand <= BYTES_A_HAND_MAX else 1


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="pokerarena-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with EmbeddedPostgres(directory / "pg") as postgres:
            postgres.ensure_database("bench")
            migrate.upgrade(postgres.url("bench"))
            return asyncio.run(measure(postgres.url("bench"), directory))


if __name__ == "__main__":
    sys.exit(main())
