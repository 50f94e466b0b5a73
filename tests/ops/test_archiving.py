"""Old hands leave the database only into a file that was read back, whatever happens on the way."""

from __future__ import annotations

import gzip
import json
import stat
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from pokerarena.errors import ArenaError, Conflict, Invalid
from pokerarena.history import archive_file, archives
from pokerarena.history.archive_file import HANDS_FILE, MANIFEST, DamagedArchive
from pokerarena.history.partitions import first_id
from pokerarena.ids import new_id
from pokerarena.ops import archiving, migrate
from pokerarena.ops.verify import verify_database
from pokerarena.runs import play, service
from pokerarena.runs.soundness import check_run
from tests.arena import Arena, arena_settings, open_arena
from tests.ops.test_cli import pokerarena

NOW = datetime.now(UTC)
# Older than this month: before the first partition that a new database makes.
LONG_AGO = (int(NOW.timestamp()) - 40 * 86_400) * 1000
HANDS = 12


def old_id() -> UUID:
    """As if made 40 days ago."""
    fresh = new_id()
    age = (int(NOW.timestamp() * 1000) - LONG_AGO) << 80
    return UUID(int=fresh.int - age)


@pytest.fixture
async def arena(database_url: str) -> AsyncIterator[Arena]:
    async with open_arena(database_url) as arena:
        yield arena


async def played(
    arena: Arena,
    monkeypatch: pytest.MonkeyPatch,
    *,
    run_id: Callable[[], UUID] = old_id,
    **how: Any,
) -> UUID:
    """A run that was ordered at another time, and whose hands are of today unless said otherwise."""
    with monkeypatch.context() as patched:
        patched.setattr(service, "new_id", run_id)
        patched.setattr(play, "new_id", how.pop("hand_id", new_id))
        ordered = await arena.order(["random", "tight", "caller"], HANDS, **how)
        assert (await arena.play(ordered)).status == "completed"
    return ordered


async def archived(arena: Arena, directory: Path) -> list[archiving.Archived]:
    return await archiving.archive_before(
        arena.settings, NOW, directory, place="ask the operators", tell=lambda _: None
    )


async def count(arena: Arena, relation: str, run_id: UUID) -> int:
    key = "run_id" if relation == "hands" else "hand_id"
    ids = "SELECT :id" if relation == "hands" else "SELECT id FROM hands WHERE run_id = :id"
    return int(
        await arena.value(f"SELECT count(*) FROM {relation} WHERE {key} IN ({ids})", id=run_id)
    )


