"""What is left when the owner of sandboxes dies: nothing, by whoever notices first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pokerarena
import pokerarena_sdk
from pokerarena.sandbox import cgroups
from pokerarena.sandbox.home import CGROUP_PARENT, SandboxHome, sweep

OWNER = """
import asyncio, sys, time
from pathlib import Path
from pokerarena.sandbox.archive import read_upload
from pokerarena.sandbox.home import SandboxHome
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import SandboxLauncher
from pokerarena.sandbox.runtime import find_runtime
from pokerarena.sandbox.store import AgentStore
async def main():
    folder, root, warden = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    home = SandboxHome(find_runtime(), root, folder / "home")
    if warden == "no":
        home._warden.kill()
    agent = AgentStore(folder / "store").put(read_upload(b"import threading\\ndef spin():\\n while 1: pass\\n"
        b"def act(view):\\n threading.Thread(target=spin).start(); spin()\\n", "bot.py"))
    players = [HostedPlayer(SandboxLauncher(home, agent), agent.manifest) for _ in range(3)]
    for player in players: await player.open()
    asyncio.create_task(players[0].ask("d", b'{"decision_id": "d"}\\n', 60000))
    await asyncio.sleep(0.1)
    print(home.instance, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def start_owner(folder, root_tree, warden):
    sources = [Path(pokerarena.__file__).parents[1], Path(pokerarena_sdk.__file__).parents[1]]
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), str(root_tree), warden],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources))},
    )
    instance = process.stdout.readline().strip()
    assert instance
    return process, instance


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def left(instance):
    return cgroups.leftovers(cgroups.detect(), f"{CGROUP_PARENT}/{instance}")


@pytest.mark.usefixtures("runc")
def test_after_kill_9_the_warden_clears_everything(root_tree, open_folder):
    process, instance = start_owner(open_folder, root_tree, "yes")
    assert len(left(instance)) >= 3
    kill(process)
    deadline_s = time.monotonic() + 10
    while (left(instance) or (open_folder / "home" / instance).exists()) and (
        time.monotonic() < deadline_s
    ):
        time.sleep(0.05)
    assert left(instance) == []
    assert not (open_folder / "home" / instance).exists()


@pytest.mark.usefixtures("runc")
def test_without_the_warden_the_next_owner_does(root_tree, open_folder, runc):
    process, instance = start_owner(open_folder, root_tree, "no")
    kill(process)
    time.sleep(0.2)
    assert len(left(instance)) >= 3
    home = SandboxHome(runc, root_tree, open_folder / "home")
    try:
        assert left(instance) == []
        assert not (open_folder / "home" / instance).exists()
    finally:
        home.close()


@pytest.mark.usefixtures("home")
def test_a_sweep_leaves_the_sandboxes_of_the_living_alone(home, open_folder):
    assert sweep(open_folder / "home") == []
    assert home.folder.exists()
