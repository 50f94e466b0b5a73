"""The configuration of pgBackRest for a PostgreSQL of one's own, from the settings of this program.

Owns which options are set and why; where the backups go, how long they are kept and the key that
seals them are those of `pokerarena backup`. pgBackRest does the work, and needs no more of us.
Must never: write a secret into the file that everybody may read, or start anything.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pokerarena.errors import ConfigurationError
from pokerarena.ops.data_directory import write_private
from pokerarena.settings import Settings

CONFIGURATION: Final = "pgbackrest.conf"
# Read after the configuration, from the folder of `--config-include-path`.
SECRETS: Final = "conf.d/secrets.conf"
SERVER: Final = "postgresql-archive.conf"
# The rest of five seconds is for compressing, sealing and sending a segment.
ARCHIVE_TIMEOUT_S: Final = 4
_HTTPS_PORT: Final = 443


@dataclass(frozen=True, slots=True)
class Cluster:
    """The PostgreSQL that is backed up, as it is seen on its own host."""

    stanza: str
    data_directory: str
    socket_directory: str
    port: int
    user: str


def write(
    settings: Settings, cluster: Cluster, directory: Path, *, processes: int = 2
) -> list[Path]:
    """Write the three files; those with secrets are closed to others. Raises `ConfigurationError`."""
    texts = {
        CONFIGURATION: configuration(settings, cluster, processes=processes),
        SERVER: server_settings(cluster, directory),
    }
    (directory / SECRETS).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    write_private(directory / SECRETS, secrets(settings))
    return [directory / name for name in (CONFIGURATION, SECRETS, SERVER)]


def configuration(settings: Settings, cluster: Cluster, *, processes: int) -> str:
    """What everybody may read."""
    options = {
        **_repository(settings),
        "repo1-bundle": "y",
        "repo1-cipher-type": "aes-256-cbc",
        # Older ones go once a newer one is old enough; the last full backup never does.
        "repo1-retention-full-type": "time",
        "repo1-retention-full": str(settings.backup_keep_days),
        "process-max": str(processes),
        "compress-type": "zst",
        "compress-level": "3",
        "start-fast": "y",
        "stop-auto": "y",
        "archive-async": "y",
        # WAL that cannot be sent must not fill the database's disk: beyond this it is given up,
        # which the next backup mends.
        "archive-push-queue-max": "8GiB",
        "log-level-console": "info",
    }
    stanza = {
        "pg1-path": cluster.data_directory,
        "pg1-socket-path": cluster.socket_directory,
        "pg1-port": str(cluster.port),
        "pg1-user": cluster.user,
    }
    return (
        "# Made by `pokerarena backup pgbackrest-config`. Secrets are in conf.d/secrets.conf.\n"
        f"[global]\n{_lines(options)}\n[{cluster.stanza}]\n{_lines(stanza)}"
    )


def secrets(settings: Settings) -> str:
    """What opens the backups, and what opens the object storage."""
    sealing = HKDF(hashes.SHA256(), 32, None, b"pokerarena pgbackrest repository")
    options = {
        "repo1-cipher-pass": base64.b64encode(sealing.derive(settings.backup_key_bytes())).decode()
    }
    if settings.backup_bucket:
        options["repo1-s3-key"] = settings.backup_s3_access_key_id.get_secret_value()
        options["repo1-s3-key-secret"] = settings.backup_s3_secret_access_key.get_secret_value()
        if not all(options.values()):
            raise ConfigurationError(
                "POKERARENA_BACKUP_S3_ACCESS_KEY_ID and …_SECRET_ACCESS_KEY must both be set."
            )
    return f"[global]\n{_lines(options)}"


def server_settings(cluster: Cluster, directory: Path) -> str:
    """What PostgreSQL has to be told; a file for its `include`."""
    command = (
        f"pgbackrest --config={directory / CONFIGURATION} "
        f"--config-include-path={(directory / SECRETS).parent} --stanza={cluster.stanza}"
    )
    return (
        "# Made by `pokerarena backup pgbackrest-config`; include it in postgresql.conf.\n"
        "archive_mode = on\n"
        f"archive_command = '{command} archive-push %p'\n"
        "# A segment that is not full is archived after so long: what a disaster may cost.\n"
        f"archive_timeout = {ARCHIVE_TIMEOUT_S}\n"
    )


def _repository(settings: Settings) -> dict[str, str]:
    if not settings.backup_bucket:
        if not settings.backup_directory:
            raise ConfigurationError(
                "Neither POKERARENA_BACKUP_DIRECTORY nor POKERARENA_BACKUP_BUCKET is set: "
                "say where the backups go."
            )
        return {"repo1-type": "posix", "repo1-path": settings.backup_directory}
    bucket, _, prefix = settings.backup_bucket.partition("/")
    region = settings.backup_s3_region
    endpoint = urlsplit(settings.backup_s3_endpoint or f"https://s3.{region}.amazonaws.com")
    if endpoint.scheme != "https":
        raise ConfigurationError(
            "pgBackRest speaks to object storage by HTTPS only: "
            "correct POKERARENA_BACKUP_S3_ENDPOINT."
        )
    options = {
        "repo1-type": "s3",
        "repo1-path": f"/{prefix}",
        "repo1-s3-bucket": bucket,
        "repo1-s3-endpoint": endpoint.hostname or "",
        "repo1-s3-region": region,
        "repo1-s3-uri-style": "path" if settings.backup_s3_endpoint else "host",
        "repo1-storage-port": str(endpoint.port or _HTTPS_PORT),
        "io-timeout": str(math.ceil(settings.backup_s3_timeout_s)),
    }
    if settings.backup_s3_ca_file:
        options["repo1-storage-ca-file"] = settings.backup_s3_ca_file
    return options


def _lines(options: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in options.items())
