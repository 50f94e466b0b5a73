"""Relations of tables (poker tables) and their seats."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    String,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from pokerarena.db import Base


class Format(StrEnum):
    """How stacks and deals go on from hand to hand (design §4)."""

    CASH = "cash"
    RESET = "reset"
    DUPLICATE = "duplicate"
    FREEZEOUT = "freezeout"


class Visibility(StrEnum):
    """``private``: owner and seated only; ``unlisted``: who knows the id; ``public``: listed."""

    PRIVATE = "private"
    UNLISTED = "unlisted"
    PUBLIC = "public"


class RevealPolicy(StrEnum):
    """What is revealed after a run: nothing beyond showdowns, or everything."""

    SHOWDOWN = "showdown"
    AFTER_RUN = "after_run"


class BustPolicy(StrEnum):
    """What happens in ``cash`` to a seat without chips."""

    REBUY = "rebuy"
    LEAVE = "leave"


class Table(Base):
    """The rules of a game and who may see it. The rules do not change while a run is active."""

    __tablename__ = "tables"
    __table_args__ = (
        CheckConstraint("seat_count BETWEEN 2 AND 10", name="seat_count"),
        CheckConstraint("small_blind >= 1 AND big_blind >= small_blind", name="blinds"),
        CheckConstraint("ante >= 0", name="ante"),
        CheckConstraint("ante_kind IN ('each', 'big_blind')", name="ante_kind"),
        CheckConstraint(
            "starting_stack >= big_blind AND starting_stack <= 1000000000", name="starting_stack"
        ),
        CheckConstraint("format IN ('cash', 'reset', 'duplicate', 'freezeout')", name="format"),
        CheckConstraint("visibility IN ('private', 'unlisted', 'public')", name="visibility"),
        CheckConstraint("reveal_policy IN ('showdown', 'after_run')", name="reveal_policy"),
        CheckConstraint("bust_policy IN ('rebuy', 'leave')", name="bust_policy"),
        CheckConstraint("action_time_ms >= 1 AND time_bank_ms >= 0", name="times"),
        Index("ix_tables_public", "id", postgresql_where=text("visibility = 'public'")),
        Index("ix_tables_owner_id", "owner_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(80))
    visibility: Mapped[str] = mapped_column(String(16))
    reveal_policy: Mapped[str] = mapped_column(String(16))
    format: Mapped[str] = mapped_column(String(16))
    seat_count: Mapped[int] = mapped_column(SmallInteger)
    small_blind: Mapped[int] = mapped_column(BigInteger)
    big_blind: Mapped[int] = mapped_column(BigInteger)
    ante: Mapped[int] = mapped_column(BigInteger, default=0)
    ante_kind: Mapped[str] = mapped_column(String(16), default="each")
    starting_stack: Mapped[int] = mapped_column(BigInteger)
    bust_policy: Mapped[str] = mapped_column(String(16), default=BustPolicy.REBUY.value)
    # Freezeout only: a list of {hands, small_blind, big_blind, ante}, in order.
    blind_schedule: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    action_time_ms: Mapped[int]
    time_bank_ms: Mapped[int] = mapped_column(default=0)
    # In which sandbox hosted agents play; none: the deployment's first.
    sandbox_runtime: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]


class Seat(Base):
    """A numbered place at a table, taken by an agent version with its owner's consent."""

    __tablename__ = "seats"
    __table_args__ = (CheckConstraint("seat_no BETWEEN 1 AND 10", name="seat_no"),)

    table_id: Mapped[UUID] = mapped_column(ForeignKey("tables.id"), primary_key=True)
    seat_no: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id"), index=True)
    version_id: Mapped[UUID] = mapped_column(ForeignKey("agent_versions.id"))
    taken_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    taken_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ViewerLink(Base):
    """A link that shows what one seat's owner sees, stored as a MAC under the pepper.

    It is bound to the sitting (table, seat, agent, and since when): who leaves the seat ends it.
    """

    __tablename__ = "viewer_links"
    __table_args__ = (
        CheckConstraint("seat_no BETWEEN 1 AND 10", name="seat_no"),
        CheckConstraint("expires_at > created_at", name="expiry"),
        Index("ix_viewer_links_owner_id", "owner_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    table_id: Mapped[UUID] = mapped_column(ForeignKey("tables.id"))
    seat_no: Mapped[int] = mapped_column(SmallInteger)
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id"))
    seat_taken_at: Mapped[datetime]
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(80))
    pepper_id: Mapped[bytes] = mapped_column(LargeBinary(4))
    mac: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class LiveWatch(Base):
    """Someone is looking at this table now, so its worker publishes it. Worth nothing later."""

    __tablename__ = "live_watches"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012

    table_id: Mapped[UUID] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime]
