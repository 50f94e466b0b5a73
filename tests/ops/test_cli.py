"""The command line keeps its word to scripts: exit codes, and one line for what went wrong."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from pokerarena.ops import cli


def pokerarena(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if "POKERARENA" not in name}
    return subprocess.run(
        [sys.executable, "-m", "pokerarena.ops.cli", *arguments],
        env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same, in this process: quick, for what needs neither signals nor an environment."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["pokerarena", *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("pokerarena: ")
    return lines[0]


def test_help_names_every_command_of_the_contract() -> None:
    done = pokerarena("--help")
    assert done.returncode == 0
    listed = done.stdout.partition("Commands:")[2]
    names = {line.split()[0] for line in listed.splitlines() if line.startswith("  ")}
    expected = {"up", "api", "worker", "migrate", "match", "doctor", "agent", "watch", "admin"}
    assert expected <= names


def test_help_is_quick() -> None:
    took = []
    for _ in range(5):
        before = os.times()
        assert pokerarena("--help").returncode == 0
        after = os.times()
        took.append(
            after.children_user + after.children_system
            - before.children_user - before.children_system
        )  # fmt: skip
    # Processor time of the best of five: what the command costs, whatever else the machine does.
    assert min(took) < 0.4


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["up", "--port", "many"], ["migrate", "sideways"], ["up", "--por"]]
)
def test_wrong_usage_is_one_line_that_says_where_to_look_and_exit_code_2(
    arguments: list[str],
) -> None:
    done = here(*arguments)
    assert done.returncode == 2
    assert "--help" in one_line(done)


def test_a_missing_setting_is_named_in_one_line_with_exit_code_1() -> None:
    done = pokerarena("migrate", "check")
    assert done.returncode == 1
    assert "POKERARENA_DATABASE_URL" in one_line(done)


def test_a_database_that_is_not_there_is_one_line_with_exit_code_1(tmp_path: Path) -> None:
    done = pokerarena(
        "migrate", "up", POKERARENA_DATABASE_URL=f"postgresql+psycopg://x@/x?host={tmp_path}"
    )
    assert done.returncode == 1
    assert "cannot be reached" in one_line(done)


def test_the_schema_goes_up_and_down_by_hand(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POKERARENA_DATABASE_URL", empty_database_url)

    def migrate(*arguments: str) -> subprocess.CompletedProcess[str]:
        return here("migrate", *arguments)

    assert migrate("check").returncode == 1
    up = migrate("up")
    assert (up.returncode, up.stdout[:10]) == (0, "schema at ")
    assert migrate("check").returncode == 0
    unsure = migrate("down", "base")
    assert unsure.returncode == 2
    assert "--yes" in one_line(unsure)
    assert migrate("check").returncode == 0
    assert migrate("down", "base", "--yes").returncode == 0
    assert migrate("check").returncode == 1


def test_the_doctor_finds_an_installation_well(database_url: str) -> None:
    done = pokerarena("doctor", POKERARENA_DATABASE_URL=database_url)
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    subjects = {line.split()[1].rstrip(":") for line in done.stdout.splitlines()}
    assert {"settings", "database", "schema", "clock", "connections", "queue"} <= subjects


def test_the_doctor_says_what_to_do_about_a_schema_that_is_behind(empty_database_url: str) -> None:
    done = pokerarena("doctor", POKERARENA_DATABASE_URL=empty_database_url)
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1
    assert "pokerarena migrate up" in failed[0]


def test_a_wrong_setting_is_a_finding_and_not_a_crash() -> None:
    done = pokerarena("doctor", POKERARENA_DATABASE_URL="x", POKERARENA_API_PORT="99999999")
    assert done.returncode == 1
    assert "POKERARENA_API_PORT" in done.stdout
    assert done.stderr == ""
