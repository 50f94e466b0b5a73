"""Real sandboxes for tests: the shared root file system, a store, a home, and hostile agents.

Nothing here skips. Where a runtime is missing the fixture fails and says what to install.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import pokerarena_sdk
from pokerarena.agents.player import Failure, Reply
from pokerarena.egress.lines import EgressLines
from pokerarena.errors import Unavailable
from pokerarena.sandbox import cgroups, rootfs, rootfs_files
from pokerarena.sandbox.archive import read_upload
from pokerarena.sandbox.home import CGROUP_PARENT, SandboxHome
from pokerarena.sandbox.limits import MIB, SandboxLimits
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import SandboxLauncher
from pokerarena.sandbox.runtime import Runtime, RuntimeName, find_runtime
from pokerarena.sandbox.store import AgentStore
from pokerarena_sdk.practice import positions

CALLBACK = next(positions())[1]
UNUSED_S = 3 * 86_400
# Small, so that an attack meets its bound at once and the machine is shared fairly.
TIGHT = SandboxLimits(
    cpu_per_callback_ms=300, memory_bytes=64 * MIB, pids_max=16, tmp_bytes=4 * MIB, restarts_max=2
)


@pytest.fixture(scope="session")
def root_tree() -> Path:
    return shared_root_tree()


def shared_root_tree() -> Path:
    """The root file system, built once for these sources and kept where any user may pass."""
    sources = [Path(rootfs.__file__), Path(rootfs_files.__file__)]
    sources += sorted(Path(pokerarena_sdk.__file__).parent.glob("*.py"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    cache = Path("/var/tmp/pokerarena-test-rootfs")
    cache.mkdir(mode=0o755, exist_ok=True)
    target = cache / key
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if rootfs.verify(target) is not None:
            rootfs.build(target)
        # Others may be running the tests of other sources: only what is long unused goes.
        os.utime(target)
        for old in cache.iterdir():
            if old.is_dir() and old.stat().st_mtime < time.time() - UNUSED_S:
                shutil.rmtree(old)
    return target / rootfs.ROOT


def need(name: RuntimeName) -> Runtime:
    try:
        return find_runtime(name)
    except Unavailable as error:
        pytest.fail(f"these tests run real sandboxes: {error}")


@pytest.fixture(scope="session")
def runc() -> Runtime:
    return need(RuntimeName.RUNC)


@pytest.fixture(scope="session")
def runsc() -> Runtime:
    return need(RuntimeName.RUNSC)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that the users of sandboxes may pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="pokerarena-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def store(open_folder: Path) -> AgentStore:
    return AgentStore(open_folder / "store")


@pytest.fixture
def home(root_tree: Path, runc: Runtime, open_folder: Path) -> Iterator[SandboxHome]:
    made = SandboxHome(runc, root_tree, open_folder / "home")
    yield made
    # Before closing, which would sweep: each sandbox must have cleaned up after itself.
    assert traces(made) == []
    made.close()
    assert_nothing_left(made)


@pytest.fixture
def gvisor_home(root_tree: Path, runsc: Runtime, open_folder: Path) -> Iterator[SandboxHome]:
    made = SandboxHome(runsc, root_tree, open_folder / "home")
    yield made
    # Before closing, which would sweep: each sandbox must have cleaned up after itself.
    assert traces(made) == []
    made.close()
    assert_nothing_left(made)


def traces(home: SandboxHome) -> list[str]:
    """Everything of a home's sandboxes that can still be found on this machine."""
    found = []
    found += [
        f"cgroup {path}"
        for path in cgroups.leftovers(home.layout, f"{CGROUP_PARENT}/{home.instance}")
    ]
    mounts = Path("/proc/self/mountinfo").read_text()
    if home.instance in mounts or str(home.folder) in mounts:
        found.append("mount")
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                where = (process / "cgroup").read_text()
                command = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if home.instance in where or home.instance in command:
                found.append(f"process {process.name} {command}")
    for folder in ("bundles", "state", "out"):
        if (home.folder / folder).is_dir():
            found += [f"file {path}" for path in (home.folder / folder).iterdir()]
    return found


def assert_nothing_left(home: SandboxHome) -> None:
    assert traces(home) == []
    assert not home.folder.exists()


def descriptors() -> list[str]:
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.append(f"{fd.name} {fd.readlink()}")
        except OSError:
            continue
    return found


class Hosted:
    """A hosted player and short ways to ask it."""

    def __init__(self, player: HostedPlayer) -> None:
        self.player = player
        self._asked = 0

    def line(self, **fields: Any) -> tuple[str, bytes]:
        self._asked += 1
        decision_id = f"decision-{self._asked}"
        callback = CALLBACK | fields | {"decision_id": decision_id}
        return decision_id, json.dumps(callback).encode() + b"\n"

    async def ask(self, deadline_ms: int = 2_000, **fields: Any) -> Reply:
        decision_id, line = self.line(**fields)
        return await self.player.ask(decision_id, line, deadline_ms)

    async def many(self, count: int, deadline_ms: int = 2_000) -> list[Reply]:
        return await asyncio.gather(*(self.ask(deadline_ms) for _ in range(count)))

    async def note(self, deadline_ms: int = 5_000) -> Any:
        """What the agent found out: JSON in the note of its answer."""
        reply = await self.ask(deadline_ms)
        assert not isinstance(reply, Failure), reply
        assert reply.note is not None
        return json.loads(reply.note)

    @property
    def process(self) -> Any:
        assert self.player._process is not None
        return self.player._process


def upload(source: str, **manifest: Any) -> bytes:
    """A zip of one Python file with a manifest."""
    import io
    import zipfile

    fields = {"runtime": "python3", "entry_point": "bot.py"} | manifest
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("agent.json", json.dumps(fields))
        archive.writestr("bot.py", source)
    return raw.getvalue()


@pytest.fixture
def hosted(store: AgentStore) -> Callable[..., Any]:
    """`async with hosted(home, source, limits=…, **manifest) as agent`."""

    @asynccontextmanager
    async def make(
        home: SandboxHome, source: str | bytes, limits: SandboxLimits = TIGHT,
        *, lines: EgressLines | None = None, **manifest: Any,
    ) -> AsyncIterator[Hosted]:  # fmt: skip
        packed = source if isinstance(source, bytes) else upload(source, **manifest)
        agent = store.put(read_upload(packed, "agent"))
        before = len(descriptors())
        player = HostedPlayer(SandboxLauncher(home, agent, lines), agent.manifest, limits)
        try:
            await player.open()
            yield Hosted(player)
        finally:
            await player.close()
        for _ in range(500 if lines is not None else 0):
            # A proxy in this process closes its ends a moment later.
            if len(descriptors()) <= before:
                break
            await asyncio.sleep(0.01)
        assert len(descriptors()) <= before, descriptors()
        assert store.is_intact(agent.digest)

    return make


REPORTING = """
import json, os, sys
findings = {}
def found(name, call, *arguments):
    try:
        findings[name] = call(*arguments)
    except BaseException as error:
        findings[name] = "refused: " + type(error).__name__ + " " + str(getattr(error, "errno", ""))
def act(view):
    return view.check_or_call().with_note(json.dumps(findings))
"""


def reporting(attack: str) -> str:
    """An agent that runs `attack`, which calls ``found(name, call)``, and reports in its note."""
    return REPORTING + attack


# At the end, since these fixtures build on what stands above.
from tests.sandbox.hosts import identity, keys, pool_for, start_host  # noqa: E402, F401
