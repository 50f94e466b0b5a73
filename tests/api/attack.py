"""Schemathesis against a real server: generated requests of every kind of caller to every route.

Owns what counts as a failure: an error of ours (5xx), or an answer that the OpenAPI document does
not describe. Requests come singly, half of them with ids that exist, and in chains in which what one
answers goes into the next. `make dast` runs this module for long; a test runs it for a few examples.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.attack_world import Caller, World, attacked
from tests.api.served import Server

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# An open stream lasts a second here: a few of them say what many would.
SLOW = {"/v1/tables/{table_id}/live"}
TIMEOUT_S = 30
CHAIN_LENGTH = 8
CHAIN_SEEDS_APART = 1000


class Attack:
    """Counts what was asked and what was found."""

    def __init__(self, server: Server, world: World) -> None:
        self.calls: Counter[str] = Counter()
        self.by_caller: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.chains = 0
        self.chained = 0
        self.findings: list[str] = []
        self._world = world
        self._url = f"http://127.0.0.1:{server.port}"
        self._schema = schemathesis.openapi.from_url(f"{self._url}/openapi.json")
        self._schema.config.generation.update(modes=list(GenerationMode))

    @property
    def total(self) -> int:
        return sum(self.calls.values())

    def singly(self, examples: int, first_seed: int, callers: list[Caller] | None = None) -> None:
        """That many requests of each caller to each route."""
        for found in self._schema.get_all_operations():
            operation = found.ok()
            count = min(examples, 3) if operation.path in SLOW else examples
            for caller in callers or self._world.callers:
                self._attack(operation, caller, count, first_seed)

    def in_chains(self, chains: int, first_seed: int, callers: list[Caller] | None = None) -> None:
        """That many chains of each caller: what was made is read, changed and ended."""
        for caller in callers or self._world.callers:
            wanted, number, before = self.chains + chains, first_seed, self.total
            while self.chains < wanted and not self._findings_of(f"{caller.name}: a chain"):
                machine = seed(number)(self._machine(caller))
                number += CHAIN_SEEDS_APART
                # What a server answers twice is not always the same: the generator gives up then.
                with contextlib.suppress(Flaky):
                    machine.run(
                        settings=_settings(wanted - self.chains, stateful_step_count=CHAIN_LENGTH)
                    )
            self.chained += self.total - before

    def _findings_of(self, label: str) -> bool:
        return any(finding.startswith(label) for finding in self.findings)

    def _attack(self, operation: Any, caller: Caller, examples: int, first_seed: int) -> None:
        known = {
            parameter: self._world.ids[parameter]
            for parameter in self._world.ids
            if f"{{{parameter}}}" in operation.path
        }

        @seed(first_seed)
        @_settings(examples)
        @given(case=operation.as_strategy(), data=st.data())
        def asked(case: Any, data: Any) -> None:
            if known and data.draw(st.booleans(), label="ids that exist"):
                for parameter, values in known.items():
                    case.path_parameters[parameter] = data.draw(st.sampled_from(values))
            response = case.call(headers=caller.headers(), timeout=TIMEOUT_S)
            self._count(case, response, caller)
            case.validate_response(response, checks=CHECKS)

        self._judge(f"{caller.name}: {operation.label}", asked)

    def _machine(self, caller: Caller) -> Any:
        attack = self

        class Chain(self._schema.as_state_machine()):  # type: ignore[misc]
            def get_call_kwargs(self, case: Any) -> dict[str, Any]:
                return {"headers": caller.headers(), "timeout": TIMEOUT_S}

            def before_call(self, case: Any) -> None:
                # The accounts that ask stay open.
                if "user_id" in (case.path_parameters or {}):
                    case.path_parameters["user_id"] = attack._world.ids["user_id"][0]

            def setup(self) -> None:
                attack.chains += 1

            def validate_response(self, response: Any, case: Any, **_: Any) -> None:
                attack._count(case, response, caller)
                attack._judge(
                    f"{caller.name}: a chain to {case.operation.label}",
                    lambda: case.validate_response(response, checks=CHECKS),
                )

        return Chain

    def _count(self, case: Any, response: Any, caller: Caller) -> None:
        self.calls[f"{case.operation.method.upper()} {case.operation.path}"] += 1
        self.by_caller[caller.name] += 1
        self.statuses[response.status_code] += 1
        if response.status_code == 401:
            caller.was_refused()

    def _judge(self, label: str, run: Any) -> None:
        try:
            run()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            shown = "\n".join(f"{type(error).__name__}: {error}".splitlines()[:40])
            self.findings.append(f"{label}\n{shown}")


def _settings(examples: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        **more,
    )


def main() -> int:
    from pokerarena.ops import migrate
    from pokerarena.ops.embedded import EmbeddedPostgres

    parser = argparse.ArgumentParser(description="Attack the API with generated requests.")
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings-max", type=int, default=10, help="stop when there are so many")
    options = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pokerarena-dast-") as name:
        Path(name).chmod(0o711)
        with EmbeddedPostgres(Path(name) / "pg") as postgres:
            postgres.ensure_database("dast")
            migrate.upgrade(postgres.url("dast"))
            with attacked(postgres.url("dast")) as (server, world):
                attack = Attack(server, world)
                number = options.seed
                while attack.total < options.calls and len(attack.findings) < options.findings_max:
                    attack.singly(20, number)
                    attack.in_chains(60, number)
                    number += 1
                    print(
                        f"{attack.total:7,} calls, {len(attack.findings)} findings, "
                        f"{time.monotonic() - began_s:.0f} s",
                        flush=True,
                    )
    print(
        f"{attack.total:,} calls to {len(attack.calls)} routes, {attack.chained:,} of them in "
        f"{attack.chains:,} chains, in {time.monotonic() - began_s:.0f} s"
    )
    for counted in (attack.statuses, attack.by_caller):
        print("  " + ", ".join(f"{what}: {n:,}" for what, n in sorted(counted.items())))
    print("\n\n".join(attack.findings) or "no finding")
    return 1 if attack.findings else 0


if __name__ == "__main__":
    sys.exit(main())
