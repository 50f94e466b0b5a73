"""pgBackRest is told where, how long and under which key, and no secret lies open.

That pgBackRest takes it, and that a database comes back, is proved by `make pgbackrest`.
"""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from pydantic import SecretStr

from pokerarena.errors import ConfigurationError
from pokerarena.ops.backup import pgbackrest
from tests.arena import arena_settings
from tests.ops.test_cli import pokerarena

CLUSTER = pgbackrest.Cluster(
    "arena", "/var/lib/postgresql/15/main", "/run/postgresql", 5433, "boss"
)
URL = "postgresql+psycopg://x@/x"
OBJECTS = {
    "backup_bucket": "bucket/of/arena",
    "backup_s3_endpoint": "https://objects.example.com:9000",
    "backup_s3_region": "eu-central-1",
    "backup_s3_access_key_id": SecretStr("an-id"),
    "backup_s3_secret_access_key": SecretStr("a-secret"),
    "backup_s3_ca_file": "/etc/ca.pem",
}


def read(*paths: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    assert parser.read(paths) == [str(path) for path in paths]
    return parser


def test_a_directory_and_the_retention_are_those_of_the_settings(tmp_path: Path) -> None:
    settings = arena_settings(URL, backup_directory="/mnt/elsewhere", backup_keep_days=30)
    open_file, secret_file, server_file = pgbackrest.write(settings, CLUSTER, tmp_path, processes=3)
    options = read(open_file, secret_file)
    repository = options["global"]
    assert repository["repo1-type"] == "posix"
    assert repository["repo1-path"] == "/mnt/elsewhere"
    assert (repository["repo1-retention-full-type"], repository["repo1-retention-full"]) == (
        "time",
        "30",
    )
    assert repository["process-max"] == "3"
    assert repository["repo1-cipher-type"] == "aes-256-cbc"
    assert dict(options["arena"]) == {
        "pg1-path": CLUSTER.data_directory,
        "pg1-socket-path": "/run/postgresql",
        "pg1-port": "5433",
        "pg1-user": "boss",
    }
    server = server_file.read_text()
    assert f"--config={open_file} --config-include-path={secret_file.parent}" in server
    assert "archive_mode = on" in server and "--stanza=arena archive-push %p'" in server


def test_secrets_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    settings = arena_settings(URL, **OBJECTS)
    open_file, secret_file, _ = pgbackrest.write(settings, CLUSTER, tmp_path)
    assert secret_file.stat().st_mode & 0o777 == 0o600
    assert "secret" not in open_file.read_text().replace("secrets.conf", "")
    options = read(open_file, secret_file)["global"]
    assert options["repo1-s3-bucket"] == "bucket"
    assert options["repo1-path"] == "/of/arena"
    assert options["repo1-s3-endpoint"] == "objects.example.com"
    assert options["repo1-storage-port"] == "9000"
    assert options["repo1-s3-uri-style"] == "path"
    assert options["repo1-storage-ca-file"] == "/etc/ca.pem"
    assert (options["repo1-s3-key"], options["repo1-s3-key-secret"]) == ("an-id", "a-secret")
    # It is derived, so that one key opens nothing of the other's.
    assert options["repo1-cipher-pass"] not in settings.backup_key.get_secret_value()
    other = settings.model_copy(update={"backup_key": SecretStr("A" * 43 + "=")})
    assert pgbackrest.secrets(other) != pgbackrest.secrets(settings)


def test_amazon_is_spoken_to_by_the_bucket_s_name(tmp_path: Path) -> None:
    settings = arena_settings(URL, **{**OBJECTS, "backup_s3_endpoint": ""})
    options = read(*pgbackrest.write(settings, CLUSTER, tmp_path)[:2])["global"]
    assert options["repo1-s3-endpoint"] == "s3.eu-central-1.amazonaws.com"
    assert (options["repo1-s3-uri-style"], options["repo1-storage-port"]) == ("host", "443")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "say where the backups go"),
        ({**OBJECTS, "backup_s3_endpoint": "http://127.0.0.1:9000"}, "HTTPS only"),
        ({**OBJECTS, "backup_s3_secret_access_key": SecretStr("")}, "must both be set"),
    ],
)
def test_what_pgbackrest_could_not_use_is_refused(
    tmp_path: Path, changes: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        pgbackrest.write(arena_settings(URL, **changes), CLUSTER, tmp_path)


def test_the_command_writes_the_three_files(tmp_path: Path) -> None:
    done = pokerarena(
        "backup", "pgbackrest-config", str(tmp_path), "--pg-data", "/data",
        POKERARENA_BACKUP_DIRECTORY="/mnt/elsewhere",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        "pgbackrest.conf",
        "secrets.conf",
        "postgresql-archive.conf",
    ]
