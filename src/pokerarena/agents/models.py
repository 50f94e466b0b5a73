"""Relations of agents and their immutable versions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pokerarena.db import Base


class VersionKind(StrEnum):
    """How a version is asked for its decisions."""

    HTTP = "http"
    HOSTED = "hosted"
    HOUSE = "house"


class AgentVisibility(StrEnum):
    """Who may know that an agent exists, apart from its owner and the tables it sits at."""

    PRIVATE = "private"
    PUBLIC = "public"


class Agent(Base):
    """A named player owned by one user."""

    __tablename__ = "agents"
    __table_args__ = (
        CheckConstraint("visibility IN ('private', 'public')", name="visibility"),
        Index("uq_agents_owner_id_name_lower", "owner_id", text("lower(name)"), unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(60))
    description: Mapped[str] = mapped_column(String(1000), default="")
    visibility: Mapped[str] = mapped_column(String(16), default=AgentVisibility.PRIVATE.value)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]


class AgentVersion(Base):
    """An immutable build of an agent; only `retired_at` ever changes."""

    __tablename__ = "agent_versions"
    __table_args__ = (
        UniqueConstraint("agent_id", "number"),
        CheckConstraint("kind IN ('http', 'hosted', 'house')", name="kind"),
        CheckConstraint("(kind = 'http') = (callback_url IS NOT NULL)", name="callback_url"),
        CheckConstraint("(kind = 'http') = (signing_secret_sealed IS NOT NULL)", name="secret"),
        CheckConstraint("(kind = 'house') = (house_name IS NOT NULL)", name="house_name"),
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint("max_batch BETWEEN 1 AND 64", name="max_batch"),
        CheckConstraint("max_in_flight BETWEEN 1 AND 64", name="max_in_flight"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    callback_url: Mapped[str | None] = mapped_column(String(2000))
    house_name: Mapped[str | None] = mapped_column(String(40))
    signing_secret_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    max_batch: Mapped[int] = mapped_column(default=1)
    max_in_flight: Mapped[int] = mapped_column(default=1)
    wants_events: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retired_at: Mapped[datetime | None]
