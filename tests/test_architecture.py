"""Rules of the house that no off-the-shelf linter knows."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pokerarena"
LINES_MAX = 450
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
# The rules have no clock, no input or output, no chance and no threads of their own.
EFFECTS = {
    "asyncio", "concurrent", "ctypes", "datetime", "glob", "http", "io", "logging",
    "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil", "signal", "socket",
    "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip


def modules(folder: Path = SOURCE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imports(path: Path) -> set[str]:
    """The absolute names that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)} imports relatively: name the room"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", modules(), ids=named)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    if "versions" in path.parts:
        return  # a migration is read once, from top to bottom
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", modules(), ids=named)
def test_a_module_has_a_name_that_says_what_it_owns(path: Path) -> None:
    assert not NAMES_THAT_SAY_NOTHING & set(path.stem.split("_"))


@pytest.mark.parametrize("room", ["engine", "protocol"])
def test_the_rules_and_the_protocol_use_nothing_of_ours_but_each_other(room: str) -> None:
    allowed = {"engine": ("pokerarena.engine",)}.get(
        room, ("pokerarena.engine", "pokerarena.protocol")
    )
    for path in modules(SOURCE / room):
        ours = {name for name in imports(path) if name.split(".")[0] == "pokerarena"}
        strangers = {name for name in ours if not name.startswith(allowed)}
        assert not strangers, f"{named(path)} imports {sorted(strangers)}"


def test_the_rules_use_the_standard_library_only_and_no_effects() -> None:
    for path in modules(SOURCE / "engine"):
        outside = {name.split(".")[0] for name in imports(path)} - {"pokerarena"}
        assert outside <= sys.stdlib_module_names, f"{named(path)} imports {sorted(outside)}"
        assert not outside & EFFECTS, f"{named(path)} imports {sorted(outside & EFFECTS)}"


def test_playing_a_run_knows_neither_sql_nor_http() -> None:
    play = SOURCE / "runs" / "play.py"
    forbidden = {"sqlalchemy", "psycopg", "procrastinate", "fastapi", "starlette", "pyreqwest"}
    if play.exists():
        assert not {name.split(".")[0] for name in imports(play)} & forbidden
        assert not {name for name in imports(play) if name in {"pokerarena.db", "pokerarena.jobs"}}


def test_no_source_file_speaks_of_unfinished_work() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X:")
    for path in modules():
        text = path.read_text()
        assert not [mark for mark in marks if mark in text], named(path)


def test_every_ignored_type_names_its_reason() -> None:
    for path in modules():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert "type: ignore" not in line or "type: ignore[" in line, f"{named(path)}:{number}"