async def test_old_runs_go_to_a_file_and_everything_but_their_hands_stays(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = await played(arena, monkeypatch, hand_id=old_id, format="duplicate")
    across = await played(arena, monkeypatch)
    new = await played(arena, monkeypatch, run_id=new_id)
    totals = "SELECT run_id, seat_no, net, hands, unit_sum_squares FROM run_seats ORDER BY 1, 2"
    before = await arena.rows(totals)

    (done,) = await archived(arena, tmp_path)
    assert (done.name, done.runs, done.hands) == ("hands_before", 2, 2 * HANDS)
    assert done.folder is not None
    assert stat.S_IMODE(done.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((done.folder / HANDS_FILE).stat().st_mode) == 0o600
    assert [await count(arena, "hands", run) for run in (old, across, new)] == [0, 0, HANDS]
    # Cards of a later month stay until that month goes; those of the month itself are gone.
    assert await arena.value("SELECT count(*) FROM hand_cards") == 2 * HANDS
    assert await arena.value("SELECT to_regclass('hand_cards_before')::text") is None
    assert await arena.rows(totals) == before

    content = gzip.decompress((done.folder / HANDS_FILE).read_bytes())
    lines = [json.loads(line) for line in content.splitlines()]
    runs = [line["run"]["run_id"] for line in lines if "run" in line]
    assert runs == sorted([str(old), str(across)])
    assert sum("hand" in line for line in lines) == 2 * HANDS
    noted = [line["hand"]["notes"] for line in lines if "hand" in line]
    assert all(isinstance(notes, list) for notes in noted)

    findings: list[str] = []
    summary = await verify_database(arena.settings, None, findings.append)
    assert (summary.runs, summary.hands, summary.archived, findings) == (3, HANDS, 2, [])
    manifest = await archiving.verify_archive(arena.settings, done.folder)
    assert manifest.hands == 2 * HANDS
    # A second time there is nothing to do.
    assert await archived(arena, tmp_path) == []

    # The way down moves what is left together, and drops the cards of hands that are gone.
    url = arena.settings.database_url.get_secret_value()
    migrate.downgrade(url, "hosted_0002")
    await arena.database.engine.dispose()
    assert await arena.value("SELECT count(*) FROM hands") == HANDS
    assert await arena.value("SELECT count(*) FROM hand_cards") == HANDS
    migrate.upgrade(url)
    await arena.database.engine.dispose()
    assert migrate.drift(url) == []
    checked = await check_run(arena.database, new)
    assert checked is not None
    assert (checked.hands, checked.findings) == (HANDS, ())


async def test_an_archived_run_is_never_played_again(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_id = await played(arena, monkeypatch)
    await archived(arena, tmp_path)
    async with arena.database.unit_of_work() as session:
        await session.execute(text("UPDATE runs SET status = 'stopped'"))
    with pytest.raises(Conflict) as refused:
        async with arena.database.unit_of_work() as session:
            await service.resume_run(session, run_id)
    assert refused.value.code == "run_archived"
    # The release before knows nothing of archives; the database refuses for it.
    with pytest.raises(IntegrityError, match="ck_runs_archived"):
        async with arena.database.unit_of_work() as session:
            await session.execute(text("UPDATE runs SET status = 'queued'"))


async def test_runs_that_are_on_hold_their_month_back(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_id = await played(arena, monkeypatch)
    async with arena.database.unit_of_work() as session:
        await session.execute(text("UPDATE runs SET status = 'running'"))
    with pytest.raises(Conflict) as refused:
        await archived(arena, tmp_path)
    assert refused.value.code == "runs_active"
    assert run_id.hex in refused.value.message
    assert await count(arena, "hands", run_id) == HANDS
    assert await arena.rows("SELECT * FROM history_archives") == []
    with pytest.raises(Invalid):
        await archiving.archive_before(
            arena.settings, datetime(2999, 1, 1, tzinfo=UTC), tmp_path, place="", tell=print
        )


class Killed(BaseException):
    """As a kill: nothing of the program catches it."""


@pytest.mark.parametrize("where", ["freezing", "writing", "naming", "reading", "dropping"])
async def test_a_kill_on_the_way_loses_nothing_and_the_next_try_ends_it(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    run_id = await played(arena, monkeypatch)

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    room, name = {
        "freezing": (archiving, "_folder"),
        "writing": (archive_file.ArchiveWriter, "end"),
        "naming": (archive_file, "_sync"),
        "reading": (archive_file, "check"),
        # The partition is dropped by then, and the transaction is not committed.
        "dropping": (archiving, "_drop_cards"),
    }[where]
    with monkeypatch.context() as patched:
        patched.setattr(room, name, killed)
        with pytest.raises(Killed):
            await archived(arena, tmp_path)
    assert await count(arena, "hands", run_id) == HANDS
    assert await count(arena, "hand_cards", run_id) == HANDS
    checked = await check_run(arena.database, run_id)
    assert checked is not None
    assert (checked.hands, checked.findings, checked.archived) == (HANDS, (), False)
    with pytest.raises(Conflict):
        async with arena.database.unit_of_work() as session:
            await service.resume_run(session, run_id)

    (done,) = await archived(arena, tmp_path)
    assert (done.runs, done.hands) == (1, HANDS)
    assert await count(arena, "hands", run_id) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["hands_before"]


async def test_an_archive_can_be_given_up_until_its_hands_are_gone(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_id = await played(arena, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(archive_file, "check", lambda _: (_ for _ in ()).throw(Killed()))
        with pytest.raises(BaseException):  # noqa: B017, PT011 - whatever a thread makes of it
            await archived(arena, tmp_path)
    async with arena.database.unit_of_work() as session:
        await archives.thaw(session, "hands_before")
    assert (await arena.look(run_id)).archive_id is None
    await archived(arena, tmp_path)
    with pytest.raises(ArenaError) as refused:
        async with arena.database.unit_of_work() as session:
            await archives.thaw(session, "hands_before")
    assert refused.value.code == "archived"


async def test_damage_to_an_archive_is_found_and_nothing_is_dropped_for_it(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_id = await played(arena, monkeypatch)
    # A hand that does not follow in its chain is not archived.
    async with arena.database.unit_of_work() as session:
        await session.execute(text("UPDATE hands SET level = 1 WHERE hand_no = 7"))
    with pytest.raises(DamagedArchive, match="breaks the chain at hand 7"):
        await archived(arena, tmp_path / "first")
    assert await count(arena, "hands", run_id) == HANDS
    async with arena.database.unit_of_work() as session:
        await session.execute(text("UPDATE hands SET level = 0 WHERE hand_no = 7"))
    (done,) = await archived(arena, tmp_path / "second")
    folder = done.folder
    assert folder is not None

    whole = (folder / HANDS_FILE).read_bytes()
    said = json.loads((folder / MANIFEST).read_text())
    lines = gzip.decompress(whole).splitlines(keepends=True)

    def written(content: bytes) -> None:
        """With a manifest that fits the file, as somebody would write who means harm."""
        (folder / HANDS_FILE).write_bytes(content)
        sha256 = archive_file.hashlib.sha256(content).hexdigest()
        (folder / MANIFEST).write_text(json.dumps({**said, "sha256": sha256}, indent=1) + "\n")

    (folder / HANDS_FILE).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedArchive, match="is not the file"):
        archive_file.check(folder)
    for change, why in (
        (lines[:5] + lines[6:], "breaks the chain|lacks a hand"),
        (lines[:-1], "does not end as"),
        ([*lines[:5], lines[5].replace(b'"deal_no":', b'"deal_no":1'), *lines[6:]], "chain"),
        (lines[:1], "holds less"),
    ):
        written(gzip.compress(b"".join(change)))
        with pytest.raises(DamagedArchive, match=why):
            archive_file.check(folder)
    # Whole in itself, and not what was archived.
    written(gzip.compress(b"".join(lines)))
    archive_file.check(folder)
    with pytest.raises(DamagedArchive, match="another manifest"):
        await archiving.verify_archive(arena.settings, folder)


def test_retention_is_for_ever_unless_days_are_set(database_url: str) -> None:
    settings = arena_settings(database_url)
    assert archiving.end_of_retention(settings, NOW) is None
    aged = settings.model_copy(update={"history_keep_days": 45})
    assert archiving.end_of_retention(aged, NOW) == NOW - timedelta(days=45)


async def test_the_command_keeps_for_ever_unless_told_and_says_what_it_did(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await played(arena, monkeypatch)
    environment = {"POKERARENA_DATABASE_URL": arena.settings.database_url.get_secret_value()}
    kept = pokerarena("history", "archive", **environment)
    assert (kept.returncode, "kept for ever" in kept.stdout) == (0, True)
    environment["POKERARENA_HISTORY_ARCHIVE_DIRECTORY"] = str(tmp_path)
    done = pokerarena("history", "archive", "--before", f"{NOW:%Y-%m}-01", **environment)
    assert (done.returncode, done.stderr) == (0, "1 months archived\n")
    assert done.stdout == f"hands_before: 1 runs, {HANDS} hands in {tmp_path / 'hands_before'}\n"
    assert pokerarena("history", "prepare", **environment).stdout == "0 partitions made\n"
    listed = pokerarena("history", "list", **environment)
    assert f"hands_before  archived  1 runs  {HANDS} hands" in listed.stdout
    whole = pokerarena("verify", **environment)
    assert "1 runs, 0 hands, 1 runs archived: whole" in whole.stderr


def test_an_id_of_the_past_is_in_the_first_partition() -> None:
    assert old_id() < first_id(NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
