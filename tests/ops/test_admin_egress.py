"""`pokerarena admin egress`: the lists and the approvals from the arena's own machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pokerarena.egress import approvals
from pokerarena.errors import ArenaError
from pokerarena.ids import IdKind, id_text
from pokerarena.ops import agent_project
from pokerarena.ops.cli import app
from tests.arena import open_arena


def test_an_operator_keeps_lists_and_decides_on_hosts(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POKERARENA_DATABASE_URL", database_url)

    def run(*words: str) -> list[str]:
        done = CliRunner().invoke(app, ["admin", "egress", *words], standalone_mode=False)
        if isinstance(done.exception, ArenaError):
            return [done.exception.code]
        assert done.exception is None, done.exception
        # Where the program runs by itself, what it logs goes to stderr.
        return [line for line in done.output.splitlines() if " audit " not in line]

    async def declared() -> str:
        async with open_arena(database_url) as arena:
            await arena.table(["hosted", "caller"])
            query = "SELECT id FROM agent_versions WHERE kind = 'hosted'"
            version_id = await arena.value(query)
            async with arena.database.unit_of_work() as session:
                approvals.declare(session, version_id, ["api.example.org:443"])
        return id_text(IdKind.VERSION, version_id)

    async def audited() -> list[str]:
        async with open_arena(database_url) as arena:
            rows = await arena.rows("SELECT event FROM audit_records ORDER BY seq")
        return [event for (event,) in rows if event.startswith("egress.")]

    version = asyncio.run(declared())
    (line,) = run("deny", "domain", ".Example.NET", "--note", "spam")
    rule_id = line.split()[0]
    assert line == f"{rule_id}  deny   domain .example.net  # spam"
    run("allow", "port", "443")
    assert [one.split(None, 1)[1] for one in run("list")] == [
        "allow  port 443", "deny   domain .example.net  # spam",
    ]  # fmt: skip
    assert run("remove", rule_id) == [f"{rule_id} removed"]
    assert run("remove", rule_id) == ["not_found"]
    assert run("deny", "port", "0") == ["egress_rule_invalid"]
    assert run("requests") == [f"{version}  api.example.org:443  pending"]
    assert run("approve", version, "api.example.org:443") == [
        f"{version}  api.example.org:443  approved"
    ]
    assert run("requests") == []
    assert run("refuse", version, "api.example.org:443") == run("requests", "--all")
    assert asyncio.run(audited()) == [
        "egress.rule_added", "egress.rule_added", "egress.rule_removed",
        "egress.approved", "egress.denied",
    ]  # fmt: skip


def test_a_kind_that_there_is_not_is_wrong_usage() -> None:
    done = CliRunner().invoke(app, ["admin", "egress", "deny", "planet", "earth"])
    assert done.exit_code == 2
    assert "none of domain, scheme, port, network" in done.output


def test_whoever_pushes_an_agent_is_told_which_hosts_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"number": 1, "id": "ver_1", "manifest": {"egress": ["api.example.org:443"]}}
    monkeypatch.setattr("pokerarena_sdk.project.push", lambda *_: made)
    said: list[str] = []
    example = Path(__file__).parents[2] / "examples" / "hosted" / "llm"
    assert agent_project.push(
        example,
        agent="agent_1",
        token="t",
        server="http://127.0.0.1:1",
        wait=False,
        write=said.append,
    )
    assert said[1].startswith("api.example.org:443 waits for an operator's approval")
