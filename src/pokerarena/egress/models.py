"""Relations of egress: the operators' lists, and which hosts hosted versions may reach."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pokerarena.db import Base


class EgressState(StrEnum):
    """What an operator made of a host that a version declared."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"


class EgressRule(Base):
    """One entry of the operators' allow and deny lists."""

    __tablename__ = "egress_rules"
    __table_args__ = (
        UniqueConstraint("effect", "kind", "value"),
        CheckConstraint("effect IN ('allow', 'deny')", name="effect"),
        CheckConstraint("kind IN ('domain', 'scheme', 'port', 'network')", name="kind"),
        CheckConstraint("kind <> 'network' OR effect = 'deny'", name="network"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    effect: Mapped[str] = mapped_column(String(8))
    kind: Mapped[str] = mapped_column(String(16))
    value: Mapped[str] = mapped_column(String(260))
    note: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Nobody in particular for one that was made on the command line.
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))


class EgressRevision(Base):
    """One row that rises with every change, so that whoever keeps a copy knows when it is old."""

    __tablename__ = "egress_revision"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)


class VersionEgress(Base):
    """A host that a hosted version's manifest declares, and what an operator made of it."""

    __tablename__ = "version_egress"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'approved', 'denied')", name="state"),
        CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name="decided"),
        CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
        Index(
            "ix_version_egress_pending", "version_id", postgresql_where=text("state = 'pending'")
        ),
    )

    version_id: Mapped[UUID] = mapped_column(ForeignKey("agent_versions.id"), primary_key=True)
    host: Mapped[str] = mapped_column(String(253), primary_key=True)
    port: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(16), default=EgressState.PENDING.value)
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
