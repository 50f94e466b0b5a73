"""The API as a process of its own, for tests that need a real socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.api.arena import NO_RATE_LIMITS, PASSWORD

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pokerarena.api.server import run_api
from pokerarena.settings import load_settings
sys.exit(run_api(load_settings(), "127.0.0.1", 0, on_listening=lambda a: print(a, flush=True)))
"""


class Server:
    """One API process."""

    def __init__(self, database_url: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'sdk/src'}",
                "POKERARENA_DATABASE_URL": database_url,
                "POKERARENA_REGISTRATION": "open",
                "POKERARENA_ARGON2_MEMORY_KIB": "8192",
                "POKERARENA_LOG_FORMAT": "json",
                "POKERARENA_API_DRAIN_S": "0",
                **{f"POKERARENA_{name.upper()}": "0" for name in NO_RATE_LIMITS},
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), address
        self.port = int(address.rpartition(":")[2])
        self.token: str | None = None

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any, dict[str, str]]:
        return self.request_as(self.token, method, path, body)

    def request_as(
        self, token: str | None, method: str, path: str, body: Any = None
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = None
        if body is not None:
            content = json.dumps(body)
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, content, headers)
            reply = connection.getresponse()
            raw = reply.read()
            return reply.status, json.loads(raw) if raw else None, dict(reply.getheaders())
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        status, answer, _ = self.request(method, path, body)
        assert 200 <= status < 300, (status, answer)
        return answer

    def log_in(self, username: str) -> None:
        credentials = {"username": username, "password": PASSWORD}
        self.ok("POST", "/v1/auth/register", credentials)
        self.token = self.ok("POST", "/v1/auth/login", credentials)["access_token"]

    def raw(self, *parts: bytes, wait_s: float = 5) -> bytes:
        """What the server says to these bytes until it hangs up or says no more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as connection:
            for part in parts:
                connection.sendall(part)
            answer = b""
            try:
                while chunk := connection.recv(65_536):
                    answer += chunk
            except TimeoutError:
                pass
            return answer

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """The exit code after SIGTERM, and what was logged."""
        self.process.send_signal(signal.SIGTERM)
        _, logged = self.process.communicate(timeout=30)
        return self.process.returncode, [json.loads(line) for line in logged.splitlines() if line]
