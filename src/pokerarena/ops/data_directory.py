"""The one directory in which `pokerarena up` keeps everything.

Owns: where it is, what lies where in it, and the secrets that were generated for it.
Must never: trust a directory that somebody else owns or can write to, or show a secret.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pokerarena.errors import ConfigurationError
from pokerarena.ops import system_user
from pokerarena.settings import Settings, load_settings

SECRET_BYTES: Final = 32
SECRET_NAMES: Final = ("master_key", "token_pepper", "backup_key")


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A directory that is there, ours, and closed to others."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> DataDirectory:
        """Makes the directory and its secrets unless they are there."""
        path = path.expanduser().absolute()
        if os.geteuid() == 0:
            system_user.ensure(system_user.NAME)
        _make(path)
        directory = cls(path)
        directory.secrets.mkdir(mode=0o700, exist_ok=True)
        directory.logs.mkdir(mode=0o700, exist_ok=True)
        for name in SECRET_NAMES:
            _make_secret(directory.secrets / name)
        return directory

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def secret_settings(self, names: Sequence[str]) -> dict[str, str]:
        """The environment that points the program to secrets, without showing them."""
        files = {name: str(self.secrets / name) for name in names}
        return {f"POKERARENA_{name.upper()}_FILE": file for name, file in files.items()}


def default_directory() -> Path:
    """Where data goes when nobody says: never under root's home, which stays closed."""
    if os.geteuid() == 0:
        return Path("/var/lib/pokerarena")
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "pokerarena"


def demo_directory() -> Path:
    """`.data/demo` where the caller stands, or a place that the database's system user can reach."""
    wanted = Path.cwd() / ".data" / "demo"
    if os.geteuid() != 0:
        return wanted
    system_user.ensure(system_user.NAME)
    if system_user.obstacle_for(system_user.NAME, wanted) is None:
        return wanted
    mark = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:10]
    return Path("/var/tmp") / f"pokerarena-{mark}"  # noqa: S108 - checked for its owner before use


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    building = path.with_name(path.name + ".new")
    building.unlink(missing_ok=True)
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def _make(path: Path) -> None:
    as_root = os.geteuid() == 0
    # Root's database runs as another user, who has to walk through but need not look around.
    mode = 0o711 if as_root else 0o700
    for step in reversed([path, *path.parents]):
        if not step.exists() and not step.is_symlink():
            try:
                step.mkdir()
            except OSError as error:
                raise ConfigurationError(
                    f"The data directory {path} cannot be made ({error.strerror}): "
                    "choose another --data-dir."
                ) from None
            step.chmod(mode)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{path} is no directory: choose another --data-dir.")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ConfigurationError(
            f"The data directory {path} belongs to somebody else or is open for others to write: "
            "choose another --data-dir, or correct its owner and mode."
        )


def _make_secret(path: Path) -> None:
    if not path.exists():
        write_private(path, base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode() + "\n")


def settings_of(data_dir: Path | None) -> Settings:
    """The settings of the arena in this directory, or those of the environment.

    Raises `ConfigurationError`. The arena need not run; where it does, its database is named.
    """
    if data_dir is None:
        return load_settings()
    path = data_dir.expanduser().absolute()
    if not (path / "secrets").is_dir():
        raise ConfigurationError(f"{path} is not the data directory of an arena.")
    directory = DataDirectory(path)
    values: dict[str, str] = {}
    for name in SECRET_NAMES:
        try:
            values[name] = (directory.secrets / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue  # made by a release that had no such secret
    try:
        lines = (directory.postgres / "postmaster.pid").read_text().splitlines()
        socket_directory = lines[4]
    except (OSError, IndexError):
        socket_directory = str(directory.postgres)
    host = quote(socket_directory, safe="")
    return load_settings(
        database_url=f"postgresql+psycopg://postgres@/pokerarena?host={host}",
        backup_spool_directory=str(path / "wal-spool"),
        **values,
    )
