"""Taking whole partitions of ended runs out of the database: frozen, written, read back, dropped.

Owns the order. A kill at any point costs nothing but a second try: runs stay frozen, a half-written
folder is thrown away, a finished one is read back again, and hands are dropped in the one transaction
that says where they went. It works with the rights of the database's owner; no role that serves may
drop anything.
Must never: drop a hand that was not read back from the archive's file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import MetaData, Table, func, select, table, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import DropTable

from pokerarena.db import Database
from pokerarena.errors import Conflict, Invalid, Unavailable
from pokerarena.history import archive_file, archives
from pokerarena.history.archive_file import ArchivedRun, ArchiveWriter, DamagedArchive, Manifest
from pokerarena.history.models import ArchiveState, DecisionNote, HandCards, HandRow, HistoryArchive
from pokerarena.history.partitions import KEY_OF_RELATION, ensure_partitions, first_id
from pokerarena.runs.models import Run, RunSeat
from pokerarena.settings import Settings

PAGE_HANDS: Final = 500
PAGE_RUNS: Final = 200
LOCK_TRIES: Final = 20
LOCK_PAUSE_S: Final = 0.5

_PARTITIONS: Final = text(
    r"""
    SELECT c.relname,
           (regexp_match(b, 'FROM \(''([0-9a-f-]{36})''\)'))[1]::uuid,
           (regexp_match(b, 'TO \(''([0-9a-f-]{36})''\)'))[1]::uuid,
           greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b
    WHERE i.inhparent = CAST(CAST(:whole AS text) AS regclass)
    ORDER BY 3 NULLS LAST
    """
)
# To drop a partition takes all of `runs`, and so from whoever stores begins with it. Each lock is given
# up so soon that nobody else looks for a deadlock (1 s).
_LOCK: Final = (
    "SET LOCAL lock_timeout = '200ms'",
    "LOCK TABLE runs, hands, hand_cards, decision_notes IN ACCESS EXCLUSIVE MODE",
)


class Partition(NamedTuple):
    """One partition; the default one has no end."""

    name: str
    begins: UUID | None
    ends: UUID | None
    rows: int
    bytes: int


class Archived(NamedTuple):
    """What became of one partition."""

    name: str
    folder: Path | None
    runs: int
    hands: int


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    """The database for these commands. Raises `Unavailable`."""
    database = Database(settings, application_name="pokerarena history")
    try:
        yield database
    except DBAPIError as error:
        reason = str(error.orig).strip().split("\n", 1)[0]
        raise Unavailable(
            "database_unusable",
            f"The database refused ({reason}); archives need its owner's rights, as 'migrate' does.",
        ) from None
    finally:
        await database.close()


async def partitions(session: AsyncSession, whole: str) -> list[Partition]:
    """The partitions of a relation, oldest first, the default one last."""
    return [Partition(*row) for row in await session.execute(_PARTITIONS, {"whole": whole})]


def end_of_retention(settings: Settings, now: datetime) -> datetime | None:
    """Runs ordered before this moment may go; None where everything is kept."""
    if settings.history_keep_days is None:
        return None
    return now - timedelta(days=settings.history_keep_days)


async def archive_before(
    settings: Settings,
    before: datetime,
    directory: Path,
    *,
    place: str,
    tell: Callable[[str], object],
) -> list[Archived]:
    """Archive, oldest first, every partition whose runs were all ordered before a moment.

    Raises `Conflict` (``runs_active``), `DamagedArchive`, `Unavailable`, `Invalid`.
    """
    if before > datetime.now(UTC):
        raise Invalid("archive_before", "Only what is over can be archived: name a moment past.")
    done = []
    async with opened(settings) as database:
        async with database.unit_of_work() as session:
            await ensure_partitions(session, settings.history_months_ahead)
            ripe = [
                one
                for one in await partitions(session, "hands")
                if one.ends is not None and one.ends <= first_id(before)
            ]
        for partition in ripe:
            archived = await _archive(database, partition, directory, place)
            tell(_told(archived))
            done.append(archived)
    return done


def _told(archived: Archived) -> str:
    if archived.folder is None:
        return f"{archived.name}: no run, dropped"
    return f"{archived.name}: {archived.runs} runs, {archived.hands} hands in {archived.folder}"


async def _archive(
    database: Database, partition: Partition, directory: Path, place: str
) -> Archived:
    assert partition.ends is not None, "the default partition is never archived"
    async with database.unit_of_work() as session:
        runs = (
            await session.scalars(
                select(Run.id)
                .where(archives.runs_between(partition.begins, partition.ends))
                .order_by(Run.id)
            )
        ).all()
        if runs:
            archive = await archives.freeze(
                session, partition.name, partition.begins, partition.ends, place
            )
            archive_id, name = archive.id, archive.name
    if not runs:
        await _drop(database, None, partition)
        return Archived(partition.name, None, 0, 0)
    folder, written = _folder(directory, name)
    if not written:
        try:
            with archive_file.building(folder) as unfinished:
                await _write(database, name, runs, unfinished)
        except OSError as error:
            raise Unavailable(
                "archive_not_written", f"{folder} cannot be written: {error.strerror}."
            ) from None
    manifest = await asyncio.to_thread(archive_file.check, folder)
    await _compare(database, manifest, runs, folder)
    await _compare_count(database, manifest, partition)
    await _drop(database, (archive_id, manifest), partition)
    return Archived(name, folder, len(runs), manifest.hands)


async def _write(database: Database, name: str, runs: Sequence[UUID], folder: Path) -> None:
    """The runs are frozen: what is read here, a page at a time, cannot change any more."""
    with archive_file.new_file(folder / archive_file.HANDS_FILE) as out:
        writer = ArchiveWriter(out, name)
        for run_id in runs:
            async with database.session() as session:
                run = await session.get_one(Run, run_id)
                facts = await _facts(session, run)
            writer.run(run.id, facts, run.hands_done, run.chain_head)
            after = 0
            while True:
                page, noted = await _page(database, run_id, after)
                for row, cards in page:
                    writer.hand(row, cards, noted.get(row.id, ()))
                if len(page) < PAGE_HANDS:
                    break
                after = page[-1][0].hand_no
        manifest = writer.end()
    with archive_file.new_file(folder / archive_file.MANIFEST) as out:
        out.write(manifest.text().encode())


async def _facts(session: AsyncSession, run: Run) -> dict[str, Any]:
    """What makes the hands readable without the database."""
    seats = await session.scalars(
        select(RunSeat).where(RunSeat.run_id == run.id).order_by(RunSeat.seat_no)
    )
    return {
        "table_id": str(run.table_id),
        "created_at": run.created_at.isoformat(),
        "rules": run.rules,
        "reveal_policy": run.reveal_policy,
        "seed_sha256": run.seed_sha256.hex(),
        "seats": [
            {
                "seat_no": seat.seat_no,
                "agent": seat.agent_name,
                "version": seat.version_number,
                "version_id": str(seat.version_id),
                "net": seat.net,
            }
            for seat in seats
        ],
    }


async def _page(
    database: Database, run_id: UUID, after_hand_no: int
) -> tuple[list[tuple[HandRow, bytes]], dict[UUID, list[DecisionNote]]]:
    async with database.session() as session:
        rows = await session.execute(
            select(HandRow, HandCards.cards)
            .join(HandCards, HandCards.hand_id == HandRow.id)
            .where(HandRow.run_id == run_id, HandRow.hand_no > after_hand_no)
            .order_by(HandRow.hand_no)
            .limit(PAGE_HANDS)
        )
        page = [(row, cards) for row, cards in rows]
        noted: dict[UUID, list[DecisionNote]] = {}
        for note in await session.scalars(
            select(DecisionNote)
            .where(DecisionNote.hand_id.in_([row.id for row, _ in page]))
            .order_by(DecisionNote.hand_id, DecisionNote.action_no)
        ):
            noted.setdefault(note.hand_id, []).append(note)
    return page, noted


async def _compare(
    database: Database, manifest: Manifest, runs: Sequence[UUID], folder: Path
) -> None:
    """Whether the archive has these runs to the end that the database knows of."""
    listed = {run.run_id: run for run in manifest.runs}
    if list(listed) != [str(run_id) for run_id in runs]:
        raise DamagedArchive(folder, "has other runs than the database")
    for begin in range(0, len(runs), PAGE_RUNS):
        async with database.session() as session:
            for run in await session.scalars(
                select(Run).where(Run.id.in_(runs[begin : begin + PAGE_RUNS]))
            ):
                head = None if run.chain_head is None else run.chain_head.hex()
                if listed[str(run.id)] != ArchivedRun(str(run.id), run.hands_done, head):
                    raise DamagedArchive(folder, f"ends run {run.id} otherwise than the database")


async def _compare_count(database: Database, manifest: Manifest, partition: Partition) -> None:
    """Whether the partition holds no hand beyond those of its runs."""
    async with database.session() as session:
        await session.execute(text("SET LOCAL statement_timeout = 0"))
        stored = await session.scalar(select(func.count()).select_from(table(partition.name)))
    if stored != manifest.hands:
        raise Conflict(
            "archive_incomplete",
            f"{partition.name} has {stored} hands, and its archive {manifest.hands}: "
            "ask 'pokerarena verify' which run is damaged.",
        )


def _folder(directory: Path, name: str) -> tuple[Path, bool]:
    """Where an archive goes, and whether an earlier try has finished it."""
    folder = directory.absolute() / name
    return folder, folder.exists()


async def _drop(
    database: Database, archived: tuple[UUID, Manifest] | None, partition: Partition
) -> None:
    """Drop the partition in the transaction that says where its hands are."""
    for left in range(LOCK_TRIES, 0, -1):
        try:
            async with database.unit_of_work() as session:
                for statement in _LOCK:
                    await session.execute(text(statement))
                await session.execute(_dropping(partition.name))
                if archived is not None:
                    await _note(session, *archived)
                await _drop_cards(session, partition)
            return
        except OperationalError as error:
            # Only a lock that was not to be had: 55P03.
            if getattr(error.orig, "sqlstate", None) != "55P03" or left == 1:
                raise
        await asyncio.sleep(LOCK_PAUSE_S)


async def _note(session: AsyncSession, archive_id: UUID, manifest: Manifest) -> None:
    archive = await session.get_one(HistoryArchive, archive_id)
    archive.state = ArchiveState.ARCHIVED.value
    archive.archived_at = datetime.now(UTC)
    archive.sha256 = manifest.digest()
    archive.runs, archive.hands = len(manifest.runs), manifest.hands
    archive.first_hand_at = _moment(manifest.first_hand_at)
    archive.last_hand_at = _moment(manifest.last_hand_at)
    await session.flush()


async def _drop_cards(session: AsyncSession, partition: Partition) -> None:
    """Drop the cards and notes of the months that no hand of is left."""
    for whole in KEY_OF_RELATION:
        if whole == "hands":
            continue
        for one in await partitions(session, whole):
            if one.ends is None or partition.ends is None or one.ends > partition.ends:
                continue
            # By a clock that was wrong, a hand could be older than its run.
            needed = await session.scalar(select(HandRow.id).where(HandRow.id < one.ends).limit(1))
            if needed is None:
                await session.execute(_dropping(one.name))


def _dropping(name: str) -> DropTable:
    """The statement that drops a partition, whose name is quoted by whoever knows how."""
    return DropTable(Table(name, MetaData()))


def _moment(said: str | None) -> datetime | None:
    return None if said is None else datetime.fromisoformat(said)


async def verify_archive(settings: Settings, folder: Path) -> Manifest:
    """Read an archive to its end and compare it with what the database knows of its runs.

    Raises `DamagedArchive`, `Unavailable`.
    """
    manifest = await asyncio.to_thread(archive_file.check, folder)
    async with opened(settings) as database:
        async with database.session() as session:
            known = await session.scalar(
                select(HistoryArchive).where(HistoryArchive.name == manifest.archive)
            )
        if known is None:
            raise DamagedArchive(folder, "is of no archive that this database knows")
        if known.sha256 is not None and known.sha256 != manifest.digest():
            raise DamagedArchive(folder, "has another manifest than the one that was archived")
        await _compare(database, manifest, [UUID(run.run_id) for run in manifest.runs], folder)
    return manifest
