"""A match from the command line: the contract that scripts rely on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pokerkit
import pytest

from tests.ops.test_cli import here, pokerarena

SEATS = ("house:tight", "house:random", "house:caller")


def played(*arguments: str) -> dict[str, Any]:
    done = here("match", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_match_needs_neither_server_nor_database_nor_settings() -> None:
    done = pokerarena("match", *SEATS, "--hands", "300", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["hands"] == 300
    assert [seat["name"] for seat in result["seats"]] == ["tight", "random", "caller"]
    assert sum(seat["chips"] for seat in result["seats"]) == 0
    for seat in result["seats"]:
        low, high = seat["ci95"]
        assert low < seat["bb_per_100"] < high
        assert seat["fallbacks"] == {}
    assert {"duration_s", "hands_per_s", "decisions_per_s"} <= result.keys()


@pytest.mark.parametrize("rules", [[], ["--format", "cash"], ["--format", "duplicate"]])
def test_the_same_seed_gives_the_same_result_and_another_gives_another(rules: list[str]) -> None:
    def chips(seed: str) -> list[int]:
        result = played(*SEATS, "--hands", "60", "--seed", seed, *rules)
        return [seat["chips"] for seat in result["seats"]]

    assert chips("one") == chips("one")
    assert chips("one") != chips("two")


@pytest.mark.filterwarnings("ignore:There is no reason for this player to fold")
def test_exported_hands_are_read_by_pokerkit_with_the_same_end(tmp_path: Path) -> None:
    file = tmp_path / "hands.phhs"
    result = played(*SEATS, "--hands", "40", "--seed", "x", "--export", str(file))
    net = dict.fromkeys(["tight", "random", "caller"], 0)
    with file.open("rb") as lines:
        histories = list(pokerkit.HandHistory.load_all(lines))
    assert len(histories) == 40
    for history in histories:
        *_, state = history
        assert state.stacks == list(history.finishing_stacks)
        for name, before, after in zip(
            history.players, history.starting_stacks, state.stacks, strict=True
        ):
            net[name] += after - before
    assert net == {seat["name"]: seat["chips"] for seat in result["seats"]}


def test_a_person_gets_a_relation_and_the_seed() -> None:
    done = here("match", "house:tight", "house:tight", "--hands", "10", "--seed", "again")
    assert done.returncode == 0
    assert "tight #1" in done.stdout
    assert "95 % interval" in done.stdout
    assert "--seed again" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["house:tight"], "seats"),
        (["house:tight", "house:nobody"], "nobody"),
        (["house:tight", "./agent.py"], "agent.py"),
        (["house:tight", "ftp://127.0.0.1/"], "ftp"),
        (["house:tight", "house:random", "--format", "freezeout"], "freezeout"),
        (["house:tight", "house:random", "--blinds", "100"], "100"),
        (["house:tight", "house:random", "--blinds", "100/50"], "blind"),
        (["house:tight", "house:random", "--hands", "0"], "hands"),
        (["house:tight", "house:random", "--hands", "3", "--format", "duplicate"], "multiple"),
        (["house:tight", "house:random", "--export", "hands.csv"], ".phhs"),
        (["house:tight", "house:random", "--export", "/nowhere/hands.phhs"], "/nowhere"),
    ],
)
def test_what_is_no_match_is_wrong_usage_in_one_line(arguments: list[str], word: str) -> None:
    done = here("match", *arguments)
    assert done.returncode == 2, done.stdout
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert word in done.stderr


def test_ctrl_c_ends_a_match_with_the_result_so_far(tmp_path: Path) -> None:
    file = tmp_path / "hands.log"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pokerarena.ops.cli", "match", *SEATS, "--json"),
            *("--hands", "5000000", "--export", str(file)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (file.exists() and file.stat().st_size > 10_000):
            assert time.monotonic() < deadline, "it never began to play"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert 0 < json.loads(output)["hands"] < 5_000_000
