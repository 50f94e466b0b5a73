"""A process whose sandboxes are killed for their memory, and that counts it as a player process does.

Serves its metrics on the port that it is given, and waits for a line on its input before it begins:
whoever watches must have seen nothing first. Ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.exposition import served
from pokerarena.sandbox.archive import read_upload
from pokerarena.sandbox.home import SandboxHome
from pokerarena.sandbox.limits import MIB, SandboxLimits
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import SandboxLauncher
from pokerarena.sandbox.runtime import RuntimeName, find_runtime
from pokerarena.sandbox.store import AgentStore
from tests.sandbox.conftest import CALLBACK, upload

KILLS = 12
HOG = """
def act(view):
    hog = b"x" * (1 << 30)
    return view.check_or_call()
"""


async def be_killed(home: SandboxHome, store: AgentStore) -> None:
    agent = store.put(read_upload(upload(HOG), "agent"))
    limits = SandboxLimits(memory_bytes=64 * MIB, restarts_max=KILLS)
    player = HostedPlayer(SandboxLauncher(home, agent), agent.manifest, limits)
    await player.open()
    try:
        for number in range(KILLS):
            line = json.dumps(CALLBACK | {"decision_id": f"d{number}"}).encode() + b"\n"
            reply = await player.ask(f"d{number}", line, 10_000)
            assert isinstance(reply, Failure), reply
            assert reply.reason is FallbackReason.SANDBOX_MEMORY, reply
    finally:
        await player.close()


def main(port: str, root_tree: str, folder: str) -> None:
    home = SandboxHome(find_runtime(RuntimeName.RUNC), Path(root_tree), Path(folder) / "home")
    try:
        with served("127.0.0.1", int(port)):
            print("ready", flush=True)
            if sys.stdin.readline():
                asyncio.run(be_killed(home, AgentStore(Path(folder) / "store")))
                print("killed", flush=True)
                sys.stdin.readline()
    finally:
        home.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
