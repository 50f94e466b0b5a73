"""The demo's second table, where an agent from examples/hosted/ plays in a sandbox.

Owns: that agent, its table and its run, made through the public HTTP API like the rest of the demo,
and beside it: the agent-host may still be building its root file system when people look already.
Must never: hold up or end the demo; where it does not come to be, it says so and leaves it at that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pokerarena.errors import ArenaError, Unavailable
from pokerarena.ops.api_client import ApiClient
from pokerarena_sdk import project
from pokerarena_sdk.project import ProjectError

if TYPE_CHECKING:
    from pokerarena.ops.up import Arena

AGENT_NAME: Final = "Boxed"
TABLE_NAME: Final = "The sandbox table"
HANDS: Final = 1_000
LOOK_EVERY_S: Final = 1.0
CHECKED_WITHIN_S: Final = 900.0


class HostedDemo:
    """One hosted agent against one of the house, as soon as its check has passed."""

    def __init__(self, arena: Arena, folder: Path, say: Callable[[str], None]) -> None:
        self._arena = arena
        self._folder = folder
        self._say = say

    def begin(self, client: ApiClient, opponent: tuple[str, str]) -> None:
        """Goes about it in a thread of its own."""
        threading.Thread(
            target=self._try, args=(client, opponent), name="hosted demo", daemon=True
        ).start()

    def _try(self, client: ApiClient, opponent: tuple[str, str]) -> None:
        try:
            self._join(client, opponent)
        except (ArenaError, ProjectError) as error:
            if not self._arena.stopping.is_set():
                self._say(f"the demo has no hosted agent: {error}")

    def _join(self, client: ApiClient, opponent: tuple[str, str]) -> None:
        agent_id, version_id = self._version(client)
        mine = client.items("/v1/tables", mine="true")
        table: dict[str, Any] | None = next((t for t in mine if t["name"] == TABLE_NAME), None)
        if table is None:
            order = {"name": TABLE_NAME, "seat_count": 2, "visibility": "unlisted"}
            table = client.post("/v1/tables", {**order, "format": "reset"})
            for seat_no, (agent, version) in enumerate(((agent_id, version_id), opponent), 1):
                client.put(
                    f"/v1/tables/{table['id']}/seats/{seat_no}",
                    {"agent_id": agent, "version_id": version},
                )
        path = f"/v1/tables/{table['id']}/runs"
        runs = client.get(path, limit=1)["items"]
        if not runs:
            client.post(path, {"hands": HANDS})
            self._say(
                f"{AGENT_NAME}, in a sandbox, plays {HANDS:,} hands: "
                f"{self._arena.address}/v1/tables/{table['id']}/state"
            )
        elif runs[0]["status"] in ("stopped", "failed"):
            client.post(f"/v1/runs/{runs[0]['id']}/resume")

    def _version(self, client: ApiClient) -> tuple[str, str]:
        agents = client.items("/v1/agents")
        agent = next((one for one in agents if one["name"] == AGENT_NAME), None)
        if agent is None:
            agent = client.post(
                "/v1/agents",
                {
                    "name": AGENT_NAME,
                    "description": "An uploaded agent, in a sandbox: examples/hosted/rules",
                    "visibility": "public",
                },
            )
        path = f"/v1/agents/{agent['id']}/versions"
        versions = client.get(path, limit=1)["items"]
        version = versions[0] if versions else client.upload(path, project.pack(str(self._folder)))
        for _ in range(int(CHECKED_WITHIN_S / LOOK_EVERY_S)):
            if version["check_status"] != "pending":
                break
            if self._arena.stopping.wait(LOOK_EVERY_S):
                break
            version = client.get(f"{path}/{version['id']}")
        if version["check_status"] != "passed":
            raise Unavailable("not_checked", f"Its check is {version['check_status']}.")
        return agent["id"], version["id"]
