"""The data directory is ours alone, keeps its secrets, and lies where the database can reach it."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pokerarena.errors import ConfigurationError
from pokerarena.ops import data_directory, system_user
from pokerarena.ops.data_directory import SECRET_NAMES, DataDirectory
from tests.database_server import new_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with new_directory() as path:
        yield path


def test_secrets_are_made_once_and_readable_by_nobody_else(directory: Path) -> None:
    first = DataDirectory.open(directory / "data")
    kept = {name: (first.secrets / name).read_text() for name in SECRET_NAMES}
    for name, text in kept.items():
        assert len(base64.b64decode(text)) == 32
        assert (first.secrets / name).stat().st_mode & 0o077 == 0
    assert len(set(kept.values())) == len(SECRET_NAMES)
    again = DataDirectory.open(directory / "data")
    assert {name: (again.secrets / name).read_text() for name in SECRET_NAMES} == kept


def test_the_environment_names_the_secrets_and_does_not_hold_them(directory: Path) -> None:
    data = DataDirectory.open(directory / "data")
    settings = data.secret_settings(["master_key"])
    assert set(settings) == {"POKERARENA_MASTER_KEY_FILE"}
    assert settings["POKERARENA_MASTER_KEY_FILE"] == str(data.secrets / "master_key")
    held = {(data.secrets / name).read_text().strip() for name in SECRET_NAMES}
    assert not held & set(settings.values())


def test_a_strict_umask_does_not_lock_the_database_out(directory: Path) -> None:
    before = os.umask(0o077)
    try:
        data = DataDirectory.open(directory / "a" / "b")
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        assert system_user.obstacle_for(system_user.NAME, data.postgres) is None


def test_a_directory_that_others_may_write_to_is_refused(directory: Path) -> None:
    open_to_all = directory / "data"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(ConfigurationError, match="open for others to write"):
        DataDirectory.open(open_to_all)


def test_a_link_to_elsewhere_is_refused(directory: Path) -> None:
    (directory / "elsewhere").mkdir()
    (directory / "data").symlink_to(directory / "elsewhere")
    with pytest.raises(ConfigurationError, match="is no directory"):
        DataDirectory.open(directory / "data")


def test_the_demo_goes_where_the_database_can_reach_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = directory / "home" / "checkout"
    closed.mkdir(parents=True)
    monkeypatch.chdir(closed)
    assert data_directory.demo_directory() == closed / ".data" / "demo"
    closed.parent.chmod(0o700)
    chosen = data_directory.demo_directory()
    if os.geteuid() == 0:
        assert chosen.parent == Path("/var/tmp")
        assert chosen == data_directory.demo_directory(), "the second time finds the first's data"
    else:
        assert chosen == closed / ".data" / "demo"
