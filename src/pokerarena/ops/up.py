"""The whole arena on one machine: PostgreSQL, API, worker and agent-host, supervised by one process.

Owns: the order of start and stop, and the settings that one machine needs.
Must never: print anything but what scripts may read on stdout, or leave a process behind, however
it ends.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pokerarena.errors import ConfigurationError, Unavailable
from pokerarena.ops import migrate
from pokerarena.ops.data_directory import SECRET_NAMES, DataDirectory
from pokerarena.ops.embedded import SUPERUSER, EmbeddedPostgres
from pokerarena.ops.hosting import Hosting
from pokerarena.ops.kept_database import KeptDatabase
from pokerarena.ops.privileges import DatabaseRole
from pokerarena.ops.supervisor import Child

if TYPE_CHECKING:
    from pokerarena.ops.demo import Demo

# Made with the agent-host, and not in the data directory where there is none.
SERVICE_KEY: Final = "service_key"  # pragma: allowlist secret
# Who may put backups into object storage; from the caller's environment.
STORAGE_KEYS: Final = ("backup_s3_access_key_id", "backup_s3_secret_access_key")
# What each process that serves uses, and no more.
SECRETS_OF: Final = {
    "api": ("master_key", "token_pepper"),
    "worker": ("master_key", SERVICE_KEY),
    "backup": ("backup_key", *STORAGE_KEYS),
}
DATABASE_USERS: Final = {
    "api": DatabaseRole.API.value,
    "worker": DatabaseRole.WORKER.value,
    "backup": SUPERUSER,
}
BACKUPS_WANTED_BY: Final = ("POKERARENA_BACKUP_DIRECTORY", "POKERARENA_BACKUP_BUCKET")
HOST: Final = "127.0.0.1"
DATABASE: Final = "pokerarena"
READY_TIMEOUT_S: Final = 60.0
LOOK_AFTER_EVERY_S: Final = 0.2
API_STOP_PATIENCE_S: Final = 15.0
WORKER_STOP_PATIENCE_S: Final = 45.0
BACKUP_STOP_PATIENCE_S: Final = 30.0


class Arena:
    """Everything that `pokerarena up` runs."""

    def __init__(self, directory: DataDirectory, *, port: int, agent_host: bool) -> None:
        self.directory = directory
        self.port = port or _free_port()
        self.stopping = threading.Event()
        self.hurry = threading.Event()
        self._postgres = EmbeddedPostgres(directory.postgres)
        self._database = KeptDatabase(self._postgres)
        self._children: list[Child] = []
        self._relied_on: list[Child] = []
        self.hosting = Hosting(self, wanted=agent_host)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def database_url(self) -> str:
        return self._postgres.url(DATABASE)

    def environment(self, process: str) -> dict[str, str]:
        """The settings of one process: the caller's own, and what this machine needs.

        It gets its own address of the database, and of the secrets only those that it uses.
        """
        mine = SECRETS_OF[process]
        withheld = {
            f"POKERARENA_{name.upper()}{suffix}"
            for name in {*SECRET_NAMES, *STORAGE_KEYS, SERVICE_KEY} - {*mine}
            for suffix in ("", "_FILE")
        }
        return {
            # An arena on one's own machine plays agents on that machine.
            "POKERARENA_CALLBACK_ALLOW_PRIVATE": "true",
            "POKERARENA_PUBLIC_URL": self.address,
            # No balancer stands before it, which would have to notice.
            "POKERARENA_API_DRAIN_S": "0",
            "POKERARENA_BACKUP_SPOOL_DIRECTORY": str(self.directory.path / "wal-spool"),
            **{name: value for name, value in os.environ.items() if name not in withheld},
            **self.directory.secret_settings([name for name in mine if name in SECRET_NAMES]),
            **self.hosting.shared_settings(),
            **(self.hosting.settings() if process == "worker" else {}),
            "POKERARENA_DATABASE_URL": self._postgres.url(DATABASE, user=DATABASE_USERS[process]),
            "POKERARENA_API_HOST": HOST,
            "POKERARENA_API_PORT": str(self.port),
        }

    def start(self) -> None:
        """Returns once the API answers that it is ready, or once asked to stop."""
        _refuse_used_port(self.port)
        self._postgres.start()
        self._postgres.ensure_database(DATABASE)
        if self.stopping.is_set():
            return
        migrate.upgrade(self.database_url)
        # Stopped in this order: the worker finishes its hands while everything else is there.
        self.add("worker", ["worker"], stop_patience_s=WORKER_STOP_PATIENCE_S)
        api = self.add("api", ["api"], stop_patience_s=API_STOP_PATIENCE_S)
        if any(os.environ.get(name) for name in BACKUPS_WANTED_BY):
            self.add("backup", ["backup", "serve"], stop_patience_s=BACKUP_STOP_PATIENCE_S)
        # Nobody waits for it: the worker finds it when it is there.
        self.hosting.start()
        self._wait_until_ready(api)

    def add(self, name: str, command: Sequence[str], *, stop_patience_s: float) -> Child:
        """Starts one of this program's own roles as a child."""
        argv = [sys.executable, "-m", "pokerarena.ops.cli", *command]
        return self.add_program(name, argv, self.environment(name), stop_patience_s=stop_patience_s)

    def add_program(
        self,
        name: str,
        argv: Sequence[str],
        environment: dict[str, str],
        *,
        stop_patience_s: float,
        last: bool = False,
    ) -> Child:
        """Starts any program as a child; one that others rely on is stopped `last`."""
        child = Child(
            name,
            argv,
            log=self.directory.logs / f"{name}.log",
            environment=environment,
            stop_patience_s=stop_patience_s,
        )
        (self._relied_on if last else self._children).append(child)
        child.start()
        return child

    def look_after(self) -> None:
        """Keeps everything alive until asked to stop."""
        while not self.stopping.wait(LOOK_AFTER_EVERY_S):
            if self._database.keep_alive(say):
                self._start_over()
            for child in (*self._children, *self._relied_on):
                child.keep_alive(say)
            self.hosting.keep_alive(say)

    def stop(self) -> None:
        """Stops everything, the database last. Stopping what never started is no error."""
        try:
            self._stop_served()
            self.hosting.stop()
            for child in self._relied_on:
                child.stop(self.hurry)
        finally:
            self._postgres.stop()

    def _stop_served(self) -> None:
        for child in self._children:
            child.stop(self.hurry)
        self._children.clear()

    def _start_over(self) -> None:
        """The database has another address: whoever was told the old one has to be told anew."""
        say("the database has another address; starting everything again")
        self._stop_served()
        self.start()

    def _wait_until_ready(self, api: Child) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.stopping.wait(0.05):
            if _answers_ready(self.port):
                return
            if not api.running:
                raise Unavailable("api_failed", f"The API did not start: {api.reason()}.")
            if time.monotonic() > deadline:
                raise Unavailable("api_slow", f"The API is not ready in time: {api.reason()}.")


