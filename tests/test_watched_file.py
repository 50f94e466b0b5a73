"""Files that are read again when they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokerarena.errors import ConfigurationError
from pokerarena.watched_file import CHECK_EVERY_S, FILE_MAX_BYTES, Fixed, WatchedFile, source_of


class Watch:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def number(raw: bytes) -> int:
    if not raw.strip().isdigit():
        raise ConfigurationError("it is no number")
    return int(raw)


def replace(path: Path, text: str) -> None:
    building = path.with_name("new")
    building.write_text(text)
    building.replace(path)


def test_a_change_is_noticed_within_a_second_and_what_is_no_good_changes_nothing(
    tmp_path: Path,
) -> None:
    path, watch = tmp_path / "n", Watch()
    path.write_text("1")
    file = WatchedFile(path, number, monotonic=watch)
    assert file.current() == 1
    replace(path, "2")
    assert file.current() == 1
    watch.now_s += CHECK_EVERY_S
    assert file.current() == 2
    for broken in ("x", "9" * (FILE_MAX_BYTES + 1), None):
        if broken is None:
            path.unlink()
        else:
            replace(path, broken)
        watch.now_s += CHECK_EVERY_S
        assert file.current() == 2
    replace(path, "33")
    assert file.current() == 2
    assert file.fresh() == 33


def test_a_link_that_comes_to_lead_elsewhere_is_a_change(tmp_path: Path) -> None:
    """As orchestrators replace mounted secrets."""
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "n").write_text(text)
    (tmp_path / "data").symlink_to("a")
    file = WatchedFile(tmp_path / "data" / "n", number)
    (tmp_path / "next").symlink_to("b")
    (tmp_path / "next").replace(tmp_path / "data")
    assert file.fresh() == 2


def test_what_is_no_good_at_first_is_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "n"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        WatchedFile(path, number)
    path.write_text("hunted")
    with pytest.raises(ConfigurationError, match="no number") as refused:
        WatchedFile(path, number)
    assert "hunted" not in refused.value.message
    path.write_text("1")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="everybody on the machine"):
        WatchedFile(path, number, private=True)
    path.chmod(0o640)
    assert WatchedFile(path, number, private=True).current() == 1
    with pytest.raises(ConfigurationError, match="is no file"):
        WatchedFile(tmp_path, number)


def test_what_was_given_without_a_file_stays(tmp_path: Path) -> None:
    assert isinstance(source_of(None, "7", number), Fixed)
    assert source_of(None, "7", number).fresh() == 7
    (tmp_path / "n").write_text("8")
    assert source_of(tmp_path / "n", "7", number).current() == 8
