"""The rules are right on paper; `test_incidents` lets a real Prometheus fire them."""

from __future__ import annotations

import re
import subprocess

import yaml

from pokerarena.metrics import CATALOGUE
from tests.deploy.prometheus import ROOT, RULES, alerts, programs, queries

METRIC = re.compile(r"\bpokerarena_[a-z_]+")
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")


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
