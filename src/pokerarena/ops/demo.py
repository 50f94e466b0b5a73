"""`pokerarena up --demo`: a public table where six agents play, to look at and to learn from.

Owns: what the demo consists of, and how a second start finds the first one's. Everything is made
through the public HTTP API, as any user would; only the account comes from the command line's door.
Must never: make anything twice, or print the login anywhere but on the terminal and in the data
directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pokerarena.auth.models import Role
from pokerarena.errors import ConfigurationError, Conflict, Unavailable
from pokerarena.ops.accounts import create_account
from pokerarena.ops.api_client import ApiClient
from pokerarena.ops.data_directory import SECRET_NAMES, write_private
from pokerarena.ops.demo_hosted import HostedDemo
from pokerarena.settings import load_settings

if TYPE_CHECKING:
    from pokerarena.ops.up import Arena

USERNAME: Final = "demo"
TABLE_NAME: Final = "The demo table"
HANDS: Final = 100_000
# Slow enough to follow with the eyes: a hand or two a second.
THINK_MS: Final = 150
ACTION_TIME_MS: Final = 2_000
AGENT_START_S: Final = 15.0
AGENT_STOP_PATIENCE_S: Final = 3.0
HOST: Final = "127.0.0.1"


class HttpAgent(NamedTuple):
    """An agent from examples/, run as a process of its own."""

    name: str
    description: str
    program: str
    options: tuple[str, ...] = ()


HTTP_AGENTS: Final = (
    HttpAgent(
        "Steady",
        "An agent over HTTP: examples/python_http_agent.py",
        "python_http_agent.py",
        ("--strategy", "steady"),
    ),
    HttpAgent("Rulebook", "An agent over HTTP: examples/rule_agent.py", "rule_agent.py"),
)
HOUSE_AGENTS: Final = {
    "Odds": ("equity", "Estimates its chance to win, and plays by it"),
    "Rock": ("tight", "Plays few hands, and those hard"),
    "Station": ("caller", "Calls whatever comes"),
    "Dice": ("random", "Plays any legal action"),
}
# In the order of the seats.
LINEUP: Final = ("Odds", "Steady", "Rock", "Rulebook", "Station", "Dice")


class Demo:
    """One demo in one data directory."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._file = arena.directory.path / "demo.json"
        self._state: dict[str, Any] = self._read()
        self._running: set[str] = set()

    def prepare(self) -> None:
        """Starts the agents of an earlier demo, before the worker asks them anything."""
        for agent in HTTP_AGENTS:
            if agent.name in self._state["agents"]:
                self._start_agent(agent)

    def begin(self) -> None:
        """Makes what is missing, starts or continues the run, and says where to look."""
        client = ApiClient(self._arena.address)
        self._log_in(client)
        versions = self._versions(client)
        table = self._table(client, versions)
        self._run(client, table)
        self._tell(table)
        if self._arena.hosting.possible:
            folder = _examples() / "hosted" / "rules"
            HostedDemo(self._arena, folder, self._say).begin(client, versions["Rock"])

    # -- account ------------------------------------------------------------------------------

    def _log_in(self, client: ApiClient) -> None:
        secret_values = {
            name: (self._arena.directory.secrets / name).read_text().strip()
            for name in SECRET_NAMES
        }
        settings = load_settings(database_url=self._arena.database_url, **secret_values)
        password = self._state["password"]
        with contextlib.suppress(Conflict):  # an earlier start made it
            create_account(settings, username=USERNAME, password=password, role=Role.MEMBER)
        client.login(USERNAME, password)

    # -- agents -------------------------------------------------------------------------------

    def _versions(self, client: ApiClient) -> dict[str, tuple[str, str]]:
        """The agent's id and the version's, by name; makes what is missing."""
        present = {agent["name"]: agent for agent in client.items("/v1/agents")}
        found = {}
        for name, (house_name, description) in HOUSE_AGENTS.items():
            agent = present.get(name) or _create_agent(client, name, description)
            order = {"kind": "house", "house_name": house_name}
            found[name] = (agent["id"], _last_version(client, agent["id"], order)["id"])
        for http_agent in HTTP_AGENTS:
            agent = present.get(http_agent.name) or _create_agent(
                client, http_agent.name, http_agent.description
            )
            known = self._state["agents"].get(http_agent.name)
            if known is None:
                known = self._add_http_version(client, http_agent, agent["id"])
            self._start_agent(http_agent)
            found[http_agent.name] = (agent["id"], known["version_id"])
        return found

    def _add_http_version(
        self, client: ApiClient, agent: HttpAgent, agent_id: str
    ) -> dict[str, Any]:
        port = _free_port()
        order = {"kind": "http", "callback_url": f"http://{HOST}:{port}/"}
        version = client.post(f"/v1/agents/{agent_id}/versions", order)
        # The secret is shown this once: a version whose secret was lost is simply followed by
        # another at the next start.
        known = {"port": port, "version_id": version["id"], "secret": version["signing_secret"]}
        self._state["agents"][agent.name] = known
        self._write()
        return known

    def _start_agent(self, agent: HttpAgent) -> None:
        if agent.name in self._running:
            return
        known = self._state["agents"][agent.name]
        port = known["port"]
        if _accepts(port):
            raise ConfigurationError(
                f"Port {port} of the demo's agent {agent.name} is used by another program: "
                "stop that, or start a new demo with another --data-dir."
            )
        child = self._arena.add_program(
            f"agent-{agent.name.lower()}",
            [
                sys.executable,
                str(_examples() / agent.program),
                *("--host", HOST, "--port", str(port), "--think-ms", str(THINK_MS)),
                *agent.options,
            ],
            {**os.environ, "AGENT_SECRET": known["secret"], "PYTHONUNBUFFERED": "1"},
            stop_patience_s=AGENT_STOP_PATIENCE_S,
            last=True,
        )
        self._running.add(agent.name)
        deadline = time.monotonic() + AGENT_START_S
        while not _accepts(port):
            if not child.running or time.monotonic() > deadline:
                raise Unavailable(
                    "agent_failed", f"The agent {agent.name} did not start: {child.reason()}."
                )
            if self._arena.stopping.wait(0.05):
                return

    # -- table and run ------------------------------------------------------------------------

    def _table(self, client: ApiClient, versions: dict[str, tuple[str, str]]) -> dict[str, Any]:
        mine = client.items("/v1/tables", mine="true")
        table: dict[str, Any] | None = next((t for t in mine if t["name"] == TABLE_NAME), None)
        if table is None:
            table = client.post(
                "/v1/tables",
                {
                    "name": TABLE_NAME,
                    "seat_count": len(LINEUP),
                    "visibility": "public",
                    "format": "cash",
                    "action_time_ms": ACTION_TIME_MS,
                },
            )
        path = f"/v1/tables/{table['id']}/seats"
        seated = {seat["seat_no"]: seat["version_id"] for seat in client.get(path)["items"]}
        for seat_no, name in enumerate(LINEUP, 1):
            agent_id, version_id = versions[name]
            if seated.get(seat_no) != version_id:
                client.put(f"{path}/{seat_no}", {"agent_id": agent_id, "version_id": version_id})
        return table

    def _run(self, client: ApiClient, table: dict[str, Any]) -> None:
        path = f"/v1/tables/{table['id']}/runs"
        runs = client.get(path, limit=1)["items"]
        if runs and runs[0]["status"] in ("queued", "running"):
            return
        if runs and runs[0]["status"] in ("stopped", "failed"):
            client.post(f"/v1/runs/{runs[0]['id']}/resume")
            return
        client.post(path, {"hands": HANDS})

    @staticmethod
    def _say(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    # -- words and memory ---------------------------------------------------------------------

    def _tell(self, table: dict[str, Any]) -> None:
        address = self._arena.address
        program = Path(sys.argv[0])
        command = shlex.quote(str(program)) if program.stem == "pokerarena" else "pokerarena"
        live = f"{address}/v1/tables/{table['id']}/live"
        print(
            f"\n  {TABLE_NAME}: {', '.join(LINEUP)}\n"
            f"\n  watch it   {command} watch {table['id']} --server {address}"
            f"\n  or         curl -N {live}"
            f"\n  the API    {address}/docs"
            f"\n  log in as  {USERNAME}, password {self._state['password']}"
            f"\n  data in    {self._arena.directory.path}"
            "\n\n  Ctrl-C stops it; the next start goes on.\n",
            flush=True,
        )

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            state = {"password": secrets.token_urlsafe(18), "agents": {}}
            write_private(self._file, json.dumps(state))
        except ValueError:
            raise ConfigurationError(
                f"{self._file} is damaged: start a new demo with another --data-dir."
            ) from None
        return state

    def _write(self) -> None:
        write_private(self._file, json.dumps(self._state))


def _create_agent(client: ApiClient, name: str, description: str) -> dict[str, Any]:
    order = {"name": name, "description": description, "visibility": "public"}
    agent: dict[str, Any] = client.post("/v1/agents", order)
    return agent


def _last_version(client: ApiClient, agent_id: str, order: dict[str, str]) -> dict[str, Any]:
    path = f"/v1/agents/{agent_id}/versions"
    present = client.get(path, limit=1)["items"]
    version: dict[str, Any] = present[0] if present else client.post(path, order)
    return version


def _examples() -> Path:
    """The examples of the checkout: the demo is for those who have one."""
    folder = Path(__file__).resolve().parents[3] / "examples"
    if not folder.is_dir():
        raise ConfigurationError(
            "The demo needs the agents in examples/: run it from a checkout, with 'make demo'."
        )
    return folder


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