def run(data_dir: Path, *, port: int, demo: bool, agent_host: bool) -> None:
    """Runs the arena until a signal: the whole of `pokerarena up`."""
    arena = Arena(DataDirectory.open(data_dir), port=port, agent_host=agent_host)
    _stop_on_signals(arena)
    try:
        the_demo = _demo(arena) if demo else None
        if the_demo is not None:
            the_demo.prepare()
        arena.start()
        if arena.stopping.is_set():
            return
        print(f"ready {arena.address}", flush=True)
        if arena.hosting.obstacle is not None:
            say(f"no hosted agents here: {arena.hosting.obstacle}")
        if the_demo is not None:
            the_demo.begin()
        else:
            say(f"data in {arena.directory.path}; Ctrl-C stops it")
        arena.look_after()
    finally:
        if arena.stopping.is_set():
            say("stopping")
        arena.stop()


def _demo(arena: Arena) -> Demo:
    from pokerarena.ops.demo import Demo

    return Demo(arena)


def say(message: str) -> None:
    """A line for whoever watches the terminal; scripts read stdout."""
    print(message, file=sys.stderr, flush=True)


def _stop_on_signals(arena: Arena) -> None:
    def on_signal(_number: int, _frame: object) -> None:
        if arena.stopping.is_set():
            arena.hurry.set()
        arena.stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)


def _answers_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _refuse_used_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} cannot be used ({error.strerror}): choose another with --port, "
                "or 0 for any free one."
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
