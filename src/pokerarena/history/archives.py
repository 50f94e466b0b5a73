"""Archives of hands, as the database knows them: which runs they froze, and what callers are told.

Owns the two states of an archive. ``writing``: its runs are frozen, that is never played again, and
their hands are still here. ``archived``: a file was written and read back, and the hands are gone; the
run, its lineup, totals, voids and the end of its chain stay. Dropping partitions is the owner's
(`ops.archiving`). It never commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.errors import Conflict, Gone, NotFound
from pokerarena.history.models import ArchiveState, HistoryArchive
from pokerarena.history.partitions import first_id
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.runs.models import ACTIVE_STATUSES, Run

ACTIVE_NAMED_MAX = 5


def runs_between(run_id_from: UUID | None, run_id_to: UUID) -> ColumnElement[bool]:
    """The runs of one partition of hands."""
    begins = true() if run_id_from is None else Run.id >= run_id_from
    return and_(begins, Run.id < run_id_to)


async def freeze(
    session: AsyncSession, partition: str, run_id_from: UUID | None, run_id_to: UUID, place: str
) -> HistoryArchive:
    """Begin an archive of these runs, or find the one that was begun.

    From the commit on nobody can resume one of them. Raises `Conflict` (``runs_active``).
    """
    mine = runs_between(run_id_from, run_id_to)
    active = (
        await session.scalars(
            select(Run.id)
            .where(mine, Run.status.in_(ACTIVE_STATUSES))
            .order_by(Run.id)
            .limit(ACTIVE_NAMED_MAX)
        )
    ).all()
    if active:
        named = ", ".join(id_text(IdKind.RUN, run_id) for run_id in active)
        raise Conflict(
            "runs_active",
            f"Runs of {partition} are still on ({named}): stop them, or wait for their end.",
        )
    archive = await session.scalar(
        select(HistoryArchive).where(
            HistoryArchive.state == ArchiveState.WRITING.value,
            HistoryArchive.run_id_to == run_id_to,
        )
    )
    if archive is None:
        archive = HistoryArchive(
            id=new_id(),
            name=await _free_name(session, partition),
            run_id_from=run_id_from,
            run_id_to=run_id_to,
            place=place,
        )
        session.add(archive)
        await session.flush()
    archive.place = place
    # A run that is resumed at this moment is refused by the relation's check, here or there.
    await session.execute(
        update(Run).where(mine, Run.archive_id.is_(None)).values(archive_id=archive.id)
    )
    return archive


async def _free_name(session: AsyncSession, partition: str) -> str:
    """The partition's name; after a way down and up again there can be two of one name."""
    used = await session.scalar(
        select(func.count())
        .select_from(HistoryArchive)
        .where(HistoryArchive.name.startswith(partition, autoescape=True))
    )
    return f"{partition}-{used + 1}" if used else partition


async def thaw(session: AsyncSession, name: str) -> None:
    """Give up an archive that is being written: its runs can be resumed again.

    Raises `NotFound`, and `Conflict` (``archived``) where the hands are gone already.
    """
    archive = await session.scalar(
        select(HistoryArchive).where(HistoryArchive.name == name).with_for_update()
    )
    if archive is None:
        raise NotFound("archive")
    if archive.state == ArchiveState.ARCHIVED.value:
        raise Conflict("archived", f"The hands of {name} have left the database already.")
    await session.execute(update(Run).where(Run.archive_id == archive.id).values(archive_id=None))
    await session.execute(delete(HistoryArchive).where(HistoryArchive.id == archive.id))


async def list_archives(session: AsyncSession) -> Sequence[HistoryArchive]:
    """All of them, oldest runs first."""
    return (await session.scalars(select(HistoryArchive).order_by(HistoryArchive.run_id_to))).all()


async def archive_of(session: AsyncSession, run: Run) -> HistoryArchive | None:
    """The archive that the run's hands have gone to; None while they are here."""
    if run.archive_id is None:
        return None
    archive = await session.get(HistoryArchive, run.archive_id)
    if archive is None or archive.state != ArchiveState.ARCHIVED.value:
        return None
    return archive


async def refuse_archived_run(session: AsyncSession, run: Run) -> None:
    """Raises `Gone` (``archived``) where the run's hands are elsewhere."""
    archive = await archive_of(session, run)
    if archive is not None:
        _refuse(archive)


async def refuse_archived_hand(session: AsyncSession, hand_id: UUID) -> None:
    """Raises `Gone` (``archived``) where a hand of this id, if there was one, would be elsewhere.

    It is told of every id of that time: whether there was such a hand, or whose, is not.
    """
    archive = await session.scalar(
        select(HistoryArchive)
        .where(
            HistoryArchive.state == ArchiveState.ARCHIVED.value,
            func.coalesce(HistoryArchive.run_id_from <= hand_id, True),
            HistoryArchive.last_hand_at.is_not(None),
        )
        .order_by(HistoryArchive.run_id_to.desc())
        .limit(1)
    )
    if archive is None or archive.last_hand_at is None:
        return
    # Ids are made when a hand begins, and what is told of it is when it ended.
    if hand_id <= max(first_id(archive.last_hand_at), archive.run_id_to):
        _refuse(archive)


def _refuse(archive: HistoryArchive) -> NoReturn:
    raise Gone(
        "archived",
        f"Hands of that time are in the archive {archive.name}"
        + (f": {archive.place}." if archive.place else ", kept by the operators."),
        archive=archive.name,
        place=archive.place,
    )
