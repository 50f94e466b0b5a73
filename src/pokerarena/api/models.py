"""Relations of the API itself: what was answered to whom, so that a repeated request is one request.

An answer may hold what is shown only once (a token, a signing secret), so it is kept sealed.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from pokerarena.db import Base


class IdempotencyRecord(Base):
    """The answer to one request, under the caller's key; written with what the request changed."""

    __tablename__ = "idempotency_records"
    __table_args__ = (Index("ix_idempotency_records_expires_at", "expires_at"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    # SHA-256 of the key: bounded, whatever clients choose.
    key_sha256: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    # SHA-256 of method, path, query and body.
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32))
    status: Mapped[int] = mapped_column(SmallInteger)
    # Headers and body, sealed; None where they were larger than is kept.
    answer_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
