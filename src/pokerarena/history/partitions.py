"""Partitions of hands by time: made ahead, and found again by the time in an id.

Owns which relations are partitioned and by which id, and the question how far ahead partitions
reach. Making one is the database's own function (revision partition_0004): whoever calls it need not
own a relation. A partition that is missing never stops play, for each relation has a default one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# A run's hands are in one partition; its cards and notes are in those of the months it was played in.
KEY_OF_RELATION: Final = {"hands": "run_id", "hand_cards": "hand_id", "decision_notes": "hand_id"}

_ENSURE: Final = text("SELECT history_ensure_partitions(:months_ahead)")
_COVERED: Final = text(
    "SELECT min(history_covered_until(name::regclass)) AT TIME ZONE 'UTC'"
    " FROM unnest(CAST(:names AS text[])) AS name"
)
# Within which time before a hand its run was ordered, nearly always; and by how much clocks differ.
LIKELY_RUN: Final = timedelta(days=45)
CLOCKS_APART: Final = timedelta(days=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def ensure_partitions(session: AsyncSession, months_ahead: int) -> int:
    """Make the partitions of the coming months that are missing; how many were made.

    Somebody else who is at it, or a lock that is not to be had at once, is no reason to wait: the
    caller asks again. Raises the driver's lock timeout in the second case.
    """
    return int(await session.scalar(_ENSURE, {"months_ahead": months_ahead}) or 0)


async def covered_until(session: AsyncSession) -> datetime | None:
    """From when on hands would go to a default partition; None where there is no partition."""
    found: datetime | None = await session.scalar(_COVERED, {"names": list(KEY_OF_RELATION)})
    return found


def first_id(moment: datetime) -> UUID:
    """The smallest UUIDv7 of a moment: where a partition begins."""
    return UUID(int=((moment - _EPOCH) // timedelta(milliseconds=1)) << 80)


def moment_of(some_id: UUID) -> datetime:
    """When a UUIDv7 was made, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=some_id.int >> 80)


def likely_runs(hand_id: UUID) -> tuple[UUID, UUID]:
    """Between which ids the run of a hand nearly always is: few partitions, however many there are."""
    lower = hand_id.int - (LIKELY_RUN // timedelta(milliseconds=1) << 80)
    upper = hand_id.int + (CLOCKS_APART // timedelta(milliseconds=1) << 80)
    return UUID(int=max(lower, 0)), UUID(int=min(upper, (1 << 128) - 1))
