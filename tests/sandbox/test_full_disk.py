"""An agent-host whose disk is full starts nobody, says why, and works again once there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pokerarena.errors import Unavailable
from pokerarena.sandbox.archive import read_upload
from pokerarena.sandbox.host_client import HostAddress, HostPool
from pokerarena.sandbox.store import AgentStore
from pokerarena.service_identity.keys import ServiceName
from pokerarena.service_identity.rotation import publish
from tests.sandbox.conftest import upload
from tests.sandbox.hosts import Host, opened, worker_identity
from tests.volumes import Volume, small_volume

pytestmark = pytest.mark.usefixtures("runc")
CALLER = "def act(view): return view.check_or_call()"
OTHER = CALLER + "\nOTHER = True"


@pytest.fixture
def volume(open_folder: Path) -> Iterator[Volume]:
    with small_volume(open_folder / "volume", 8) as made:
        yield made


@pytest.fixture
def keys(volume: Volume) -> Path:
    for service, name in ((ServiceName.WORKER, "worker"), (ServiceName.AGENT_HOST, "host")):
        publish(service, volume.path / f"{name}.pem", volume.path / "service-keys.json")
    return volume.path


@pytest.fixture
async def pool(keys: Path, root_tree: Path) -> Any:
    host = Host(keys, root_tree, "one")
    host.wait_ready()
    packages: dict[str, bytes] = {}

    async def load(digest: str) -> bytes:
        return packages[digest]

    made = HostPool([HostAddress(host.name, host.socket)], worker_identity(keys), load)
    made.packages = packages  # type: ignore[attr-defined]
    yield made
    made.close()
    assert host.end() == 0
    base = keys / "base-one"
    assert not (base.exists() and list(base.iterdir())), "a sandbox is left over"


@pytest.mark.parametrize("way", ["frames", "leases"])
async def test_a_full_disk_starts_nobody_disturbs_nobody_and_is_over_once_there_is_room(
    pool: Any, volume: Volume, way: str
) -> None:
    playing = await opened(pool, CALLER, way=way)
    assert (await playing.ask()).action == "call"
    volume.fill()
    # Neither a package that is not there yet, nor another sandbox of one that is.
    for source in (OTHER, CALLER):
        with pytest.raises(Unavailable):
            await opened(pool, source, way=way)
    assert (await playing.ask()).action == "call", "who plays already plays on"
    volume.empty()
    for source in (OTHER, CALLER):
        agent = await opened(pool, source, way=way)
        assert (await agent.ask()).action == "call"
        await agent.player.close()
    await playing.player.close()


def test_a_package_that_does_not_fit_leaves_nothing_behind(volume: Volume) -> None:
    store = AgentStore(volume.path / "store")
    package = read_upload(upload("X = '" + "x" * 500_000 + "'\n" + CALLER), "agent")
    volume.fill(leave_bytes=200_000)
    with pytest.raises(Unavailable, match="No space left on device"):
        store.put(package)
    assert list(store.root.iterdir()) == []
    volume.empty()
    assert store.is_intact(store.put(package).digest)
