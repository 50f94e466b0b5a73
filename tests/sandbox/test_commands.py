"""The way of an agent's author: init, check, pack, and a match against the house."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokerarena.ops import examination
from pokerarena.sandbox.archive import read_upload
from tests.ops.test_cli import here, one_line

pytestmark = pytest.mark.usefixtures("runc")


@pytest.fixture
def mybot(tmp_path: Path) -> Path:
    folder = tmp_path / "mybot"
    assert here("agent", "init", str(folder)).returncode == 0
    return folder


def test_a_new_agent_is_checked_and_plays_in_a_sandbox(mybot: Path, root_tree: Path) -> None:
    where = ("--rootfs", str(root_tree.parent))
    checked = here("agent", "check", str(mybot), *where)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "passed: this agent speaks the protocol" in checked.stdout
    played = here("match", str(mybot), "house:tight", "--hands", "200", "--json", *where)
    assert played.returncode == 0, played.stderr
    result = json.loads(played.stdout)
    assert result["hands"] == 200
    assert [seat["name"] for seat in result["seats"]] == ["mybot", "tight"]
    assert [seat["fallbacks"] for seat in result["seats"]] == [{}, {}]
    assert sum(seat["chips"] for seat in result["seats"]) == 0


def test_a_sandbox_and_none_give_the_same_hands(mybot: Path, root_tree: Path) -> None:
    arguments = ("match", str(mybot), "house:random", "--hands", "60", "--seed", "s", "--json")
    inside = here(*arguments, "--rootfs", str(root_tree.parent))
    outside = here(*arguments, "--no-sandbox")
    chips = [
        [seat["chips"] for seat in json.loads(done.stdout)["seats"]] for done in (inside, outside)
    ]
    assert chips[0] == chips[1]


def test_several_hands_at_once_give_what_one_at_a_time_gives(mybot: Path) -> None:
    arguments = ("match", str(mybot), "house:caller", "--hands", "60", "--seed", "s", "--json")
    results = [
        json.loads(here(*arguments, "--no-sandbox", "--in-flight", count).stdout)["seats"]
        for count in ("1", "16")
    ]
    assert results[0] == results[1]


def test_a_match_without_a_runtime_says_what_is_missing_and_how_to_do_without(
    mybot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokerarena.sandbox.runtime._SYSTEM_FOLDERS", "/nowhere")
    line = one_line(here("match", str(mybot), "house:tight", "--hands", "10"))
    assert "runc is not installed" in line
    assert "--no-sandbox" in line
    line = one_line(here("agent", "check", str(mybot)))
    assert "runc is not installed" in line
    assert "python -m pokerarena_sdk check" in line
    finding = examination.examine()[1]
    assert (finding.subject, finding.well) == ("sandbox", True)
    assert "runc is not installed" in finding.text


def test_a_check_shows_an_agents_mistakes_and_its_last_words(mybot: Path, root_tree: Path) -> None:
    (mybot / "bot.py").write_text("import nothing_like_this\n")
    checked = here("agent", "check", str(mybot), "--rootfs", str(root_tree.parent))
    assert checked.returncode == 1
    assert "sandbox_exit" in checked.stdout
    assert "nothing_like_this" in checked.stdout


def test_packing_twice_gives_the_same_bytes_that_the_arena_reads(
    mybot: Path, tmp_path: Path
) -> None:
    packed = []
    for name in ("one.tar.gz", "two.tar.gz"):
        done = here("agent", "pack", str(mybot), "--out", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        packed.append((tmp_path / name).read_bytes())
    assert packed[0] == packed[1]
    package = read_upload(packed[0])
    assert package.digest in done.stdout
    assert "bot.py" in package.files


def test_a_folder_that_is_no_agent_is_refused_in_one_line(tmp_path: Path) -> None:
    for command in ("check", "pack"):
        line = one_line(here("agent", command, str(tmp_path)))
        assert "agent.json" in line
    line = one_line(here("match", "no-such-agent", "house:tight"))
    assert "a file or folder that is there" in line
