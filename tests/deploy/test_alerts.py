"""The rules are right on paper, and a real Prometheus fires them over a real arena."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from pathlib import Path
from uuid import UUID

import yaml

from pokerarena.metrics import CATALOGUE
from pokerarena.runs.service import request_stop
from tests.api.served import Server
from tests.arena import Arena, open_arena
from tests.deploy.prometheus import (
    ROOT,
    RULES,
    Prometheus,
    alerts,
    free_port,
    programs,
    prometheus,
    quickened,
)
from tests.journeys.test_http_agents import MISBEHAVING, agent
from tests.worker.workers import SLOW_PLAYER, worker

DASHBOARD = ROOT / "deploy" / "grafana" / "arena.json"
METRIC = re.compile(r"\bpokerarena_[a-z_]+")
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")


def queries() -> list[str]:
    """Every query of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_rules_pass_their_unit_tests() -> None:
    tested = subprocess.run(
        [programs() / "promtool", "test", "rules", RULES.with_name("rules_test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_for_firing_and_for_silence() -> None:
    tests = yaml.safe_load(RULES.with_name("rules_test.yml").read_text())["tests"]
    seen: dict[str, set[bool]] = {}
    for test in tests:
        for case in test["alert_rule_test"]:
            seen.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert seen == {name: {True, False} for name in alerts()}


def test_every_alert_leads_to_its_runbook() -> None:
    for name, rule in alerts().items():
        runbook = rule["annotations"]["runbook"]
        assert (ROOT / runbook).read_text().startswith(f"# {name}: "), runbook
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_rules_and_dashboard_speak_of_metrics_that_exist() -> None:
    known = {f"{m.name}{'_total' if m.kind == 'counter' else ''}" for m in CATALOGUE.values()}
    for expression in [*(rule["expr"] for rule in alerts().values()), *queries()]:
        for name in METRIC.findall(expression):
            base = SUFFIX.sub("", name)
            assert name in known or base in known, f"{name} in {expression}"


async def settled(server: Prometheus) -> None:
    """Enough evaluations for anything that fires to fire."""
    seen = server.value("vector(time())")
    await asyncio.to_thread(
        server.until, "time does not pass", lambda: server.value("vector(time())") > seen + 8
    )


async def test_each_incident_fires_its_own_alert_and_no_other(
    database_url: str, tmp_path: Path
) -> None:
    """A healthy arena is silent; then a slow agent, a queue that nobody empties, a dead worker."""
    rules = quickened(
        RULES.read_text(),
        {"pokerarena_queue_oldest_job_seconds) > 120": "pokerarena_queue_oldest_job_seconds) > 4"},
    )
    ports = {"pokerarena-api": free_port(), "pokerarena-worker": free_port()}
    api = Server(database_url, POKERARENA_API_METRICS_PORT=str(ports["pokerarena-api"]))
    changes = {
        "worker_metrics_port": ports["pokerarena-worker"],
        "metrics_interval_s": 0.2,
        "worker_runs_per_process": 3,
    }
    try:
        async with open_arena(database_url, **changes) as arena:
            with (
                worker(
                    arena.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="0.02"
                ) as process,
                prometheus(tmp_path, ports, rules) as server,
            ):
                until = server.until
                steady = await arena.order(["caller", "tight"], 100_000)
                api.log_in("watcher")
                for _ in range(20):
                    api.ok("GET", "/v1/me")
                await asyncio.to_thread(
                    until, "hands", lambda: server.value("sum(pokerarena_hands_stored_total)") > 5
                )
                await settled(server)
                assert server.firing() == set(), "a healthy arena"

                with agent(*MISBEHAVING, "drip") as (url, _):
                    slow = await arena.order(
                        [url, "caller"], 100_000, format="reset", action_time_ms=150
                    )
                    await asyncio.to_thread(until, "a slow agent", server.firing)
                    assert server.firing() == {"AgentsSlow"}
                    empty = [
                        query
                        for query in queries()
                        if not server.query(query.replace("$__rate_interval", "20s"))
                    ]
                    assert empty == [], "queries of the dashboard without data"
                    await stop(arena, slow)
                await asyncio.to_thread(until, "calm", lambda: not server.firing())

                waiting = [await arena.order(["caller", "tight"], 100_000) for _ in range(4)]
                await asyncio.to_thread(until, "a queue", server.firing)
                assert server.firing() == {"QueueGrowing"}
                for run_id in waiting:
                    await stop(arena, run_id)
                await asyncio.to_thread(until, "calm", lambda: not server.firing())
                await settled(server)
                assert server.firing() == set(), "calm again"

                assert (await arena.look(steady)).status == "running"
                process.signal_group(signal.SIGKILL)
                await asyncio.to_thread(until, "a dead worker", server.firing)
                await settled(server)
                assert server.firing() == {"WorkerDown"}
    finally:
        api.stop()


async def stop(arena: Arena, run_id: UUID) -> None:
    """Ask for the end of a run, as its owner would, and wait for it."""
    async with arena.database.unit_of_work() as session:
        await request_stop(session, run_id)
    await arena.until_ended(run_id)
