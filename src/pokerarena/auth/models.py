"""Relations of accounts and tokens. Nothing here holds a password or a token in the clear."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from pokerarena.db import Base


class Role(StrEnum):
    """What a user may do beyond what they own."""

    MEMBER = "member"
    OPERATOR = "operator"


class TokenKind(StrEnum):
    """``session``: made by a login; ``personal``: made by its user for a program."""

    SESSION = "session"
    PERSONAL = "personal"


class User(Base):
    """A person or program with an account."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('member', 'operator')", name="role"),
        Index("uq_users_username_lower", text("lower(username)"), unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(40))
    password_hash: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16), default=Role.MEMBER.value)
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiToken(Base):
    """A bearer token, stored as a MAC under the pepper that `pepper_id` names."""

    __tablename__ = "api_tokens"
    __table_args__ = (
        CheckConstraint("kind IN ('session', 'personal')", name="kind"),
        CheckConstraint("expires_at > created_at", name="expiry"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(80))
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(40)))
    pepper_id: Mapped[bytes] = mapped_column(LargeBinary(4))
    mac: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditRecord(Base):
    """One security event. Written by the database function `audit_append` alone, never changed."""

    __tablename__ = "audit_records"
    __table_args__ = (
        CheckConstraint("octet_length(details) <= 4096", name="details"),
        Index("ix_audit_records_event", "event", "seq"),
        Index("ix_audit_records_actor_id", "actor_id", "seq"),
        Index("ix_audit_records_subject", "subject", "seq"),
    )

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(String(60))
    actor_id: Mapped[UUID | None]
    token_id: Mapped[UUID | None]
    subject: Mapped[str | None] = mapped_column(String(100))
    request_id: Mapped[str | None] = mapped_column(String(64))
    # The canonical JSON text itself: what is hashed must come back as it was.
    details: Mapped[str] = mapped_column(Text)
    previous: Mapped[bytes] = mapped_column(LargeBinary(32))
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))


class AuditHead(Base):
    """The end of the chain: one row, locked by each append."""

    __tablename__ = "audit_head"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))
