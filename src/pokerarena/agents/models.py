"""Relations of agents and their immutable versions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
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
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from pokerarena.db import Base


class VersionKind(StrEnum):
    """How a version is asked for its decisions."""

    HTTP = "http"
    HOSTED = "hosted"
    HOUSE = "house"


class CheckStatus(StrEnum):
    """Whether a hosted version was found fit to play."""

    PENDING = "pending"
    PASSED = "passed"
    FAILED = "failed"


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


class AgentPackage(Base):
    """A checked upload, as `sandbox.archive.pack` gives it: one row however many versions name it.

    It goes when the last version that names it is retired; the digest stays with the versions.
    """

    __tablename__ = "agent_packages"
    __table_args__ = (
        CheckConstraint("length(digest) = 32", name="digest"),
        CheckConstraint("size BETWEEN 1 AND 134217728", name="size"),
    )

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    bytes: Mapped[bytes] = mapped_column(LargeBinary)
    size: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AgentVersion(Base):
    """An immutable build of an agent; only its check and `retired_at` ever come to it later."""

    __tablename__ = "agent_versions"
    __table_args__ = (
        UniqueConstraint("agent_id", "number"),
        CheckConstraint("kind IN ('http', 'hosted', 'house')", name="kind"),
        CheckConstraint("(kind = 'http') = (callback_url IS NOT NULL)", name="callback_url"),
        CheckConstraint("(kind = 'http') = (signing_secret_sealed IS NOT NULL)", name="secret"),
        CheckConstraint("(kind = 'house') = (house_name IS NOT NULL)", name="house_name"),
        CheckConstraint("(kind = 'hosted') = (package_digest IS NOT NULL)", name="package"),
        CheckConstraint("(kind = 'hosted') = (package_size IS NOT NULL)", name="package_size"),
        CheckConstraint("(kind = 'hosted') = (manifest IS NOT NULL)", name="manifest"),
        CheckConstraint("(kind = 'hosted') = (check_status IS NOT NULL)", name="check_status"),
        CheckConstraint(
            "check_status IN ('pending', 'passed', 'failed')", name="check_status_known"
        ),
        CheckConstraint(
            "(check_status IN ('passed', 'failed')) = (check_report IS NOT NULL)",
            name="check_report",
        ),
        Index(
            "ix_agent_versions_package_digest",
            "package_digest",
            postgresql_where=text("package_digest IS NOT NULL"),
        ),
        Index(
            "ix_agent_versions_unchecked",
            "id",
            postgresql_where=text("check_status = 'pending'"),
        ),
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
    # Of a hosted version: what was uploaded, and what came of its check match.
    package_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    package_size: Mapped[int | None]
    manifest: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    check_status: Mapped[str | None] = mapped_column(String(16))
    check_report: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retired_at: Mapped[datetime | None]
