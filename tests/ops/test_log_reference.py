"""Every event that the program logs is in the catalogue, with its meaning."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pokerarena.ops import log_reference

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "logs.md").read_text()


def test_the_catalogue_is_that_of_the_code() -> None:
    assert log_reference.renewed(TEXT) == TEXT, "run 'make docs'"


def test_every_event_is_explained() -> None:
    said = log_reference.meanings(TEXT)
    events = {call.event for call in log_reference.calls()}
    assert set(said) == events
    assert [event for event, meaning in said.items() if not meaning] == []


def test_an_event_is_named_for_what_happened_and_not_for_what_was_in_it() -> None:
    for call in log_reference.calls():
        assert call.event.replace("_", "").isalpha(), call
        assert call.event.islower(), call


def test_every_logger_goes_by_the_name_that_the_catalogue_looks_for() -> None:
    """A logger under another name would log events that nobody finds."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id == "get_logger":
                assert "log = get_logger(" in path.read_text(), path


def test_no_event_carries_what_is_secret() -> None:
    for call in log_reference.calls():
        assert not {"body", "headers", "query", "cards", "holes", "seed", "secret"} & {*call.fields}


def test_an_event_made_at_run_time_is_refused(tmp_path: Path) -> None:
    (tmp_path / "room.py").write_text('log.info(f"run_{name}")\n')
    with pytest.raises(log_reference.Unreadable, match=r"room\.py:1"):
        list(log_reference.calls(tmp_path))
