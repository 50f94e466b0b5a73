"""Relations of runs: the order, its lineup, its progress and its fence."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
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
from pokerarena.history.models import HistoryArchive


class RunStatus(StrEnum):
    """``queued → running → completed | stopped | failed``; failed and stopped can be resumed."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


ACTIVE_STATUSES = (RunStatus.QUEUED, RunStatus.RUNNING)


class Run(Base):
    """One order to play N hands at a table.

    `epoch` is the fence: each claim raises it, and every write of the run demands its own.
    `deals_reserved` is written before a deal's first card is shown: after a crash, deals that are
    reserved but not part of a complete hand are void.
    """

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'running', 'completed', 'stopped', 'failed')", name="status"
        ),
        CheckConstraint("hands_target >= 1", name="hands_target"),
        CheckConstraint("hands_done BETWEEN 0 AND hands_target", name="hands_done"),
        CheckConstraint("deals_reserved >= deals_done", name="deals"),
        CheckConstraint("(status = 'failed') = (failure_code IS NOT NULL)", name="failure"),
        CheckConstraint(
            "archive_id IS NULL OR status IN ('completed', 'stopped', 'failed')", name="archived"
        ),
        Index(
            "uq_runs_active_table",
            "table_id",
            unique=True,
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        Index("ix_runs_table_id", "table_id", "id"),
        Index("ix_runs_created_by", "created_by", "id"),
        Index(
            "ix_runs_active",
            "id",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    table_id: Mapped[UUID] = mapped_column(ForeignKey("tables.id"))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    status: Mapped[str] = mapped_column(String(16), default=RunStatus.QUEUED.value)
    failure_code: Mapped[str | None] = mapped_column(String(60))
    failure_detail: Mapped[str | None] = mapped_column(String(1000))
    # The table's rules as they were when the run was made.
    rules: Mapped[dict[str, Any]] = mapped_column(JSONB)
    visibility: Mapped[str] = mapped_column(String(16))
    reveal_policy: Mapped[str] = mapped_column(String(16))
    hands_target: Mapped[int]
    hands_done: Mapped[int] = mapped_column(default=0)
    deals_done: Mapped[int] = mapped_column(default=0)
    deals_reserved: Mapped[int] = mapped_column(default=0)
    # In which sandbox its hosted agents play; none where there are none.
    sandbox_runtime: Mapped[str | None] = mapped_column(String(16))
    # What the next hand starts from: stacks by seat, button, blind level (runs.formats).
    position: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # The link of the last hand (history.chain); None before the first one.
    chain_head: Mapped[bytes | None] = mapped_column(LargeBinary(16))
    seed_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    epoch: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    claimed_by: Mapped[str | None] = mapped_column(String(120))
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    # Recoveries since the last completed hand; bounded by run_recoveries_max.
    recoveries: Mapped[int] = mapped_column(SmallInteger, default=0)
    stop_requested_at: Mapped[datetime | None]
    request_id: Mapped[str | None] = mapped_column(String(64))
    # The span of that request in W3C form, where requests are traced.
    trace_context: Mapped[str | None] = mapped_column(String(55))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # The archive that its hands are in, or are being written to: it is never played again.
    archive_id: Mapped[UUID | None] = mapped_column(ForeignKey(HistoryArchive.id))


class RunSeed(Base):
    """The sealed seed of a run, apart from it: the API's database role may add one, never read one."""

    __tablename__ = "run_seeds"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    seed_sealed: Mapped[bytes] = mapped_column(LargeBinary)


class RevealedSeed(Base):
    """The seed of a completed run whose reveal policy is ``after_run``: public from then on."""

    __tablename__ = "revealed_seeds"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    seed: Mapped[bytes] = mapped_column(LargeBinary(32))
    revealed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DeadLetterState(StrEnum):
    """``open`` waits for a person."""

    OPEN = "open"
    RETRIED = "retried"
    DISCARDED = "discarded"


class DeadLetter(Base):
    """Something that gave up: a run that failed by our fault, or a job without attempts left."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        CheckConstraint("subject IN ('run', 'job')", name="subject"),
        CheckConstraint("state IN ('open', 'retried', 'discarded')", name="state"),
        CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed"),
        Index(
            "uq_dead_letters_open_run",
            "run_id",
            unique=True,
            postgresql_where=text("state = 'open'"),
        ),
        Index("ix_dead_letters_job_id", "job_id"),
        Index("ix_dead_letters_state", "state", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(String(16))
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("runs.id"))
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    code: Mapped[str] = mapped_column(String(60))
    detail: Mapped[str] = mapped_column(String(1000))
    attempts: Mapped[int]
    epoch: Mapped[int]
    request_id: Mapped[str | None] = mapped_column(String(64))
    claimed_by: Mapped[str | None] = mapped_column(String(120))
    state: Mapped[str] = mapped_column(String(16), default=DeadLetterState.OPEN.value)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_failed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    closed_at: Mapped[datetime | None]
    closed_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))


class RunSeat(Base):
    """One seat of a run's lineup, with its totals so far; the version never changes."""

    __tablename__ = "run_seats"
    __table_args__ = (CheckConstraint("seat_no BETWEEN 1 AND 10", name="seat_no"),)

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    seat_no: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id"), index=True)
    version_id: Mapped[UUID] = mapped_column(ForeignKey("agent_versions.id"))
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    agent_name: Mapped[str] = mapped_column(String(60))
    version_number: Mapped[int]
    # Chips won or lost over all complete hands, and the moments of the unit of independence
    # (a hand; in duplicate a deal with all its rotations), in chips.
    net: Mapped[int] = mapped_column(BigInteger, default=0)
    units: Mapped[int] = mapped_column(default=0)
    unit_sum: Mapped[float] = mapped_column(Double, default=0.0)
    unit_sum_squares: Mapped[float] = mapped_column(Double, default=0.0)
    hands: Mapped[int] = mapped_column(default=0)
    decisions: Mapped[int] = mapped_column(BigInteger, default=0)
    rebuys: Mapped[int] = mapped_column(default=0)
    time_bank_ms: Mapped[int] = mapped_column(default=0)
    fallbacks: Mapped[dict[str, int]] = mapped_column(JSONB, default=dict)
    # Of a hosted agent: what its sandboxes used and said when they were last closed.
    sandbox: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
