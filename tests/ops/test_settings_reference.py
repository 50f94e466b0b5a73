"""The document of the settings is that of these settings."""

from __future__ import annotations

from pathlib import Path

from pokerarena.ops import settings_reference
from pokerarena.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_operations_manual_lists_every_setting_as_it_is() -> None:
    text = DOCUMENT.read_text()
    assert settings_reference.renewed(text) == text, "run 'make docs'"


def test_a_secret_never_shows_a_default() -> None:
    for line in settings_reference.reference().splitlines():
        if "MASTER_KEY" in line or "TOKEN_PEPPER" in line:
            assert "| none |" in line


def test_no_setting_is_left_out_or_unexplained() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    rows = settings_reference.reference().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
