"""Backups in object storage are as whole as those in a directory, whatever happens on the way."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from pydantic import SecretStr

from pokerarena.errors import ConfigurationError, Unavailable
from pokerarena.ops import migrate
from pokerarena.ops.backup import base, object_storage
from pokerarena.ops.backup.object_storage import ObjectStorage
from pokerarena.ops.backup.repository import Repository
from pokerarena.ops.backup.storage import Storage
from pokerarena.ops.backup.verify import verify
from pokerarena.ops.backup.wal import WalShipper
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.settings import Settings
from tests.arena import arena_settings
from tests.database_server import UNSAFE_BUT_FAST, new_directory
from tests.ops.backup.object_server import BUCKET, KEY_ID, SECRET, ObjectServer, Wire, object_server
from tests.ops.backup.test_backup import COMMITS_FLUSHED, KEY, flip_bit, marked_users, play, write
from tests.ops.test_cli import one_line, pokerarena

# The smallest parts that S3 knows, so that little is much.
PART_BYTES = 5 * 1024 * 1024


@dataclass
class Stored:
    """An arena whose backups are in object storage, and a moment between two writes."""

    server: ObjectServer
    settings: Settings
    repository: Repository
    directory: Path
    moment: datetime

    def environment(self) -> dict[str, str]:
        """As an operator sets it: the credentials are in files."""
        for name, text in (("key_id", KEY_ID), ("secret", SECRET), ("backup_key", KEY)):
            (self.directory / name).write_text(text)
        return {
            "POKERARENA_DATABASE_URL": self.settings.database_url.get_secret_value(),
            "POKERARENA_BACKUP_BUCKET": self.settings.backup_bucket,
            "POKERARENA_BACKUP_SPOOL_DIRECTORY": self.settings.backup_spool_directory,
            "POKERARENA_BACKUP_S3_ENDPOINT": self.server.endpoint,
            "POKERARENA_BACKUP_S3_ACCESS_KEY_ID_FILE": str(self.directory / "key_id"),
            "POKERARENA_BACKUP_S3_SECRET_ACCESS_KEY_FILE": str(self.directory / "secret"),
            "POKERARENA_BACKUP_KEY_FILE": str(self.directory / "backup_key"),
        }

    def over(self, **changes: Any) -> Settings:
        return self.settings.model_copy(update={"backup_s3_retry_s": 0.5, **changes})


def noise(parts: int) -> Iterator[bytes]:
    """What does not compress, as long as so many parts."""
    generator = random.Random(parts)
    return (generator.randbytes(1024 * 1024) for _ in range(parts * PART_BYTES >> 20))


def failing(parts: int) -> Iterator[bytes]:
    yield from noise(parts)
    raise ZeroDivisionError


def put(storage: Storage, name: str, pieces: Iterator[bytes]) -> None:
    with storage.writing(name) as out:
        for piece in pieces:
            out.write(piece)


@pytest.fixture(scope="module")
def stored() -> Iterator[Stored]:
    with (
        new_directory() as directory,
        pytest.MonkeyPatch.context() as patch,
        object_server(directory / "objects") as server,
        EmbeddedPostgres(directory / "pg", settings=COMMITS_FLUSHED) as postgres,
    ):
        patch.setattr(object_storage, "PART_BYTES", PART_BYTES)
        postgres.ensure_database("pokerarena")
        migrate.upgrade(postgres.url())
        settings = arena_settings(
            postgres.url(),
            backup_bucket=f"{BUCKET}/of/tests",
            backup_s3_endpoint=server.endpoint,
            backup_s3_access_key_id=SecretStr(KEY_ID),
            backup_s3_secret_access_key=SecretStr(SECRET),
            backup_spool_directory=str(directory / "spool"),
            backup_key=SecretStr(KEY),
        )
        repository = Repository.of(settings)
        asyncio.run(play(settings, 20))
        base.create(settings, repository)
        with WalShipper(settings, repository) as shipper:
            write(settings, "before")
            moment = shipper.ship().at
            time.sleep(0.01)
            write(settings, "after")
            shipper.ship()
        yield Stored(server, settings, repository, directory, moment)


def test_create_list_verify_and_drill_work_over_object_storage(stored: Stored) -> None:
    environment = stored.environment()
    made = pokerarena("backup", "create", **environment)
    assert made.returncode == 0, made.stderr
    label = made.stdout.split()[0]
    listed = pokerarena("backup", "list", **environment)
    assert f"{label}  finished" in listed.stdout and "WAL reaches" in listed.stdout
    verified = pokerarena("backup", "verify", **environment)
    assert (verified.returncode, verified.stdout) == (0, ""), verified.stderr
    drilled = pokerarena(
        "backup", "drill", "--at", stored.moment.isoformat(),
        "--scratch", str(stored.directory), **environment,
    )  # fmt: skip
    assert drilled.returncode == 0, drilled.stderr
    assert "1 runs, 20 hands: whole" in drilled.stdout
    print(drilled.stdout)
    assert all(name.startswith("of/tests/") for name in stored.server.objects())


def test_a_restore_to_a_moment_and_retention_work_over_object_storage(stored: Stored) -> None:
    target = stored.directory / "restored"
    done = pokerarena(
        "backup", "restore", str(target), "--at", stored.moment.isoformat(), **stored.environment()
    )
    assert done.returncode == 0, done.stderr
    with EmbeddedPostgres(target, settings=UNSAFE_BUT_FAST) as server:
        assert marked_users(server) == {"before"}
    newest = base.create(stored.settings, stored.repository)
    long_later = datetime.now(UTC) + timedelta(days=30)
    pruned = stored.repository.prune(keep_min=1, keep_days=1, now=long_later)
    assert pruned.bases and newest.label not in pruned.bases
    assert [one.label for one in stored.repository.bases()] == [newest.label]
    kept = {name for name in stored.server.objects() if "/base/" in name}
    assert kept == {f"of/tests/base/{newest.label}{end}" for end in (".json", ".sealed")}
    assert list(verify(stored.settings, stored.repository, None)) == []


def test_a_changed_or_missing_object_is_found(stored: Stored) -> None:
    with WalShipper(stored.settings, stored.repository) as shipper:
        write(stored.settings, "last")
        shipper.ship()
    names = stored.repository.wal_names()
    file = f"of/tests/{stored.repository.sealed_wal(names[-1])}"
    whole = obstore.get(stored.server.store, file).bytes().to_bytes()
    try:
        obstore.put(stored.server.store, file, flip_bit(whole))
        (found,) = verify(stored.settings, stored.repository, None)
        assert found.startswith(f"s3://{BUCKET}/{file} is damaged")
        obstore.put(stored.server.store, file, whole[:-20])
        (found,) = verify(stored.settings, stored.repository, None)
        assert "damaged or cut" in found
    finally:
        obstore.put(stored.server.store, file, whole)
    label = stored.repository.bases()[-1].label
    base_file = f"of/tests/{stored.repository.sealed_base(label)}"
    whole = obstore.get(stored.server.store, base_file).bytes().to_bytes()
    obstore.delete(stored.server.store, base_file)
    try:
        (found,) = verify(stored.settings, stored.repository, None)
        assert found == f"s3://{BUCKET}/{base_file} is missing."
    finally:
        obstore.put(stored.server.store, base_file, whole)


def test_wrong_credentials_are_one_line_that_says_what_to_do(stored: Stored) -> None:
    environment = stored.environment()
    (stored.directory / "secret").write_text("another-secret")
    for command in (["list"], ["create"]):
        refused = pokerarena("backup", *command, **environment)
        assert refused.returncode == 1
        line = one_line(refused)
        assert "refuses access" in line and "POKERARENA_BACKUP_S3_ACCESS_KEY_ID" in line
        assert "another-secret" not in line
    del environment["POKERARENA_BACKUP_S3_SECRET_ACCESS_KEY_FILE"]
    assert "must both be set" in one_line(pokerarena("backup", "list", **environment))


def test_a_connection_lost_in_the_middle_leaves_no_backup_that_counts(stored: Stored) -> None:
    # Enough that does not compress for several parts, so that the cut is within an upload.
    put(stored.repository.storage, "base/noise", noise(3))
    before = stored.server.objects()
    labels = [one.label for one in stored.repository.bases()]
    wire = Wire(stored.server.port, cut_after_bytes=2 * 1024 * 1024)
    settings = stored.over(backup_s3_endpoint=wire.endpoint)
    try:
        with pytest.raises(Unavailable, match="object storage failed"):
            base.create(settings, Repository.of(settings))
        assert wire.cut
    finally:
        wire.close()
    assert [one.label for one in stored.repository.bases()] == labels
    assert stored.server.objects() == before
    wire = Wire(stored.server.port, cut_after_bytes=2 * PART_BYTES)
    storage = ObjectStorage.of(stored.over(backup_s3_endpoint=wire.endpoint))
    try:
        with pytest.raises(Unavailable, match="failed"):
            put(storage, "base/parts", noise(12))
    finally:
        wire.close()
    assert stored.server.objects() == before
    # The storage is there again: what was lost is made.
    again = base.create(stored.settings, stored.repository)
    assert stored.repository.bases()[-1].label == again.label
    stored.repository.storage.delete("base/noise")


def test_a_connection_lost_while_reading_is_an_error_and_not_an_end(stored: Stored) -> None:
    content = b"".join(noise(3))
    put(stored.repository.storage, "base/noise", noise(3))
    with stored.repository.storage.reading("base/noise") as source:
        assert source.read(len(content) + 1) == content
    wire = Wire(stored.server.port, cut_after_bytes=2 * PART_BYTES)
    storage = ObjectStorage.of(stored.over(backup_s3_endpoint=wire.endpoint))
    try:
        with pytest.raises(Unavailable, match="failed"), storage.reading("base/noise") as source:
            source.read(len(content))
    finally:
        wire.close()
        stored.repository.storage.delete("base/noise")


def test_what_fails_while_it_is_written_becomes_no_object(stored: Stored) -> None:
    before = stored.server.objects()
    for parts in (0, 3):
        with pytest.raises(ZeroDivisionError):
            put(stored.repository.storage, "base/half", failing(parts))
    assert stored.server.objects() == before


def test_beyond_this_machine_there_is_no_word_without_tls(stored: Stored) -> None:
    with pytest.raises(ConfigurationError, match="must be https"):
        ObjectStorage.of(stored.over(backup_s3_endpoint="http://192.0.2.1:9000"))
    tls = {"backup_s3_endpoint": f"https://127.0.0.1:{stored.server.tls_port}"}
    trusting = ObjectStorage.of(stored.over(**tls, backup_s3_ca_file=str(stored.server.authority)))
    assert trusting.names("base")
    with pytest.raises(Unavailable, match="signed by nobody"):
        ObjectStorage.of(stored.over(**tls)).names("base")


def test_a_bucket_that_is_not_there_and_two_places_are_told(stored: Stored) -> None:
    nowhere = stored.over(backup_bucket="nowhere")
    with pytest.raises(ConfigurationError, match="no bucket at s3://nowhere"):
        Repository.of(nowhere).bases()
    with pytest.raises(ConfigurationError, match="keep one"):
        Repository.of(stored.over(backup_directory="/somewhere"))
    with pytest.raises(ConfigurationError, match="SPOOL"):
        Repository.of(stored.over(backup_spool_directory=""))
