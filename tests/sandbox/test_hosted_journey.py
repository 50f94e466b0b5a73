"""An uploaded agent in a running arena: pushed, checked, seated, played, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pokerarena.ops.api_client import ApiClient
from pokerarena.ops.demo_hosted import TABLE_NAME as SECOND
from tests.chaos.host_storm import host_pids
from tests.database_server import new_directory
from tests.journeys.running_arena import RunningArena, wait_for
from tests.ops.test_cli import here

PASSWORD = "the river card was a seven"
TALKING = """
import os, sys
sys.stderr.write("my own words, under " + os.uname().release + "\\n")
def act(view):
    return view.check_or_call()
"""
pytestmark = pytest.mark.usefixtures("runc", "runsc")


@pytest.fixture
def arena(root_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningArena]:
    monkeypatch.setenv("POKERARENA_SANDBOX_ROOTFS", str(root_tree.parent))
    monkeypatch.setenv("POKERARENA_REGISTRATION", "open")
    with new_directory() as directory:
        running = RunningArena(directory / "data", "--demo", agent_host=True)
        yield running
        running.close()


def an_agent(client: ApiClient, name: str) -> str:
    return str(client.post("/v1/agents", {"name": name})["id"])


def a_run(client: ApiClient, players: list[dict[str, Any]], hands: int, **rules: Any) -> str:
    table = client.post("/v1/tables", {"name": "A table", "seat_count": 2, **rules})
    for seat_no, player in enumerate(players, 1):
        client.put(f"/v1/tables/{table['id']}/seats/{seat_no}", player)
    return str(client.post(f"/v1/tables/{table['id']}/runs", {"hands": hands})["id"])


def player(agent_id: str, version: dict[str, Any]) -> dict[str, Any]:
    return {"agent_id": agent_id, "version_id": version["id"]}


def ended(client: ApiClient, run_id: str) -> Any:
    def look() -> Any:
        run = client.get(f"/v1/runs/{run_id}")
        return run if run["status"] not in ("queued", "running") else None

    return wait_for(f"the end of {run_id}", look, within_s=120)


def test_a_pushed_agent_is_checked_and_plays(
    arena: RunningArena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = arena.ready()
    client.post("/v1/auth/register", {"username": "alice", "password": PASSWORD})
    client.login("alice", PASSWORD)
    scopes = ["agents:read", "agents:write"]
    token = client.post("/v1/tokens", {"name": "push", "scopes": scopes, "expires_in_s": 600})
    monkeypatch.setenv("POKERARENA_TOKEN", token["token"])
    monkeypatch.setenv("POKERARENA_SERVER", client.address)

    folder = tmp_path / "mybot"
    assert here("agent", "init", str(folder)).returncode == 0
    (folder / "bot.py").write_text(TALKING)
    boxed, rock = an_agent(client, "Boxed"), an_agent(client, "Rock")
    pushed = here("agent", "push", str(folder), "--agent", boxed)
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr + arena.said()
    assert "passed: it can take a seat" in pushed.stdout
    version = client.get(f"/v1/agents/{boxed}/versions")["items"][0]
    assert version["check_report"]["stderr"].startswith("my own words")
    house = client.post(f"/v1/agents/{rock}/versions", {"kind": "house", "house_name": "caller"})
    lineup = [player(boxed, version), player(rock, house)]

    # The demo's own hosted agent came to its table meanwhile.
    demo = ApiClient(client.address)
    demo.login("demo", json.loads((arena.data_dir / "demo.json").read_text())["password"])

    def at_the_second_table() -> Any:
        tables = [one for one in demo.items("/v1/tables", mine="true") if one["name"] == SECOND]
        runs = demo.get(f"/v1/tables/{tables[0]['id']}/runs")["items"] if tables else []
        return runs and runs[0]["hands_done"] > 0

    wait_for("the demo's hosted agent to play", at_the_second_table, within_s=120)

    # Seated, played, and read back.
    run_id = a_run(client, lineup, 20, format="duplicate")
    run = ended(client, run_id)
    assert (run["status"], run["hands_done"]) == ("completed", 20), run
    hands = client.get(f"/v1/runs/{run_id}/hands")["items"]
    assert len(hands) == 20
    replay = client.get(f"/v1/hands/{hands[0]['id']}/replay")
    assert replay
    said = client.get(f"/v1/runs/{run_id}/seats/1/sandbox")
    assert said["stderr"].startswith("my own words")
    assert said["starts"] == 1
    assert os.uname().release in said["stderr"]

    # Neither root nor anybody else is who runs it.
    [host] = host_pids(arena)
    assert Path(f"/proc/{host}").owner() == "pokerarena-host"

    # At a table that asks for it, in gVisor, whose kernel is its own.
    assert run["sandbox_runtime"] == "runc"
    run_id = a_run(client, lineup, 4, format="reset", sandbox_runtime="runsc")
    run = ended(client, run_id)
    assert (run["status"], run["hands_done"], run["sandbox_runtime"]) == ("completed", 4, "runsc")
    said = client.get(f"/v1/runs/{run_id}/seats/1/sandbox")
    assert said["stderr"].startswith("my own words, under ")
    assert os.uname().release not in said["stderr"]

    # One that cannot play is refused a seat, with the reason that its owner needs.
    (folder / "bot.py").write_text("import nothing_like_this\n")
    pushed = here("agent", "push", str(folder), "--agent", boxed)
    assert pushed.returncode == 1
    assert "nothing_like_this" in pushed.stdout
    assert arena.stop() == 0, arena.said()
    assert arena.left_behind() == []
    assert host_pids(arena) == []
