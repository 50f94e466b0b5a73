"""The disk under the whole arena is full, really, and then there is room again."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pokerarena.ops.api_client import ApiClient
from tests.database_server import new_directory
from tests.journeys.running_arena import RunningArena, wait_for
from tests.ops.test_cli import here
from tests.volumes import Volume, small_volume

PASSWORD = "the river card was a seven"
VOLUME_MIB = 400
# What a run at full speed uses up in a second or two.
LEFT_BYTES = 2 * 1024 * 1024
ENDLESS = 1_000_000
FULL_FOR_S = 3.0


@pytest.fixture
def volume() -> Iterator[Volume]:
    with new_directory() as directory, small_volume(directory / "volume", VOLUME_MIB) as made:
        yield made


def ask(client: ApiClient, token: str, method: str, path: str, body: Any) -> tuple[int, str]:
    """Status and code of one request, which must be a success or an honest 503."""
    connection = http.client.HTTPConnection(client.address.removeprefix("http://"), timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        reply = connection.getresponse()
        answer = json.loads(reply.read() or b"{}")
        if reply.status >= 400:
            assert reply.status == 503, answer
            assert int(reply.getheader("Retry-After") or 0) >= 1, answer
        return reply.status, str(answer.get("code"))
    finally:
        connection.close()


def test_a_full_disk_is_told_costs_no_hand_and_ends_by_itself(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POKERARENA_REGISTRATION", "open")
    for name in ("READ", "WRITE"):
        monkeypatch.setenv(f"POKERARENA_RATE_{name}_PER_MIN", "0")
    arena = RunningArena(volume.path / "data")
    try:
        client = arena.ready()
        client.post("/v1/auth/register", {"username": "alice", "password": PASSWORD})
        client.login("alice", PASSWORD)
        scopes = ["agents:read", "agents:write", "tables:read", "tables:write", "runs:read"]
        made = client.post("/v1/tokens", {"name": "t", "scopes": scopes, "expires_in_s": 3600})
        token = str(made["token"])
        table = client.post("/v1/tables", {"name": "A table", "seat_count": 2})
        for seat_no in (1, 2):
            agent = client.post("/v1/agents", {"name": f"Agent {seat_no}"})["id"]
            version = client.post(
                f"/v1/agents/{agent}/versions", {"kind": "house", "house_name": "caller"}
            )
            seat = {"agent_id": agent, "version_id": version["id"]}
            client.put(f"/v1/tables/{table['id']}/seats/{seat_no}", seat)
        run_path = f"/v1/tables/{table['id']}/runs"
        run_path = f"/v1/runs/{client.post(run_path, {'hands': ENDLESS})['id']}"
        wait_for("hands", lambda: client.get(run_path)["hands_done"] > 100)

        served = children(arena.pid)
        volume.fill(leave_bytes=LEFT_BYTES)
        told: set[str] = set()

        def refused() -> bool:
            told.add(ask(client, token, "POST", "/v1/tables", {"name": "One more"})[1])
            return bool(told - {"None"})

        wait_for("the disk to be full", refused, within_s=60)
        volume.fill()
        full_until_s = time.monotonic() + FULL_FOR_S
        while time.monotonic() < full_until_s:
            told.add(ask(client, token, "GET", run_path, None)[1])
            told.add(ask(client, token, "POST", "/v1/tables", {"name": "One more"})[1])
            time.sleep(0.1)
        assert told - {"None"} <= {"database_full", "database_unavailable"}, told
        log = (arena.data_dir / "logs" / "worker.log").read_text(errors="replace")

        volume.empty()
        wait_for(
            "a table to be made again",
            lambda: ask(client, token, "POST", "/v1/tables", {"name": "Room"})[0] == 201,
            within_s=90,
        )
        before = client.get(run_path)["hands_done"]
        wait_for("the run to go on", lambda: client.get(run_path)["hands_done"] > before + 100, 90)
        # Nobody but the database, at most, has been started again.
        assert served <= children(arena.pid), arena.said()
        assert "commit_failed" in log or "the database" in arena.said()
        client.login("alice", PASSWORD)
        client.post(f"{run_path}/stop")
        wait_for("the stop", lambda: client.get(run_path)["status"] == "stopped")
        checked = here("verify", "--data-dir", str(arena.data_dir))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert arena.stop() == 0, arena.said()
        assert arena.left_behind() == []
    finally:
        arena.close()


def children(pid: int) -> set[int]:
    """The processes that `up` started, but for the database."""
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"ops.cli" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.add(int(child))
    return found
