"""A real PostgreSQL of one's own, from the binaries that a wheel ships.

Owns: the life of one database cluster in one directory: create, start, stop, recover from a crash
of whoever ran it before. The wheel's own process tracking is not used (and the package is never
imported): it keeps a server alive for ever after a stale process id, and its lock file in the
temporary directory belongs to whichever user came first.
Must never: listen on a network address, run the server as root, change the permissions of a
directory it did not make, or leave a process behind.

Two processes cannot own one directory: the owner holds a kernel file lock beside it, which ends
with the owner however it dies. The server itself is tethered to the owner (see tether.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from pokerarena.ops import postgres_programs, system_user, tether
from pokerarena.ops.embedded_errors import AlreadyRunning, EmbeddedPostgresError

SUPERUSER: Final = "postgres"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
# sun_path holds 108 bytes, the socket's own name takes 16 of them.
MAX_SOCKET_DIRECTORY_BYTES: Final = 88
NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})

_BASE_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_compression": "pglz",
    "max_wal_size": "2GB",
    # A backup that stopped receiving must not fill the disk with what it did not fetch.
    "max_slot_wal_keep_size": "8GB",
    "log_destination": "stderr",
    "logging_collector": "on",
    # One file for each day of the week, overwritten a week later: bounded without any care.
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """One PostgreSQL cluster in `data_dir`, served on a socket while it is started."""

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self._settings = {**_BASE_SETTINGS, **settings}
        self._start_timeout_s = start_timeout_s
        self.last_socket_dir: Path | None = None
        self._system_user = system_user.NAME if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_fd: int | None = None
        self._socket_dir: Path | None = None

    # -- life ---------------------------------------------------------------------------------

    def start(self, *, timeout_s: float | None = None) -> None:
        """Creates the cluster if need be, and serves it. Raises AlreadyRunning if another does."""
        if self.running:
            return
        self._prepare_directories()
        self._take_lock()
        try:
            programs = self._programs()
            self._stop_left_over()
            self._init(programs)
            self._launch(programs, timeout_s or self._start_timeout_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server and waits until it has gone. Stopping twice is no error."""
        process, self._process = self._process, None
        try:
            if process is not None:
                _end(process)
        finally:
            if self._socket_dir is not None and self._socket_dir != self.data_dir:
                shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs under this object."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- addresses ----------------------------------------------------------------------------

    @property
    def socket_dir(self) -> Path:
        if self._socket_dir is None:
            raise EmbeddedPostgresError("The embedded database has no address yet: start it first.")
        return self._socket_dir

    def url(self, database: str = "pokerarena", *, user: str = SUPERUSER) -> str:
        """The address as SQLAlchemy wants it."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql+psycopg://{quote(user)}@/{quote(database)}?host={host}"

    def conninfo(self, database: str = "pokerarena", *, user: str = SUPERUSER) -> str:
        """The address as libpq and psycopg want it."""
        return psycopg.conninfo.make_conninfo(
            host=str(self.socket_dir), dbname=database, user=user, connect_timeout=10
        )

    def ensure_database(self, name: str) -> None:
        """Creates the database unless it is there."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            if (
                connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", (name,)
                ).fetchone()
                is None
            ):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def program(self, name: str) -> Path:
        """The path of one of the server's own programs: psql, pg_dump, pg_basebackup and so on."""
        return self._programs() / name

    def _programs(self) -> Path:
        copy = self.data_dir.with_name(self.data_dir.name + "-programs")
        return postgres_programs.directory(user=self._system_user, copy_to=copy)

    # -- steps of start -----------------------------------------------------------------------

    def _prepare_directories(self) -> None:
        if self._system_user is not None:
            system_user.ensure(self._system_user)
        parent = self.data_dir.parent
        for step in reversed([parent, *parent.parents]):
            if not step.exists():
                step.mkdir()
                # Whatever the caller's umask says: the system user must be able to walk through.
                step.chmod(0o711 if self._system_user is not None else 0o700)
        if self._system_user is not None:
            obstacle = system_user.obstacle_for(self._system_user, parent)
            if obstacle is not None:
                raise EmbeddedPostgresError(
                    f"The database's system user {self._system_user} cannot enter {obstacle}, so "
                    f"it cannot keep data in {self.data_dir}: choose another --data-dir, "
                    "for example under /var/lib."
                )
        version = self.data_dir / "PG_VERSION"
        made_by = version.read_text().strip() if version.exists() else str(postgres_programs.MAJOR)
        if made_by != str(postgres_programs.MAJOR):
            raise EmbeddedPostgresError(
                f"{self.data_dir} was made by PostgreSQL {made_by}, this program brings "
                f"{postgres_programs.MAJOR}: dump it with the old version and restore it "
                "into a new directory."
            )

    def _take_lock(self) -> None:
        path = self.data_dir.with_name(self.data_dir.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise AlreadyRunning(
                f"The database in {self.data_dir} is already served by process {owner}: "
                "stop that first, or choose another --data-dir."
            ) from None
        self._lock_fd = descriptor
        # Only for the message above: a full disk must not keep the owner from its own database.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    def _stop_left_over(self) -> None:
        """Ends a server whose owner died, and drops a process id that now belongs to a stranger.

        Only called with the lock in hand: no living owner can be disturbed.
        """
        pid_file = self.data_dir / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        if not _alive(pid):
            return  # PostgreSQL recognises a dead owner itself, and recovers
        if not _is_server_of(pid, self.data_dir):
            # The id was given to another program since: the server would refuse to start over it.
            pid_file.unlink(missing_ok=True)
            return
        for way_out, patience_s in (
            (signal.SIGINT, STOP_TIMEOUT_S),
            (signal.SIGQUIT, 10.0),
            (signal.SIGKILL, 10.0),
        ):
            os.kill(pid, way_out)
            if _wait_until(lambda: not _alive(pid), patience_s):
                return
        raise EmbeddedPostgresError(
            f"An old database server (process {pid}) in {self.data_dir} does not end."
        )

    def _init(self, programs: Path) -> None:
        if (self.data_dir / "PG_VERSION").exists():
            return
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise EmbeddedPostgresError(
                f"{self.data_dir} holds files but no database: empty it, "
                "or choose another --data-dir."
            )
        # Built aside and renamed, so that a crash in the middle never looks like a database.
        building = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o700)
        if self._system_user is not None:
            shutil.chown(building, self._system_user, pwd.getpwnam(self._system_user).pw_gid)
        arguments = [
            str(programs / "initdb"),
            f"--pgdata={building}",
            f"--username={SUPERUSER}",
            # The socket's directory lets nobody in but the server's own user and root.
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        if self._settings.get("fsync") == "off":
            arguments.append("--no-sync")
        done = subprocess.run(
            tether.command(arguments, death_signal=signal.SIGTERM, user=self._system_user),
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(building, ignore_errors=True)
            raise EmbeddedPostgresError(
                f"The database could not be created: {_last_line(done.stderr)}"
            )
        if self.data_dir.exists():
            self.data_dir.rmdir()
        building.rename(self.data_dir)

    def _launch(self, programs: Path, timeout_s: float) -> None:
        self._socket_dir = self.last_socket_dir = self._place_socket()
        settings = {**self._settings, "unix_socket_directories": str(self._socket_dir)}
        arguments = [str(programs / "postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        with tempfile.TemporaryFile() as first_words:
            self._process = subprocess.Popen(
                # SIGINT is PostgreSQL's fast and clean shutdown.
                tether.command(arguments, death_signal=signal.SIGINT, user=self._system_user),
                cwd="/",
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=first_words,
                stderr=first_words,
                start_new_session=True,  # Ctrl-C belongs to the owner, who stops the server last
            )
            if _wait_until(lambda: self._ready() or not self.running, timeout_s) and self.running:
                return
            first_words.seek(0)
            said = _last_line(first_words.read().decode(errors="replace"))
        raise EmbeddedPostgresError(
            f"The database in {self.data_dir} did not start: {said or 'no reason given'} "
            f"(its log is in {self.data_dir / 'log'})."
        )

    def _ready(self) -> bool:
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return (
            self._process is not None
            and len(lines) > 7
            and lines[0].strip() == str(self._process.pid)
            and lines[7].strip() == "ready"
        )

    def _place_socket(self) -> Path:
        if len(os.fsencode(self.data_dir)) <= MAX_SOCKET_DIRECTORY_BYTES and "," not in str(
            self.data_dir
        ):
            return self.data_dir
        # A fresh name each time: nobody can have put anything there before us.
        directory = Path(tempfile.mkdtemp(prefix="pokerarena-", dir="/tmp"))
        if self._system_user is not None:
            shutil.chown(directory, self._system_user, pwd.getpwnam(self._system_user).pw_gid)
        return directory


def _environment() -> dict[str, str]:
    """Nothing of the caller's environment: it may hold secrets, or settings meant for others."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _end(process: subprocess.Popen[Any]) -> None:
    for way_out, patience_s in (
        (signal.SIGINT, STOP_TIMEOUT_S),
        (signal.SIGQUIT, 10.0),
        (signal.SIGKILL, 10.0),
    ):
        if process.poll() is not None:
            return
        process.send_signal(way_out)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
        return


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A zombie still has its number but serves nobody.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def _is_server_of(pid: int, data_dir: Path) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        done = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)],  # noqa: S607 - systems without /proc
            capture_output=True,
            check=False,
        )
        arguments = done.stdout.split()
    return bool(arguments) and b"postgres" in arguments[0] and os.fsencode(data_dir) in arguments


def _wait_until(condition: Any, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
