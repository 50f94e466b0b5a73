"""The generated configuration of pgBackRest, proved with pgBackRest: `make pgbackrest`.

A PostgreSQL of Debian's is played on and backed up twice over, into a directory and into object
storage over TLS; it is restored to a moment between two writes, and everything in it is verified. Not
a part of `make test`: it needs two packages of Debian's and a minute.
"""

from __future__ import annotations

import asyncio
import base64
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString

import psycopg
from pydantic import SecretStr

from pokerarena.ops import migrate, system_user
from pokerarena.ops.backup import pgbackrest
from pokerarena.ops.verify import verify_database
from pokerarena.settings import Settings
from pokerarena.telemetry import configure_logging
from tests.arena import arena_settings
from tests.database_server import new_directory
from tests.ops.backup.object_server import BUCKET, KEY_ID, SECRET, object_server
from tests.ops.backup.test_backup import play, write

ROOT = Path(__file__).parents[3]
STANZA = "arena"
HANDS = 2000


class Cluster:
    """One PostgreSQL of Debian's, run by the database's system user where root runs this."""

    def __init__(self, programs: Path, data: Path, pgbackrest_folder: Path) -> None:
        self._programs = programs
        self.data = data
        self._user = system_user.NAME if os.geteuid() == 0 else None
        self._path = f"{pgbackrest_folder}:/usr/bin:/bin"

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, user=self._user, cwd="/",
            env={"PATH": self._path, "LC_ALL": "C"},
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def init(self, include: Path) -> None:
        self.run(str(self._programs / "initdb"), f"--pgdata={self.data}", "--username=postgres",
                 "--auth=trust", "--data-checksums", "--encoding=UTF8", "--locale=C")  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as out:
            out.write(f"listen_addresses = ''\ninclude '{include}'\n")

    @contextmanager
    def serving(self, sockets: Path) -> Iterator[str]:
        control = str(self._programs / "pg_ctl")
        options = f"-k {sockets} -c unix_socket_permissions=0777"
        self.run(control, "start", "-w", "-t", "120", "-s", f"--pgdata={self.data}",
                 f"--log={self.data}.log", f"--options={options}")  # fmt: skip
        how = "immediate"
        try:
            yield f"postgresql+psycopg://postgres@/pokerarena?host={sockets}"
            how = "fast"
        finally:
            self.run(control, "stop", "-m", how, "-s", f"--pgdata={self.data}")


def one(url: str, query: LiteralString) -> object:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def lag_s(url: str) -> float:
    """How long after a commit its WAL is archived: what a disaster costs."""
    before = str(one(url, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())"))
    write_at_s = time.monotonic()
    write(arena_settings(url), f"lag-{time.monotonic_ns()}")
    while str(one(url, "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver")) < before:
        assert time.monotonic() < write_at_s + 60, "WAL is not archived"
        time.sleep(0.05)
    return time.monotonic() - write_at_s


def drill(settings: Settings, directory: Path, programs: tuple[Path, Path], what: str) -> None:
    directory.mkdir()
    data, sockets = directory / "data", directory / "sockets"
    configured = directory / "pgbackrest"
    sockets.mkdir(mode=0o755)
    cluster = Cluster(programs[1], data, programs[0])
    described = pgbackrest.Cluster(STANZA, str(data), str(sockets), 5432, "postgres")
    pgbackrest.write(settings, described, configured)
    own = ("log", "lock", "spool")
    with (configured / pgbackrest.CONFIGURATION).open("a") as out:
        # Where a test may write; an installed pgBackRest has its places.
        out.write("".join(f"\n[global]\n{name}-path={directory / name}\n" for name in own))
    if os.geteuid() == 0:
        system_user.ensure(system_user.NAME)
        user = pwd.getpwnam(system_user.NAME)
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)

    def backrest(*arguments: str) -> str:
        files = (f"--config={configured / pgbackrest.CONFIGURATION}",
                 f"--config-include-path={configured / 'conf.d'}")  # fmt: skip
        return cluster.run("pgbackrest", *files, f"--stanza={STANZA}", *arguments)

    cluster.init(configured / pgbackrest.SERVER)
    with cluster.serving(sockets) as url:
        with psycopg.connect(f"host={sockets} user=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE pokerarena")
        migrate.upgrade(url)
        arena = arena_settings(url)
        backrest("stanza-create")
        backrest("check")
        asyncio.run(play(arena, HANDS))
        full_s = timed(lambda: backrest("backup", "--type=full"))
        write(arena, "before")
        asyncio.run(play(arena, HANDS))
        incremental_s = timed(lambda: backrest("backup", "--type=incr"))
        asyncio.run(play(arena, 10))
        moment = one(url, "SELECT clock_timestamp()")
        assert isinstance(moment, datetime)
        time.sleep(0.01)
        write(arena, "after")
        lags_s = [lag_s(url) for _ in range(3)]
        size = one(url, "SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database")
        backrest("check")
    backrest("verify")
    target = f"--target={moment.astimezone(UTC).isoformat(sep=' ')}"
    restored = directory / "restored"
    began_s = time.monotonic()
    backrest("restore", "--type=time", target, "--target-action=promote", f"--pg1-path={restored}",
             "--archive-mode=off")  # fmt: skip
    unpacked_s = time.monotonic() - began_s
    with Cluster(programs[1], restored, programs[0]).serving(sockets) as url:
        while one(url, "SELECT pg_is_in_recovery()"):
            time.sleep(0.05)
        answers_s = time.monotonic() - began_s
        found: list[str] = []
        verified = asyncio.run(verify_database(arena_settings(url), None, found.append))
        names = one(
            url, "SELECT array_agg(username) FROM users WHERE username IN ('before', 'after')"
        )
    assert (verified.hands, found) == (2 * HANDS + 10, []), (verified, found)
    assert names == ["before"], names
    print(
        f"{what}: {size}; full {full_s:.1f} s, incremental {incremental_s:.1f} s; restored to "
        f"{moment.isoformat()} in {unpacked_s:.1f} s, answers after {answers_s:.1f} s; "
        f"{verified.sentence()}; WAL archived at most {max(lags_s):.1f} s after its commit"
    )


def timed(work: Callable[[], object]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def main() -> int:
    configure_logging("WARNING", "console", role="drill")
    found = subprocess.run(
        [ROOT / "scripts" / "pgbackrest"], capture_output=True, text=True, check=True
    )
    programs = (Path(found.stdout.split("\n")[0]), Path(found.stdout.split("\n")[1]))
    key = {"backup_key": SecretStr(base64.b64encode(bytes(range(32))).decode())}
    with new_directory() as directory:
        # The database's user has to be able to run it.
        folder = directory / "programs"
        folder.mkdir()
        shutil.copy(programs[0] / "pgbackrest", folder)
        programs = (folder, programs[1])
        kept = directory / "posix" / "repository"
        settings = arena_settings("postgresql://unused", backup_directory=str(kept), **key)
        drill(settings, directory / "posix", programs, "directory")
        with object_server(directory / "objects") as server:
            (directory / "objects").chmod(0o711)
            settings = arena_settings(
                "postgresql://unused",
                backup_bucket=f"{BUCKET}/pgbackrest",
                backup_s3_endpoint=f"https://localhost:{server.tls_port}",
                backup_s3_access_key_id=SecretStr(KEY_ID),
                backup_s3_secret_access_key=SecretStr(SECRET),
                backup_s3_ca_file=str(server.authority),
                **key,
            )
            drill(settings, directory / "s3", programs, "object storage")
    return 0


if __name__ == "__main__":
    sys.exit(main())
