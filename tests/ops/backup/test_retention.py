"""What may be deleted is deleted, and nothing that a kept backup needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pokerarena.errors import Conflict, NotFound
from pokerarena.ops.backup.repository import BaseBackup, Repository, next_segment, segment_of
from pokerarena.ops.backup.storage import DirectoryStorage

NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(DirectoryStorage(tmp_path))


def put(repository: Repository, file: str) -> None:
    with repository.storage.writing(file) as out:
        out.write(b"sealed")


def add(repository: Repository, days_old: int, segment: int) -> str:
    finished_at = NOW - timedelta(days=days_old)
    label = repository.new_label(finished_at)
    put(repository, repository.sealed_base(label))
    repository.add(
        BaseBackup(
            label, finished_at, finished_at, f"{segment:024X}", f"0/{segment:X}000000", "18", 1, 1
        )
    )
    return label


def add_wal(repository: Repository, *names: str) -> None:
    for name in names:
        put(repository, repository.sealed_wal(name))


def test_old_bases_go_with_the_wal_that_only_they_needed(repository: Repository) -> None:
    oldest = add(repository, 30, 1)
    kept = [add(repository, 20, 4), add(repository, 10, 7)]
    segments = [f"{number:024X}" for number in range(1, 9)]
    add_wal(repository, *segments, f"{9:024X}.partial", "00000002.history")
    pruned = repository.prune(keep_min=1, keep_days=25, now=NOW)
    assert pruned == ((oldest,), 3)
    assert [base.label for base in repository.bases()] == kept
    assert repository.wal_names() == ["00000002.history", *segments[3:], f"{9:024X}.partial"] or (
        set(repository.wal_names()) == {"00000002.history", *segments[3:], f"{9:024X}.partial"}
    )
    assert f"{oldest}.sealed" not in repository.storage.names("base")


def test_the_last_ones_are_kept_however_old(repository: Repository) -> None:
    labels = [add(repository, days, 10 - days // 100) for days in (900, 800, 700)]
    pruned = repository.prune(keep_min=2, keep_days=1, now=NOW)
    assert pruned.bases == (labels[0],)
    assert repository.prune(keep_min=2, keep_days=1, now=NOW).bases == ()


def test_a_restore_starts_from_the_last_base_complete_by_then(repository: Repository) -> None:
    labels = [add(repository, days, 1) for days in (3, 2, 1)]
    assert repository.base_for(None).label == labels[2]
    assert repository.base_for(NOW - timedelta(days=1, hours=12)).label == labels[1]
    assert repository.base_for(None, labels[0]).label == labels[0]
    with pytest.raises(NotFound):
        repository.base_for(NOW - timedelta(days=4))


def test_one_process_at_a_time_has_its_turn(repository: Repository) -> None:
    with (
        repository.turn("create"),
        pytest.raises(Conflict, match="Another process"),
        repository.turn("create"),
    ):
        pass
    with repository.turn("create"):
        pass


def test_segments_are_named_as_postgresql_names_them() -> None:
    assert segment_of(1, "0/2000028") == "000000010000000000000002"
    assert segment_of(2, "1/FF000000") == "0000000200000001000000FF"
    assert next_segment("0000000200000001000000FF") == "000000020000000200000000"
