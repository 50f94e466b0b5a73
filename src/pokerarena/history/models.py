"""Relations of complete hands. They are appended by COPY and never changed.

Hole cards live apart from what is public. Actions are packed (history.codec); the SQL view
``hand_actions`` unpacks them, one row an action. Hands are partitioned by the time in their run's id,
cards and notes by the time in their hand's (history.partitions), and leave in archives
(history.archives) of whole partitions.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    LargeBinary,
    SmallInteger,
    String,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from pokerarena.db import Base


class HandRow(Base):
    """One complete hand, without hole cards that were not tabled."""

    __tablename__ = "hands"
    __table_args__ = (
        UniqueConstraint("run_id", "hand_no"),
        {"postgresql_partition_by": "RANGE (run_id)"},
    )

    # The key of each partition; over all of them, hand_cards keeps it unique.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"))
    ended_at: Mapped[datetime]
    hand_no: Mapped[int]
    deal_no: Mapped[int]
    epoch: Mapped[int]
    # The index in the run's blind schedule; 0 where blinds never change.
    level: Mapped[int] = mapped_column(SmallInteger)
    button_seat: Mapped[int] = mapped_column(SmallInteger)
    # Packed: board cards; per seat number, starting stack, net chips and flags; actions.
    board: Mapped[bytes] = mapped_column(LargeBinary)
    seats: Mapped[bytes] = mapped_column(LargeBinary)
    actions: Mapped[bytes] = mapped_column(LargeBinary)
    # The link of this hand in its run's chain (history.chain).
    chain: Mapped[bytes | None] = mapped_column(LargeBinary(16))


class HandCards(Base):
    """The hole cards of one hand; nobody reads them but through engine.view."""

    __tablename__ = "hand_cards"
    __table_args__ = ({"postgresql_partition_by": "RANGE (hand_id)"},)

    # No foreign key: it would need an id that is unique over all partitions of hands.
    hand_id: Mapped[UUID] = mapped_column(primary_key=True)
    cards: Mapped[bytes] = mapped_column(LargeBinary)


class DecisionNote(Base):
    """What only a seat's owner may read of one decision: its note, or why it failed."""

    __tablename__ = "decision_notes"
    __table_args__ = ({"postgresql_partition_by": "RANGE (hand_id)"},)

    hand_id: Mapped[UUID] = mapped_column(primary_key=True)
    action_no: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    seat_no: Mapped[int] = mapped_column(SmallInteger)
    note: Mapped[str | None] = mapped_column(String(1024))
    failure: Mapped[str | None] = mapped_column(String(1024))


class VoidDeal(Base):
    """A deal that was, or may have been, shown to someone and did not become a complete hand."""

    __tablename__ = "void_deals"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    deal_no: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    reason: Mapped[str] = mapped_column(String(40))
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ArchiveState(StrEnum):
    """``writing``: the runs are frozen, their hands are still here; ``archived``: they are not."""

    WRITING = "writing"
    ARCHIVED = "archived"


class HistoryArchive(Base):
    """One archive: the hands of all runs whose ids lie in a range, in a file outside the database."""

    __tablename__ = "history_archives"
    __table_args__ = (
        CheckConstraint("state IN ('writing', 'archived')", name="state"),
        CheckConstraint(
            "(state = 'archived') = (archived_at IS NOT NULL AND sha256 IS NOT NULL)",
            name="archived",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    # The partition's bounds: from (none: the very first run) up to, but without.
    run_id_from: Mapped[UUID | None]
    run_id_to: Mapped[UUID]
    state: Mapped[str] = mapped_column(String(16), default=ArchiveState.WRITING.value)
    # Where to ask for it, in the operator's words; told to whoever asks for a hand of it.
    place: Mapped[str] = mapped_column(String(500))
    runs: Mapped[int] = mapped_column(BigInteger, default=0)
    hands: Mapped[int] = mapped_column(BigInteger, default=0)
    first_hand_at: Mapped[datetime | None]
    last_hand_at: Mapped[datetime | None]
    # Of the file's manifest.
    sha256: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]
