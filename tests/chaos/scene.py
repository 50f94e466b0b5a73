"""Everything that a storm blows over: processes, a network, two small disks, and clocks.

Owns: starting it, starting again what a fault has ended, and what may be left at the end, which is
nothing. It breaks nothing by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Final

import psycopg
from pydantic import SecretStr

from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.ops.embedded_errors import EmbeddedPostgresError
from pokerarena.sandbox import cgroups
from pokerarena.sandbox.archive import pack, read_upload
from pokerarena.sandbox.home import CGROUP_PARENT
from pokerarena.service_identity.keys import ServiceName
from pokerarena.service_identity.rotation import publish
from tests.api.served import Server
from tests.arena import Arena, open_arena
from tests.database_server import UNSAFE_BUT_FAST, new_directory
from tests.namespaces import HUB_ADDRESS, Network, let_in_hosts
from tests.sandbox.conftest import shared_root_tree, upload
from tests.sandbox.hosts import Host
from tests.volumes import Volume, small_volume
from tests.worker.workers import SLOW_PLAYER, WorkerProcess, worker

# A commit that was told of must survive the database's immediate stop.
DURABLE: Final = {
    **UNSAFE_BUT_FAST,
    "synchronous_commit": "on",
    "listen_addresses": HUB_ADDRESS,
    "max_wal_size": "96MB",
    "min_wal_size": "32MB",
}
DISK_MIB: Final = 320
HOST_DISK_MIB: Final = 48
SILENCE_S: Final = 3
AGENT: Final = """
import time
def act(view):
    time.sleep(0.002)
    return view.check_or_call()
