"""Schemathesis against a real server: generated requests of every kind of caller to every route.

Owns what counts as a failure: an error of ours (5xx), or an answer that the OpenAPI document does
not describe. `make dast` runs this module for long; a test runs it for a few examples.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.arena import PASSWORD
from tests.api.served import Server

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# An open stream ends only when its client goes: tests of live views judge it.
LEFT_OUT = {"/v1/tables/{table_id}/live"}
# These would end the session that asks.
ENDING = {"/v1/auth/logout"}


class Attack:
    """Counts what was asked and what was found."""

    def __init__(self, server: Server, tokens: dict[str, str | None]) -> None:
        self.calls: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.findings: list[str] = []
        self._tokens = tokens
        self._url = f"http://127.0.0.1:{server.port}"
        self._schema = schemathesis.openapi.from_url(f"{self._url}/openapi.json")
        self._schema.config.generation.update(modes=list(GenerationMode))

    def run(self, examples: int, first_seed: int) -> None:
        """That many requests of each caller to each route."""
        for found in self._schema.get_all_operations():
            operation = found.ok()
            if operation.path in LEFT_OUT:
                continue
            for caller, token in self._tokens.items():
                if token is not None and operation.path in ENDING:
                    continue
                self._attack(operation, caller, token, examples, first_seed)

    def _attack(
        self, operation: Any, caller: str, token: str | None, examples: int, first_seed: int
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}

        @seed(first_seed)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def asked(case: Any) -> None:
            response = case.call(headers=headers, timeout=30)
            self.calls[f"{operation.method} {operation.path}"] += 1
            self.statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        try:
            asked()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            shown = "\n".join(str(error).splitlines()[:25])
            self.findings.append(f"{caller}: {operation.label}\n{shown}")


@contextmanager
def attacked(database_url: str) -> Iterator[Attack]:
    """A server with something in it, and callers of every kind."""
    # Nobody reads its log while it is asked.
    server = Server(database_url, POKERARENA_LOG_LEVEL="ERROR")
    try:
        server.log_in("member")
        member = server.token
        table = server.ok("POST", "/v1/tables", {"name": "T", "visibility": "public"})
        agent = server.ok("POST", "/v1/agents", {"name": "A"})
        version = server.ok(
            "POST", f"/v1/agents/{agent['id']}/versions", {"kind": "house", "house_name": "caller"}
        )
        server.ok(
            "PUT",
            f"/v1/tables/{table['id']}/seats/1",
            {"agent_id": agent["id"], "version_id": version["id"]},
        )
        make_operator(database_url)
        server.token = None
        operator = server.ok(
            "POST", "/v1/auth/login", {"username": "operator", "password": PASSWORD}
        )["access_token"]
        yield Attack(
            server,
            {"nobody": None, "member": member, "operator": operator, "liar": "pka_" + "0" * 36},
        )
    finally:
        server.stop()


def make_operator(database_url: str) -> None:
    from pokerarena.auth.models import Role
    from pokerarena.ops.accounts import create_account
    from tests.api.arena import settings_for

    create_account(
        settings_for(database_url), username="operator", password=PASSWORD, role=Role.OPERATOR
    )


def main() -> int:
    from pokerarena.ops import migrate
    from pokerarena.ops.embedded import EmbeddedPostgres

    parser = argparse.ArgumentParser(description="Attack the API with generated requests.")
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pokerarena-dast-") as name:
        Path(name).chmod(0o711)
        with EmbeddedPostgres(Path(name) / "pg") as postgres:
            postgres.ensure_database("dast")
            migrate.upgrade(postgres.url("dast"))
            with attacked(postgres.url("dast")) as attack:
                number = options.seed
                while sum(attack.calls.values()) < options.calls and not attack.findings:
                    attack.run(50, number)
                    number += 1
    print(f"{sum(attack.calls.values())} calls to {len(attack.calls)} routes")
    print("  " + ", ".join(f"{status}: {n}" for status, n in sorted(attack.statuses.items())))
    print("\n\n".join(attack.findings) or "no finding")
    return 1 if attack.findings else 0


if __name__ == "__main__":
    sys.exit(main())
