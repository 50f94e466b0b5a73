"""A database comes back as it was at a chosen moment, and damage to a backup is found."""

from __future__ import annotations

import asyncio
import base64
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from pokerarena.errors import ConfigurationError, Invalid, Unavailable
from pokerarena.ops import migrate
from pokerarena.ops.backup import base
from pokerarena.ops.backup.repository import SEGMENT_BYTES, Repository
from pokerarena.ops.backup.restore import restore
from pokerarena.ops.backup.service import BackupService
from pokerarena.ops.backup.verify import verify
from pokerarena.ops.backup.wal import WalShipper
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.ops.verify import verify_database
from pokerarena.settings import Settings
from tests.arena import arena_settings, open_arena
from tests.database_server import UNSAFE_BUT_FAST, new_directory
from tests.ops.test_cli import pokerarena

# The backups reach what was flushed, and a commit has to be that: without it nothing is promised.
COMMITS_FLUSHED = {**UNSAFE_BUT_FAST, "synchronous_commit": "on"}
KEY = base64.b64encode(bytes(range(32))).decode()


@dataclass
class Backed:
    """A played arena with backups: a base, WAL over it, and a moment between two writes."""

    server: EmbeddedPostgres
    settings: Settings
    repository: Repository
    directory: Path
    moment: datetime

    def environment(self) -> dict[str, str]:
        return {
            "POKERARENA_DATABASE_URL": self.settings.database_url.get_secret_value(),
            "POKERARENA_BACKUP_DIRECTORY": self.settings.backup_directory,
            "POKERARENA_BACKUP_KEY": KEY,
        }

    def copy(self, name: str) -> tuple[Settings, Repository]:
        """The backups, to be damaged."""
        path = self.directory / name
        shutil.copytree(self.settings.backup_directory, path)
        settings = self.settings.model_copy(update={"backup_directory": str(path)})
        return settings, Repository.of(settings)


def write(settings: Settings, username: str) -> None:
    url = settings.database_url.get_secret_value().replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO users (id, username, password_hash, role)"
            " VALUES (gen_random_uuid(), %s, 'none', 'member')",
            (username,),
        )


async def play(settings: Settings, hands: int) -> None:
    url = settings.database_url.get_secret_value()
    async with open_arena(url) as arena:
        run = await arena.play(await arena.order(["random", "tight", "caller"], hands))
        assert run.status == "completed"


@pytest.fixture(scope="module")
def backed() -> Iterator[Backed]:
    with (
        new_directory() as directory,
        EmbeddedPostgres(directory / "pg", settings=COMMITS_FLUSHED) as server,
    ):
        server.ensure_database("pokerarena")
        migrate.upgrade(server.url())
        settings = arena_settings(
            server.url(), backup_directory=str(directory / "backups"), backup_key=SecretStr(KEY)
        )
        repository = Repository.of(settings)
        asyncio.run(play(settings, 20))
        base.create(settings, repository)
        with WalShipper(settings, repository) as shipper:
            shipper.ship()
            write(settings, "before")
            asyncio.run(play(settings, 10))
            moment = shipper.ship().at
            time.sleep(0.01)
            write(settings, "after")
            shipper.ship()
            # A segment ends, and what follows is in the next one.
            url = server.url().replace("+psycopg", "")
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SELECT pg_switch_wal()")
            write(settings, "last")
            shipper.ship()
        yield Backed(server, settings, repository, directory, moment)


def marked_users(server: EmbeddedPostgres) -> set[str]:
    """Those of `write` that are there."""
    with psycopg.connect(server.conninfo()) as connection:
        rows = connection.execute("SELECT username FROM users WHERE password_hash = 'none'")
        return {str(name) for (name,) in rows} & {"before", "after", "last"}


def restored_users(backed: Backed, at: datetime | None) -> set[str]:
    target = backed.directory / f"restored-{time.monotonic_ns()}"
    restore(backed.settings, backed.repository, target, at=at)
    with EmbeddedPostgres(target, settings=UNSAFE_BUT_FAST) as server:
        there = backed.settings.model_copy(update={"database_url": SecretStr(server.url())})
        found: list[str] = []
        verified = asyncio.run(verify_database(there, None, found.append))
        assert (verified.runs, verified.hands, found) == (2, 30, [])
        return marked_users(server)


def test_a_restore_to_a_moment_has_what_was_written_before_and_nothing_of_after(
    backed: Backed,
) -> None:
    assert restored_users(backed, backed.moment) == {"before"}
    # The database in use was not touched.
    assert marked_users(backed.server) == {"before", "after", "last"}


def test_a_moment_after_the_last_commit_is_reached_by_the_end_of_the_wal(backed: Backed) -> None:
    reach = backed.repository.reach()
    assert reach is not None
    assert restored_users(backed, reach.at) == {"before", "after", "last"}


