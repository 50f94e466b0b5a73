"""How long a restore takes, by size: what is fixed, what each gigabyte adds, and so what 50 GB take.

Hands that were really played are multiplied in the database until it has each of the sizes; it is
backed up and restored at each. Two sizes make a line: its height at zero is the fixed cost, its
slope the cost of a gigabyte. The extrapolation holds while the disk keeps the pace that it had here.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import LiteralString, NamedTuple

import psycopg
from pydantic import SecretStr

from bench.storage import play
from pokerarena.ops import migrate
from pokerarena.ops.backup import base
from pokerarena.ops.backup.drill import EXTRAPOLATE_TO_BYTES
from pokerarena.ops.backup.repository import Repository
from pokerarena.ops.backup.restore import restore
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.settings import Settings
from tests.arena import arena_settings, open_arena

SIZES_MB = tuple(int(size) for size in os.environ.get("BENCH_RESTORE_MB", "500,3000").split(","))
RTO_MAX_S = 600
# The hand's number makes ids that ascend, as those of real hands do.
MULTIPLY = """
WITH copied AS (
    INSERT INTO hands
    SELECT overlay(gen_random_uuid()::text PLACING to_hex(%(first)s + row_number() OVER ()) FROM 1)
               ::uuid, run_id, ended_at, %(first)s + row_number() OVER (), deal_no, epoch, level,
           button_seat, board, seats, actions, chain
    FROM hands WHERE hand_no BETWEEN 1 AND 20000
    RETURNING id
)
INSERT INTO hand_cards SELECT id, sha256(id::text::bytea)::bytea FROM copied
"""


class Measured(NamedTuple):
    """One size."""

    plain_bytes: int
    sealed_bytes: int
    create_s: float
    base_s: float
    wal_s: float
    replay_s: float
    start_s: float

    @property
    def serves_s(self) -> float:
        return self.base_s + self.wal_s + self.replay_s + self.start_s


def grow(server: EmbeddedPostgres, size_bytes: int) -> None:
    """Multiply the stored hands until the database is so big."""
    with psycopg.connect(server.conninfo("pokerarena"), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")

        def number(query: LiteralString) -> int:
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])

        while number("SELECT pg_database_size(current_database())") < size_bytes:
            highest = max(0x1000_0000, number("SELECT max(hand_no) FROM hands"))
            connection.execute(MULTIPLY, {"first": highest})
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")


def measure(settings: Settings, directory: Path) -> Measured:
    repository = Repository.of(settings)
    began_s = time.monotonic()
    made = base.create(settings, repository)
    create_s = time.monotonic() - began_s
    target = directory / made.label
    done = restore(settings, repository, target)
    began_s = time.monotonic()
    with EmbeddedPostgres(target):
        start_s = time.monotonic() - began_s
    return Measured(
        made.plain_bytes,
        made.sealed_bytes,
        create_s,
        done.base_s,
        done.wal_s,
        done.replay_s,
        start_s,
    )


def report(small: Measured, large: Measured) -> int:
    for one in (small, large):
        print(
            f"{one.plain_bytes / 1e6:7.0f} MB  sealed {one.sealed_bytes / 1e6:6.0f} MB in "
            f"{one.create_s:5.1f} s; base {one.base_s:5.1f} s, WAL {one.wal_s:4.1f} s, replay "
            f"{one.replay_s:4.1f} s, start {one.start_s:4.1f} s: serves after {one.serves_s:5.1f} s"
        )
    slope = (large.serves_s - small.serves_s) / (large.plain_bytes - small.plain_bytes)
    fixed_s = small.serves_s - slope * small.plain_bytes
    whole_s = fixed_s + slope * EXTRAPOLATE_TO_BYTES
    print(
        f"fixed {fixed_s:.1f} s, then {slope * 1e9:.2f} s a GB ({1e-6 / slope:.0f} MB/s)\n"
        f"RTO, 50 GB  {fixed_s:.1f} s + 50 x {slope * 1e9:.2f} s = {whole_s / 60:.1f} min "
        f"(at most {RTO_MAX_S / 60:.0f})"
    )
    return 0 if whole_s <= RTO_MAX_S else 1


async def play_hands(url: str, directory: Path) -> None:
    async with open_arena(url, run_lease_s=20, run_lease_renew_s=5) as arena:
        await play(arena, 1, 1, directory)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="pokerarena-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)
        measured = []
        with EmbeddedPostgres(directory / "pg") as server:
            server.ensure_database("pokerarena")
            migrate.upgrade(server.url())
            asyncio.run(play_hands(server.url(), directory))
            settings = arena_settings(
                server.url(),
                backup_directory=str(directory / "backups"),
                backup_key=SecretStr(base64.b64encode(os.urandom(32)).decode()),
            )
            for size_mb in SIZES_MB:
                grow(server, size_mb * 1_000_000)
                measured.append(measure(settings, directory))
                print(measured[-1], flush=True)
        return report(measured[0], measured[-1])


if __name__ == "__main__":
    sys.exit(main())
