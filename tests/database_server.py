"""The one PostgreSQL of a test session, shared by all pytest processes.

Owns: a server that starts when the first test asks for a database, a template that is migrated
once, and the socket on which pytest-xdist's workers ask the controlling process for both. Only the
controlling process starts and stops the server, so no test process can leave it behind; a killed
controller takes it along (see pokerarena.ops.tether).
Must never: be used outside tests; the server runs without fsync.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.ops.privileges import DatabaseRole

TEMPLATE = "pokerarena_template"
UNSAFE_BUT_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


class DatabaseServer:
    """Started lazily by the controlling process, stopped at the end of its session."""

    def __init__(self) -> None:
        self._directory = _make_directory()
        self._postgres = EmbeddedPostgres(self._directory / "pg", settings=UNSAFE_BUT_FAST)
        self._start_lock = threading.Lock()
        self._closed = False
        self._listener: socket.socket | None = None

    def conninfo(self) -> str:
        """The server's address, without a database's name; starts it at the first call."""
        with self._start_lock:
            if self._closed:
                raise RuntimeError("the test session is over")
            if not self._postgres.running:
                self._postgres.start()
                self._postgres.ensure_database(TEMPLATE)
                migrate.upgrade(self._postgres.url(TEMPLATE))
            return str(self._postgres.socket_dir)

    def listen(self) -> Path:
        """Opens the socket on which workers ask for the server's address."""
        path = self._directory / "ask"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._answer, name="database-server", daemon=True).start()
        return path

    def _answer(self) -> None:
        listener = self._listener
        assert listener is not None
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            with connection:
                try:
                    answer = {"socket_dir": self.conninfo()}
                except Exception as error:  # the worker's test shall fail with the reason
                    answer = {"error": f"{type(error).__name__}: {error}"}
                connection.sendall(json.dumps(answer).encode())

    def close(self) -> None:
        with self._start_lock:
            self._closed = True
            self._postgres.stop()
        if self._listener is not None:
            self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def ask_controller(path: str) -> str:
    """The server's socket directory, asked from the controlling process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(120)
        connection.connect(path)
        answer = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
    if "error" in answer:
        raise RuntimeError(f"the test database did not start: {answer['error']}")
    return str(answer["socket_dir"])


def as_role(database_url: str, role: DatabaseRole) -> str:
    """The address of the same database for one of the roles that serve."""
    return make_url(database_url).set(username=role.value).render_as_string(hide_password=False)


@contextmanager
def new_directory() -> Iterator[Path]:
    """A directory for a database cluster of a test's own; gone afterwards."""
    path = _make_directory()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _make_directory() -> Path:
    path = Path(tempfile.mkdtemp(prefix="pokerarena-test-", dir=_reachable_by_all()))
    path.chmod(0o711)
    return path


def _reachable_by_all() -> str:
    """A temporary directory that the database's system user can enter when root runs the tests."""
    for candidate in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        path = Path(candidate).resolve()
        if os.geteuid() != 0 or all(step.stat().st_mode & 0o001 for step in [path, *path.parents]):
            return candidate
    raise RuntimeError("no temporary directory is open to the database's system user")