def test_a_drill_checks_everything_and_tells_rpo_and_rto(backed: Backed) -> None:
    done = pokerarena(
        "backup", "drill", "--at", backed.moment.isoformat(),
        "--scratch", str(backed.directory), **backed.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["verified"] == "2 runs, 30 hands: whole"
    assert lines["RPO"].partition(" s")[0].replace(".", "").isdecimal()
    assert "50,000 MB /" in done.stdout
    assert int(lines["pages"].split()[0]) > 1000
    assert "expected" not in lines["schema"]
    assert not list(backed.directory.glob("pokerarena-drill-*")), "nothing is left behind"
    print(done.stdout)


def test_whole_backups_are_whole(backed: Backed) -> None:
    assert list(verify(backed.settings, backed.repository, None)) == []
    listed = pokerarena("backup", "list", **backed.environment())
    assert listed.returncode == 0
    assert backed.repository.bases()[0].label in listed.stdout
    assert "WAL reaches" in listed.stdout


def flip_bit(content: bytes) -> bytes:
    data = bytearray(content)
    data[len(data) // 2] ^= 1
    return bytes(data)


def flip(path: Path) -> None:
    path.write_bytes(flip_bit(path.read_bytes()))


def test_every_damage_to_a_backup_is_found(backed: Backed) -> None:
    settings, repository = backed.copy("damaged")
    label = repository.bases()[0].label
    kept = Path(settings.backup_directory)
    base_file = kept / repository.sealed_base(label)
    complete, partial = (kept / repository.sealed_wal(name) for name in repository.wal_names()[-2:])
    assert partial.name.endswith(".partial.sealed")
    # A bit, and a file under another's name.
    flip(base_file)
    partial.write_bytes(complete.read_bytes())
    found = list(verify(settings, repository, None))
    assert len(found) == 2, found
    assert "damaged" in found[0] and label in found[0]
    assert "does not hold" in found[1] and partial.name in found[1]
    # The command says so too, and nothing of it is restored.
    environment = {**backed.environment(), "POKERARENA_BACKUP_DIRECTORY": settings.backup_directory}
    said = pokerarena("backup", "verify", **environment)
    assert (said.returncode, said.stdout.splitlines()) == (1, found)
    refused = pokerarena("backup", "restore", str(backed.directory / "never"), **environment)
    assert refused.returncode == 1
    assert "damaged" in refused.stderr
    # Files that are gone.
    base_file.unlink()
    complete.unlink()
    flip(partial)
    found = list(verify(settings, repository, None))
    assert len(found) == 3, found
    assert "is missing" in found[0]
    assert f"WAL segment {complete.name[:24]} is missing" in found[2]


def test_what_cannot_be_restored_is_said_before_anything_is_done(backed: Backed) -> None:
    settings, repository = backed.settings, backed.repository
    target = backed.directory / "untouched"
    now = datetime.now(UTC)
    with pytest.raises(Invalid, match="reach until"):
        restore(settings, repository, target, at=now)
    with pytest.raises(Invalid, match="has not come"):
        restore(settings, repository, target, at=now + timedelta(days=1))
    assert not target.exists()
    with pytest.raises(ConfigurationError, match="not empty"):
        restore(settings, repository, backed.directory)
    wrong = settings.model_copy(
        update={"backup_key": SecretStr(base64.b64encode(bytes(32)).decode())}
    )
    assert any("sealed under key" in finding for finding in verify(wrong, repository, None))


def test_the_service_takes_bases_and_ships_again_after_the_database_was_away(
    backed: Backed,
) -> None:
    settings = backed.settings.model_copy(
        update={
            "backup_directory": str(backed.directory / "served"),
            "backup_ship_s": 0.05,
        }
    )
    repository = Repository.of(settings)
    told: list[str] = []
    stopping = threading.Event()
    thread = threading.Thread(
        target=BackupService(settings, repository, told.append).serve, args=(stopping,)
    )
    thread.start()
    try:
        until(lambda: len(repository.bases()) == 1, told)
        before = repository.reach()
        backed.server.stop()
        until(lambda: any("not shipped" in line for line in told), told)
        backed.server.start()
        until(lambda: any("again" in line for line in told), told)
        until(lambda: (repository.reach() or before) != before, told)
    finally:
        stopping.set()
        thread.join(60)
    assert not thread.is_alive()
    assert len(repository.bases()) == 1, "the next one is due in a day"
    assert list(verify(settings, repository, None)) == []


def test_a_segment_that_a_full_disk_cut_is_received_again(backed: Backed) -> None:
    settings = backed.settings.model_copy(
        update={"backup_directory": str(backed.directory / "full")}
    )
    repository = Repository.of(settings)
    with WalShipper(settings, repository) as shipper:
        shipper.ship()
        (partial,) = shipper.spool.glob("*.partial")
    partial.write_bytes(partial.read_bytes()[:901_120])
    with WalShipper(settings, repository) as shipper:
        write(backed.settings, "on and on")
        shipper.ship()
        assert partial.stat().st_size == SEGMENT_BYTES
    assert repository.wal_names() == [partial.name]


def until(condition: Callable[[], bool], told: list[str], deadline_s: float = 60.0) -> None:
    give_up_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up_s, told
        time.sleep(0.02)


def test_an_unreachable_database_is_one_sentence(backed: Backed) -> None:
    away = backed.settings.model_copy(
        update={"database_url": SecretStr(f"postgresql+psycopg://x@/x?host={backed.directory}")}
    )
    with pytest.raises(Unavailable, match="cannot be reached"):
        base.create(away, backed.repository)
