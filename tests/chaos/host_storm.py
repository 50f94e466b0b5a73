"""The agent-host of `up` killed again and again while runs of hosted agents are played and wait.

Owns the arena, the kills at random moments, and what must hold afterwards: every run completes, only
hands in progress are void, and nothing of a sandbox is left on the machine.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pokerarena.ops.api_client import ApiClient
from pokerarena.sandbox import cgroups
from pokerarena.sandbox.home import CGROUP_PARENT
from pokerarena_sdk import project
from tests.database_server import new_directory
from tests.journeys.running_arena import RunningArena, wait_for

PASSWORD: Final = "the river card was a seven"
IN_FLIGHT: Final = 4
# Slow enough that hosts can be killed in the middle of a run.
AGENT: Final = """
import time
def act(view):
    time.sleep(0.01)
    return view.check_or_call()
"""
MANIFEST: Final = f'{{"runtime": "python3", "entry_point": "bot.py", "max_in_flight": {IN_FLIGHT}}}'
FORMATS: Final = ("cash", "reset")
GENEROUS: Final = {
    "POKERARENA_RUNS_ACTIVE_PER_USER_MAX": "1000",
    "POKERARENA_RATE_READ_PER_MIN": "0",
    "POKERARENA_RATE_WRITE_PER_MIN": "0",
    "POKERARENA_RATE_EXPENSIVE_PER_MIN": "0",
    "POKERARENA_REGISTRATION": "open",
}


class HostStorm:
    """One arena, its runs with a hosted agent in both seats, and the kills."""

    def __init__(
        self, *, seed: int, runs: int, kills: int, hands: int, root_tree: Path,
        tell: Callable[[str], object], within_s: float = 240.0,
    ) -> None:  # fmt: skip
        self._chance = random.Random(seed)
        self._count = runs
        self._kills = kills
        self._hands = hands
        self._root_tree = root_tree
        self._tell = tell
        self._within_s = within_s
        self.instances: dict[str, Path] = {}
        self.killed = 0
        self.completed = 0
        self.voids = 0
        self.most_waiting = 0

    @property
    def environment(self) -> dict[str, str]:
        """The settings that the arena needs for it; the caller sets them."""
        return {**GENEROUS, "POKERARENA_SANDBOX_ROOTFS": str(self._root_tree.parent)}

    def blow(self) -> None:
        """Play through; raises `AssertionError` for anything that may not be."""
        with new_directory() as directory:
            arena = RunningArena(directory / "data", agent_host=True)
            try:
                client = arena.ready()
                runs = self._order(client, directory)
                self._kill_at_random(arena, client, runs)
                self._judge(client, runs)
                self._note_instances(arena)
                assert arena.stop() == 0, arena.said()
                assert arena.left_behind() == []
            finally:
                arena.close()
        left = self.left_behind()
        assert not left, left

    def left_behind(self) -> list[str]:
        """Cgroups, mounts, processes and folders of the sandboxes of every host that there was."""
        layout, found = cgroups.detect(), []
        mounts = Path("/proc/self/mountinfo").read_text()
        commands = b"\0".join(_commands())
        for instance, folder in sorted(self.instances.items()):
            found += [at for at in cgroups.leftovers(layout, CGROUP_PARENT) if instance in at]
            if instance in mounts:
                found.append(f"mount of {instance}")
            if instance.encode() in commands:
                found.append(f"process of {instance}")
            if folder.exists():
                found.append(str(folder))
        return found

    def _order(self, client: ApiClient, directory: Path) -> list[str]:
        client.post("/v1/auth/register", {"username": "alice", "password": PASSWORD})
        client.login("alice", PASSWORD)
        folder = directory / "agent"
        folder.mkdir()
        (folder / "bot.py").write_text(AGENT)
        (folder / "agent.json").write_text(MANIFEST)
        agent = client.post("/v1/agents", {"name": "Boxed"})["id"]
        version = client.upload(f"/v1/agents/{agent}/versions", project.pack(str(folder)))["id"]

        def checked() -> bool:
            seen = client.get(f"/v1/agents/{agent}/versions")["items"][0]
            assert seen["check_status"] != "failed", seen
            return bool(seen["check_status"] == "passed")

        wait_for("the check of the upload", checked, within_s=self._within_s)
        runs = []
        for number in range(self._count):
            kind = FORMATS[number % len(FORMATS)]
            table = client.post(
                "/v1/tables", {"name": f"Table {number}", "seat_count": 2, "format": kind}
            )["id"]
            for seat_no in (1, 2):
                taken = {"agent_id": agent, "version_id": version}
                client.put(f"/v1/tables/{table}/seats/{seat_no}", taken)
            order = client.post(f"/v1/tables/{table}/runs", {"hands": self._hands})
            runs.append(str(order["id"]))
        return runs

    def _kill_at_random(self, arena: RunningArena, client: ApiClient, runs: list[str]) -> None:
        """Each kill comes when the runs have got a random part of the way further."""
        total = self._count * self._hands
        for at in sorted(self._chance.uniform(0.05, 0.7) for _ in range(self._kills)):

            def far_enough(at: float = at) -> bool:
                seen = [client.get(f"/v1/runs/{run}") for run in runs]
                waiting = sum(run["hands_done"] == 0 for run in seen)
                self.most_waiting = max(self.most_waiting, waiting)
                done = sum(run["hands_done"] for run in seen)
                over = all(run["status"] not in ("queued", "running") for run in seen)
                return over or done >= at * total

            wait_for(f"{at:.0%} of the hands", far_enough, within_s=self._within_s)
            [pid] = wait_for("the agent-host", lambda: host_pids(arena), within_s=self._within_s)
            self._note_instances(arena)
            os.kill(pid, signal.SIGKILL)
            self.killed += 1
            self._tell(f"killed the agent-host at {at:.0%} of the hands")
            # Until it is gone and another is there, the next kill would meet nobody.
            wait_for(
                "another agent-host",
                lambda pid=pid: host_pids(arena) not in ([], [pid]),
                within_s=self._within_s,
            )

    def _judge(self, client: ApiClient, runs: list[str]) -> None:
        ends: Counter[str] = Counter()
        deadline_s = time.monotonic() + self._within_s
        for run_id in runs:

            def ended(run_id: str = run_id) -> Any:
                run = client.get(f"/v1/runs/{run_id}")
                return run if run["status"] not in ("queued", "running") else None

            left_s = max(10.0, deadline_s - time.monotonic())
            run = wait_for(f"the end of {run_id}", ended, within_s=left_s)
            assert (run["status"], run["hands_done"]) == ("completed", self._hands), run
            ends[run["status"]] += 1
            results = client.get(f"/v1/runs/{run_id}/results")
            # Nothing of it is an agent's fault, and no more is void than was in flight.
            assert [seat["fallbacks"] for seat in results["seats"]] == [{}, {}], results
            assert set(results["voids"]) <= {"infrastructure"}, results["voids"]
            voids = sum(results["voids"].values())
            assert voids <= self.killed * IN_FLIGHT, results["voids"]
            self.voids += voids
        self.completed = ends["completed"]

    def _note_instances(self, arena: RunningArena) -> None:
        for pid in host_pids(arena):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    target = fd.readlink()
                except OSError:
                    continue
                if target.name == "owner.lock":
                    self.instances[target.parent.name.lstrip(".")] = target.parent


def host_pids(arena: RunningArena) -> list[int]:
    """The agent-host of this arena that serves, by what it was started with."""
    socket = os.fsencode(arena.data_dir / "agent-host" / "run" / "host.sock")
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if socket in command and b"agent-host" in command:
            found.append(int(process.name))
    return found


def _commands() -> list[bytes]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                found.append((process / "cmdline").read_bytes())
            except OSError:
                continue
    return found
