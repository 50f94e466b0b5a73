"""Relations of complete hands. They are appended by COPY and never changed.

Hole cards live apart from what is public. Actions are packed (history.codec); the SQL view
``hand_actions`` unpacks them, one row an action.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, SmallInteger, String, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from pokerarena.db import Base


class HandRow(Base):
    """One complete hand, without hole cards that were not tabled."""

    __tablename__ = "hands"
    __table_args__ = (UniqueConstraint("run_id", "hand_no"),)

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

    hand_id: Mapped[UUID] = mapped_column(ForeignKey("hands.id"), primary_key=True)
    cards: Mapped[bytes] = mapped_column(LargeBinary)


class DecisionNote(Base):
    """What only a seat's owner may read of one decision: its note, or why it failed."""

    __tablename__ = "decision_notes"

    hand_id: Mapped[UUID] = mapped_column(ForeignKey("hands.id"), primary_key=True)
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
