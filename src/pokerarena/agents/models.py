"""Relations of agents and their immutable versions."""

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
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
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


class SuspensionCause(StrEnum):
    """Why a version is suspended."""

    # It failed at every decision of its last runs; a check that it passes lifts this.
    ONLY_FAILED = "only_failed"
    # An operator said so, and only an operator lifts this.
    OPERATOR = "operator"


class VersionStanding(Base):
    """What the runs of a version say of it; there is a row only where something was ever amiss.

    `failing_runs` are those since its last good decision, newest last and bounded by
    `agents.standing`; together they have `failing_decisions`, and the first of them ended at
    `failing_since`.
    """

    __tablename__ = "version_standings"
    __table_args__ = (
        CheckConstraint("cause IN ('only_failed', 'operator')", name="cause"),
        CheckConstraint("(suspended_at IS NULL) = (cause IS NULL)", name="suspended"),
        CheckConstraint("(suspended_at IS NULL) = (reason IS NULL)", name="reason"),
        CheckConstraint("check_status IN ('pending', 'passed', 'failed')", name="check_status"),
        CheckConstraint("cardinality(failing_runs) <= 20", name="failing_runs"),
        Index(
            "ix_version_standings_unchecked",
            "version_id",
            postgresql_where=text("check_status = 'pending'"),
        ),
    )

    version_id: Mapped[UUID] = mapped_column(ForeignKey("agent_versions.id"), primary_key=True)
    failing_runs: Mapped[list[UUID]] = mapped_column(
        ARRAY(PG_UUID()), default=list, server_default=text("'{}'")
    )
    failing_decisions: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    failing_since: Mapped[datetime | None]
    suspended_at: Mapped[datetime | None]
    cause: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(1000))
    # Of the checks by which the owner tries to lift a suspension.
    checks_used: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    check_status: Mapped[str | None] = mapped_column(String(16))
    check_asked_at: Mapped[datetime | None]
    check_report: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    lifted_at: Mapped[datetime | None]
