"""A real Prometheus for tests: started over given targets and rules, asked, and always ended."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "arena.json"
DEADLINE_S = 60
# Waiting for minutes is for real arenas: here a minute of a rule is this many seconds.
MINUTE_S = 2


@cache
def programs() -> Path:
    """The folder of prometheus and promtool; fetched when the machine has none."""
    found = subprocess.run(
        [ROOT / "scripts" / "prometheus"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return Path(found.stdout.strip())


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert of the rules, by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def queries() -> list[str]:
    """Every query of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def quickened(text: str, thresholds: Mapping[str, str]) -> str:
    """The rules with every duration shortened alike, and with these comparisons replaced."""
    for before, after in thresholds.items():
        assert before in text, f"the rules no longer say {before}"
        text = text.replace(before, after)

    def shorter(match: re.Match[str]) -> str:
        minutes = int(match[2]) * {"s": 1 / 60, "m": 1, "h": 60}[match[3]]
        return f"{match[1]}{max(1, round(minutes * MINUTE_S))}s{match[4]}"

    text = re.sub(r"(\[)(\d+)([smh])(\])", shorter, text)
    return re.sub(r"(for: )(\d+)([smh])($)", shorter, text, flags=re.M)


class Prometheus:
    """One server with its own storage."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def _get(self, path: str, **query: str) -> Any:
        url = f"{self._url}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float:
        """The one value of an expression; 0 when there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def firing(self) -> set[str]:
        return {
            alert["labels"]["alertname"]
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        give_up_s = time.monotonic() + DEADLINE_S
        while not (value := condition()):
            assert time.monotonic() < give_up_s, f"{what}; firing: {self.firing()}"
            time.sleep(0.2)
        return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prometheus(directory: Path, targets: Mapping[str, int], rules: str) -> Iterator[Prometheus]:
    """Prometheus over these jobs' ports, until the block ends."""
    (directory / "rules.yml").write_text(rules)
    (directory / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {
                    "scrape_interval": "500ms",
                    "scrape_timeout": "500ms",
                    "evaluation_interval": "250ms",
                },
                "rule_files": ["rules.yml"],
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                    for job, port in targets.items()
                ],
            }
        )
    )
    port = free_port()
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                programs() / "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = Prometheus(port)

    def answers() -> bool:
        assert process.poll() is None, (directory / "prometheus.log").read_text()
        try:
            return bool(server.query("up"))
        except OSError:
            return False

    try:
        give_up_s = time.monotonic() + DEADLINE_S
        while not answers():
            assert time.monotonic() < give_up_s, (directory / "prometheus.log").read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()