"""
FAKE_TIME: Final = "libfaketimeMT.so.1"


@dataclass
class Clock:
    """The wall clock of one worker: the machine's own, and as many seconds as this says."""

    file: Path
    library: Path

    @classmethod
    def make(cls, directory: Path) -> Clock:
        found = sorted(Path("/usr/lib").glob(f"**/faketime/{FAKE_TIME}"))
        assert found, "a storm sets clocks: install the package faketime"
        clock = cls(directory / "clock", found[0])
        clock.set(0)
        return clock

    def set(self, ahead_s: int) -> None:
        # Renamed into place: a reader never sees half of it.
        new = self.file.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}\n")
        new.rename(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """The monotonic clock is left alone: the kernel's never jumps, and leases go by it."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    @staticmethod
    def sweep() -> None:
        """Remove what the library shares within a process, and leaves behind when that is killed."""
        for path in Path("/dev/shm").glob("*faketime_*"):
            if not Path(f"/proc/{path.name.rpartition('_')[2]}").exists():
                path.unlink(missing_ok=True)


class Scene:
    """One database, one API, one agent-host, and three workers.

    The first worker is on the database's machine. The second one, too, with a clock of its own. The
    third one reaches the database over the network only.
    """

    WORKERS: Final = 3

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.directory = stack.enter_context(new_directory())
        self.directory.chmod(0o755)
        self.network = stack.enter_context(Network(1))
        self.disk: Volume = stack.enter_context(small_volume(self.directory / "disk", DISK_MIB))
        self.host_disk: Volume = stack.enter_context(
            small_volume(self.directory / "host-disk", HOST_DISK_MIB)
        )
        self.host_disk.path.chmod(0o755)
        self.clock = Clock.make(self.directory)
        # When the workers have ended: they are entered later, and so left earlier.
        stack.callback(self.clock.sweep)
        self.postgres = EmbeddedPostgres(self.disk.path / "pg", settings=DURABLE)
        stack.callback(self.postgres.stop)
        self.start_database()
        self.postgres.ensure_database("pokerarena")
        migrate.upgrade(self.postgres.url())
        self._network_url = let_in_hosts(self.postgres)
        self._root_tree = shared_root_tree()
        self._public_keys = self.host_disk.path / "service-keys.json"
        for service, name in ((ServiceName.WORKER, "worker"), (ServiceName.AGENT_HOST, "host")):
            publish(service, self.host_disk.path / f"{name}.pem", self._public_keys)
        self.host = self._start_host()
        self._instances: set[str] = set()
        self.workers: list[WorkerProcess] = []
        self.arena: Arena
        self.server: Server

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Arena]:
        """The arena in it, with an API; workers are started apart."""
        async with open_arena(
            self.postgres.url(),
            run_recoveries_max=50,
            commit_retry_s=30,
            runs_active_per_user_max=1000,
            run_lease_s=3.0,
            run_lease_renew_s=0.7,
            database_silence_s=SILENCE_S,
            agent_host_wait_s=60.0,
            agent_hosts=(f"one={self.host.socket}",),
            service_key=(self.host_disk.path / "worker.pem").read_text(),
            service_public_keys=self._public_keys.read_text(),
        ) as arena:
            self.arena = arena
            self.start_api()
            yield arena

    # -- starting and starting again ----------------------------------------------------------

    def start_database(self) -> None:
        """In its namespace; again and again where its disk was full only just now."""
        give_up_s = time.monotonic() + 60
        while not self.postgres.running:
            try:
                self.postgres.stop()
                with self.network.hub.entered():
                    self.postgres.start()
            except (EmbeddedPostgresError, OSError):
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.2)

    def start_worker(self, at: int) -> WorkerProcess:
        """The worker of this place, in place of the one before."""
        settings = self.arena.settings
        environment = {"HOUSE_DELAY_S": "0.003"}
        prefix: Sequence[str] = ()
        if at == 1:
            environment |= self.clock.environment
        if at == 2:
            prefix = self.network.hosts[0].prefix
            settings = settings.model_copy(update={"database_url": SecretStr(self._network_url)})
        process = self._stack.enter_context(
            worker(settings, self.directory, player=SLOW_PLAYER, prefix=prefix, **environment)
        )
        self.workers[at : at + 1] = [process]
        return process

    def start_api(self) -> None:
        server = Server(
            self.postgres.url(),
            POKERARENA_LOG_LEVEL="ERROR",
            POKERARENA_TABLES_PER_USER_MAX="1000000",
        )

        def end() -> None:
            server.process.kill()
            server.process.communicate()

        self._stack.callback(end)
        self.server = server

    def start_host(self) -> None:
        """Another agent-host in place of one that was killed."""
        self.host = self._start_host()

    def _start_host(self) -> Host:
        host = Host(self.host_disk.path, self._root_tree, "one")
        self._stack.callback(host.end)
        host.wait_ready()
        # It says why it refuses whom; nobody else takes that from the pipe.
        assert host.process.stderr is not None
        Thread(target=_drain, args=(host.process.stderr,), daemon=True).start()
        return host

    # -- hosted agents ------------------------------------------------------------------------

    def store_package(self) -> None:
        """Give every hosted version an agent that can really be played."""
        package = read_upload(upload(AGENT, max_in_flight=4), "agent")
        packed, digest = pack(package), bytes.fromhex(package.digest)
        with psycopg.connect(self.postgres.conninfo(), autocommit=True) as database:
            database.execute(
                "INSERT INTO agent_packages (digest, bytes, size) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (digest, packed, len(packed)),
            )
            database.execute(
                "UPDATE agent_versions SET package_digest = %s, package_size = %s"
                " WHERE kind = 'hosted' AND package_digest <> %s",
                (digest, len(packed), digest),
            )

    def note_sandboxes(self) -> None:
        """Remember the homes that there are, to look for them at the end."""
        with suppress(OSError):
            base = self.host_disk.path / "base-one"
            self._instances |= {path.name for path in base.iterdir() if path.name[0] != "."}

    # -- what is left -------------------------------------------------------------------------

    async def left_over(self) -> list[str]:
        """Whatever is still there once every process was ended; waits for what is on its way."""
        give_up_s = time.monotonic() + 30
        while found := await self._find():
            if time.monotonic() > give_up_s:
                break
            await asyncio.sleep(0.2)
        return found

    async def _find(self) -> list[str]:
        found = [
            f"connection {row[0]}"
            for row in await self.arena.rows(
                "SELECT application_name FROM pg_stat_activity"
                " WHERE application_name LIKE 'pokerarena%'"
            )
        ]
        layout = cgroups.detect()
        for instance in self._instances:
            found += map(str, cgroups.leftovers(layout, f"{CGROUP_PARENT}/{instance}"))
        base = self.host_disk.path / "base-one"
        found += [f"sandbox {path}" for path in (base.iterdir() if base.exists() else ())]
        mounts = Path("/proc/self/mountinfo").read_text()
        found += [f"mount {line}" for line in mounts.splitlines() if str(base) in line]
        return found


def _drain(stream: IO[str]) -> None:
    # The storm closes it when the host has ended.
    with suppress(ValueError):
        while stream.read(65_536):
            pass
