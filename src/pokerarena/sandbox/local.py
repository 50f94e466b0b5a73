"""Hosted agents in the process that asks for them: for `match`, `agent check` and one machine.

Owns the short way from a path to a player, and the sentence about what is missing when there is
none. A service uses the agent-host instead.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from pokerarena.errors import ArenaError, Invalid, Unavailable
from pokerarena.sandbox import cgroups, rootfs
from pokerarena.sandbox.archive import Package, read_upload
from pokerarena.sandbox.bare import BareLauncher
from pokerarena.sandbox.home import DEFAULT_BASE, SandboxHome
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import SandboxLauncher
from pokerarena.sandbox.runtime import RuntimeName, find_runtime
from pokerarena.sandbox.store import AgentStore
from pokerarena_sdk import project
from pokerarena_sdk.project import ProjectError

_OPEN_FOLDER: Final = "/var/tmp"  # noqa: S108 - mkdtemp makes a name of its own in it
DEFAULT_ROOTFS: Final = Path("/var/lib/pokerarena/rootfs")


def read_agent(path: Path) -> Package:
    """The checked package of an agent's file or folder. Raises `Invalid`."""
    try:
        return read_upload(project.pack(str(path)))
    except (ProjectError, OSError) as error:
        raise Invalid("agent_unreadable", f"{str(error).capitalize()}.") from None


def missing(runtime: RuntimeName = RuntimeName.RUNC, tree: Path = DEFAULT_ROOTFS) -> list[str]:
    """What keeps sandboxes from working here, each with what to do; empty when nothing does."""
    found = []
    for question in (lambda: find_runtime(runtime), cgroups.detect):
        try:
            question()
        except ArenaError as error:
            found.append(error.message)
    if wrong := rootfs.check_record(tree):
        found.append(f"{wrong[0].upper()}{wrong[1:]}.")
    return found


class LocalSandboxes:
    """Players in sandboxes of this process."""

    def __init__(self, home: SandboxHome, store: AgentStore) -> None:
        self._home = home
        self._store = store

    def player(
        self,
        path: Path,
        limits: SandboxLimits | None = None,
        *,
        alone: Callable[[], bool] | None = None,
    ) -> HostedPlayer:
        """A player for an agent's file or folder; for `alone` see `HostedPlayer`."""
        agent = self._store.put(read_agent(path))
        launcher = SandboxLauncher(self._home, agent)
        return HostedPlayer(launcher, agent.manifest, limits, alone=alone)


@asynccontextmanager
async def local_sandboxes(
    runtime: RuntimeName = RuntimeName.RUNC,
    tree: Path = DEFAULT_ROOTFS,
    *,
    build: bool = True,
) -> AsyncIterator[LocalSandboxes]:
    """Sandboxes for the time of the block; nothing of them is left after it.

    Builds the root file system when there is none yet, which takes a minute once.
    """
    found = find_runtime(runtime)
    if wrong := rootfs.check_record(tree):
        if not build:
            raise Unavailable("rootfs_missing", f"{wrong}.")
        rootfs.build(tree)
    # The users of sandboxes must be able to pass, which a private temporary folder would not let.
    folder = Path(tempfile.mkdtemp(prefix="pokerarena-agents-", dir=_OPEN_FOLDER))
    try:
        folder.chmod(0o755)  # noqa: ASYNC240 - once, before anything runs
        home = SandboxHome(found, tree / rootfs.ROOT, DEFAULT_BASE)
        try:
            yield LocalSandboxes(home, AgentStore(folder))
        finally:
            home.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bare_player(path: Path, limits: SandboxLimits | None = None) -> HostedPlayer:
    """A player without a sandbox, for `--no-sandbox`: one's own code, with one's own rights."""
    package = read_agent(path)
    folder = path.parent if path.is_file() else path
    return HostedPlayer(BareLauncher(folder.resolve(), package.manifest), package.manifest, limits)
