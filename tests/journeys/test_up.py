"""One command runs the arena, one key stops it, and the next start goes on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pokerarena.ops.api_client import ApiClient
from pokerarena.ops.data_directory import SECRET_NAMES
from pokerarena.ops.demo import LINEUP, TABLE_NAME
from tests.database_server import new_directory
from tests.journeys.running_arena import ROOT, RunningArena, wait_for

Start = Callable[..., RunningArena]


@pytest.fixture
def start() -> Iterator[Start]:
    arenas: list[RunningArena] = []
    with new_directory() as directory:

        def start_arena(*arguments: str) -> RunningArena:
            arenas.append(RunningArena(directory / "data", *arguments))
            return arenas[-1]

        yield start_arena
        for arena in arenas:
            arena.close()


def the_run(client: ApiClient) -> dict[str, Any] | None:
    """The demo's newest run, as anybody sees it."""
    tables = client.get("/v1/tables")["items"]
    assert [table["name"] for table in tables] == [TABLE_NAME]
    runs = client.get(f"/v1/tables/{tables[0]['id']}/runs", limit=1)["items"]
    return runs[0] if runs else None


def hands_beyond(client: ApiClient, count: int) -> Callable[[], dict[str, Any] | None]:
    def look() -> dict[str, Any] | None:
        run = the_run(client)
        return run if run and run["hands_done"] > count else None

    return look


def test_the_demo_plays_stops_and_goes_on(start: Start) -> None:
    first = start("--demo")
    client = first.ready()
    wait_for("the demo table", lambda: client.get("/v1/tables")["items"])
    run = wait_for("hands to grow", hands_beyond(client, 2), within_s=30)
    seats = client.get(f"/v1/tables/{run['table_id']}/seats")["items"]
    assert [seat["agent_name"] for seat in seats] == list(LINEUP)
    picture = subprocess.run(
        [
            *(sys.executable, "-m", "pokerarena.ops.cli", "watch", run["table_id"]),
            *("--server", client.address, "--once"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'sdk/src'}",
            "COLUMNS": "100",
            "PYTHONUTF8": "1",
        },
    ).stdout
    assert TABLE_NAME in picture
    assert all(name in picture for name in LINEUP)
    assert first.stop(signal.SIGINT) == 0, first.said()
    assert first.left_behind() == []
    told = first.rest_of_output()
    assert f"watch {run['table_id']} --server {client.address}" in told
    assert f"curl -N {client.address}/v1/tables/{run['table_id']}/live" in told
    password = told.partition("password ")[2].split()[0]
    state = json.loads((first.data_dir / "demo.json").read_text())
    assert state["password"] == password
    assert (first.data_dir / "demo.json").stat().st_mode & 0o077 == 0

    second = start("--demo")
    client = second.ready()
    before = the_run(client)
    assert before is not None
    assert before["id"] == run["id"]
    assert before["hands_done"] >= run["hands_done"]
    wait_for("the same run to go on", hands_beyond(client, before["hands_done"] + 1))
    client.login("demo", password)
    assert {agent["name"] for agent in client.items("/v1/agents")} == set(LINEUP)
    results = client.get(f"/v1/runs/{run['id']}/results")
    assert [seat["fallbacks"] for seat in results["seats"]] == [{}] * len(LINEUP)
    assert second.stop(signal.SIGTERM) == 0, second.said()
    assert second.left_behind() == []


def test_a_killed_arena_leaves_nothing_running_and_is_recovered(start: Start) -> None:
    first = start()
    client = first.ready()
    assert client.get("/readyz")["status"] == "ready"
    secrets = {name: (first.data_dir / "secrets" / name).read_bytes() for name in SECRET_NAMES}
    first.stop(signal.SIGKILL)
    wait_for("everything to end", lambda: not first.left_behind())

    second = start()
    client = second.ready()
    assert client.get("/v1/tables")["items"] == []
    assert secrets == {
        name: (second.data_dir / "secrets" / name).read_bytes() for name in SECRET_NAMES
    }
    # One line for scripts, and nothing else.
    assert second.stop() == 0
    assert second.rest_of_output() == ""
    assert second.left_behind() == []


def test_a_role_or_the_database_that_dies_is_started_again(start: Start) -> None:
    arena = start()
    client = arena.ready()

    def pids(part: str) -> set[int]:
        done = subprocess.run(
            ["pgrep", "-P", str(arena.pid), "-f", part], capture_output=True, check=False
        )
        return {int(pid) for pid in done.stdout.split()}

    def answers() -> bool:
        try:
            return bool(client.get("/readyz")["status"] == "ready")
        except Exception:
            return False

    for part in ("ops.cli api", "ops.cli worker", "postgres -D"):
        before = pids(part)
        assert len(before) == 1, part
        subprocess.run(["kill", "-9", str(before.pop())], check=True)
        wait_for(f"another {part}", lambda part=part, before=before: pids(part) - before)
        wait_for("the arena to be ready again", answers, within_s=60)
    assert arena.stop() == 0
    assert arena.left_behind() == []


def test_a_second_arena_on_the_same_data_is_refused_in_one_line(start: Start) -> None:
    first = start()
    first.ready()
    second = start()
    assert second.wait() == 1
    lines = second.said().splitlines()
    assert len(lines) == 1
    assert f"already served by process {first.pid}" in lines[0]
    assert first.stop() == 0


def test_a_port_in_use_is_refused_in_one_line_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pokerarena.ops.cli", "up", "--port", str(port)),
                *("--data-dir", str(tmp_path / "data")),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'sdk/src'}"},
        )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert "--port" in lines[0]
    assert not (tmp_path / "data" / "postgres").exists()


def test_an_operator_made_on_the_command_line_can_log_in(start: Start) -> None:
    arena = start()
    client = arena.ready()
    socket_dir = arena.data_dir / "postgres"
    password = "a long enough phrase of words"
    made = subprocess.run(
        [
            *(sys.executable, "-m", "pokerarena.ops.cli", "admin", "create-operator", "olive"),
            "--password-stdin",
        ],
        input=password + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'sdk/src'}",
            "POKERARENA_DATABASE_URL": f"postgresql+psycopg://postgres@/pokerarena?host={socket_dir}",
            **{
                f"POKERARENA_{name.upper()}_FILE": str(arena.data_dir / "secrets" / name)
                for name in SECRET_NAMES
            },
        },
    )
    assert made.returncode == 0, made.stderr
    assert password not in made.stdout + made.stderr
    client.login("olive", password)
    assert client.get("/v1/me")["user"]["role"] == "operator"
    with psycopg.connect(host=str(socket_dir), user="postgres", dbname="pokerarena") as database:
        row = database.execute("SELECT password_hash FROM users").fetchone()
    assert row is not None
    assert row[0].startswith("$argon2id$")
    assert arena.stop() == 0
