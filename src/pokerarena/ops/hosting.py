"""The agent-host of an arena on one machine, with its egress proxy: whether there can be one, its
keys, its place.

Owns: what it is given, which is its own key, the public keys and folders of its own, and what the
worker is told.
Must never: give it a setting, a secret, or the sight of the database's folder; or stop the arena for
want of it: everything but hosted agents works without.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pokerarena.errors import ArenaError, Unavailable
from pokerarena.ops import system_user
from pokerarena.ops.embedded_errors import EmbeddedPostgresError
from pokerarena.ops.supervisor import Child
from pokerarena.sandbox import cgroups, rootfs
from pokerarena.sandbox.confinement import clean_environment
from pokerarena.sandbox.local import DEFAULT_ROOTFS
from pokerarena.sandbox.runtime import Runtime, RuntimeName, find_runtime, runtimes_here
from pokerarena.service_identity.keys import ServiceName
from pokerarena.service_identity.rotation import publish

if TYPE_CHECKING:
    from pokerarena.ops.up import Arena

NAME: Final = "local"
EGRESS_USER: Final = "nobody"
# Who runs agents: nobody else, and nothing else, is this user.
USER: Final = "pokerarena-host"
# What lies in the data directory and is no business of an agent-host.
HIDDEN: Final = ("postgres", "secrets", "logs", "wal-spool")
RUNTIMES_SETTING: Final = "POKERARENA_SANDBOX_RUNTIMES"
STOP_PATIENCE_S: Final = 20.0
# The longest address of a UNIX socket, less the suffix of its companion.
SOCKET_PATH_MAX_BYTES: Final = 100


class Hosting:
    """The agent-host in one data directory, where there can be one."""

    def __init__(self, arena: Arena, *, wanted: bool) -> None:
        self._arena = arena
        self._wanted = wanted
        self._folder = arena.directory.path / "agent-host"
        # Its own alone: it makes its socket when it is no longer root.
        self._socket = self._folder / "run" / "host.sock"
        self._worker_key = arena.directory.secrets / "worker-key.pem"
        self._host_key = self._folder / "key.pem"
        self._public_keys = self._folder / "service-keys.json"
        self._egress = self._folder / "egress.sock"
        self._child: Child | None = None
        self._proxy: Child | None = None
        self.runtimes: list[str] = []
        self.obstacle = self._obstacle() if wanted else None
        if self.possible:
            self._folder.mkdir(mode=0o711, exist_ok=True)
            self._make_keys()

    @property
    def possible(self) -> bool:
        """Whether there is to be an agent-host, and can be."""
        return self._wanted and self.obstacle is None

    def shared_settings(self) -> dict[str, str]:
        """What every process of the arena may know: which runtimes a table may name."""
        return {RUNTIMES_SETTING: ",".join(self.runtimes)} if self.possible else {}

    def settings(self) -> dict[str, str]:
        """What the worker is told; nothing where there is no agent-host."""
        if not self.possible:
            return {}
        return {
            "POKERARENA_AGENT_HOSTS": f"{NAME}={self._socket}",
            "POKERARENA_SERVICE_KEY_FILE": str(self._worker_key),
            "POKERARENA_SERVICE_PUBLIC_KEYS_FILE": str(self._public_keys),
        }

    def start(self) -> None:
        """Starts it. The first time it builds the sandboxes' root file system before it serves."""
        if not self.possible or self._child is not None:
            return
        self._proxy = self._start(
            "egress-proxy",
            *("--name", NAME, "--public-keys", str(self._public_keys)),
            *("--socket", str(self._egress)),
            # It needs no right of root's once it listens.
            *("--user", EGRESS_USER, "--group", USER),
        )
        self._socket.parent.mkdir(mode=0o711, exist_ok=True)
        shutil.chown(self._socket.parent, USER, USER)
        # It reads its key again when that is replaced, as the user that it is by then.
        shutil.chown(self._host_key, USER, USER)
        self._child = self._start(
            "agent-host",
            *("--name", NAME, "--key", str(self._host_key)),
            *("--public-keys", str(self._public_keys), "--socket", str(self._socket)),
            *("--rootfs", str(self._rootfs()), "--build-rootfs"),
            *("--store", str(self._folder / "packages"), "--user", USER),
            *("--egress-proxy", str(self._egress)),
            *(f"--runtime={name}" for name in self.runtimes),
            *(f"--hide={self._arena.directory.path / name}" for name in HIDDEN),
        )

    def _start(self, name: str, *options: str) -> Child:
        child = Child(
            name,
            [sys.executable, "-m", "pokerarena.ops.cli", name, *options],
            log=self._arena.directory.logs / f"{name}.log",
            environment=clean_environment(os.environ),
            stop_patience_s=STOP_PATIENCE_S,
        )
        child.start()
        return child

    def keep_alive(self, say: Callable[[str], None]) -> None:
        """Starts each again if it ended; gives it up, and nothing else, when it keeps ending."""
        try:
            if self._child is not None:
                self._child.keep_alive(say)
        except Unavailable as error:
            say(f"{error.message} The arena goes on without hosted agents.")
            self._child = None
        try:
            if self._proxy is not None:
                self._proxy.keep_alive(say)
        except Unavailable as error:
            say(f"{error.message} The arena goes on without egress of hosted agents.")
            self._proxy = None

    def stop(self) -> None:
        """Stops it; with it end all sandboxes."""
        for child in (self._child, self._proxy):
            if child is not None:
                child.stop(self._arena.hurry)
        self._child = self._proxy = None

    def _make_keys(self) -> None:
        """A key each, and the set of both: all of them anew where one is missing."""
        files = (self._worker_key, self._host_key, self._public_keys)
        if all(file.exists() for file in files):
            return
        for file in files:
            file.unlink(missing_ok=True)
        publish(ServiceName.WORKER, self._worker_key, self._public_keys)
        publish(ServiceName.AGENT_HOST, self._host_key, self._public_keys)

    def _obstacle(self) -> str | None:
        asked = os.environ.get(RUNTIMES_SETTING)
        try:
            cgroups.detect()
            if asked:
                # What somebody has chosen is there, or hosted agents are not.
                names = [name.strip() for name in asked.split(",") if name.strip()]
                self.runtimes = [find_runtime(RuntimeName(name)).name.value for name in names]
            else:
                here = runtimes_here()
                self.runtimes = [name.value for name, at in here.items() if isinstance(at, Runtime)]
                if not self.runtimes:
                    find_runtime()
            system_user.ensure(USER)
        except (ArenaError, EmbeddedPostgresError, ValueError) as error:
            return str(error)
        if len(os.fsencode(self._socket)) > SOCKET_PATH_MAX_BYTES:
            return f"The path {self._socket} is too long for a socket; use a shorter --data-dir."
        return None

    def _rootfs(self) -> Path:
        given = os.environ.get("POKERARENA_SANDBOX_ROOTFS")
        if given:
            return Path(given)
        own = self._arena.directory.path / "rootfs"
        # One that this machine has already is as good as one of its own.
        return own if own.exists() or rootfs.check_record(DEFAULT_ROOTFS) else DEFAULT_ROOTFS
