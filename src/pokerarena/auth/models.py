"""Relations of accounts, sessions, tokens and keys.

Nothing here holds a password, a token or a private key in the clear: what need not be read back is
hashed or stored as a MAC under the pepper, what must be read back is sealed.
"""

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
    UniqueConstraint,
    false,
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


class Client(StrEnum):
    """What holds a session: a browser (refresh token in a cookie) or a program (in its hands)."""

    BROWSER = "browser"
    PROGRAM = "program"


class User(Base):
    """A person or program with an account."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('member', 'operator')", name="role"),
        Index("uq_users_username_lower", text("lower(username)"), unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(40))
    # None: there is no password, and only an identity at a provider logs in.
    password_hash: Mapped[str | None] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16), default=Role.MEMBER.value)
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LoginSession(Base):
    """One login: a family of refresh tokens, of which only the last one counts.

    Every refresh token of the family starts with the same part, stored as `family_mac`. A token
    with that part that is not the present one was used before, and is a theft or an accident.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint("client IN ('browser', 'program')", name="client"),
        CheckConstraint("idle_expires_at <= expires_at", name="expiry"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    client: Mapped[str] = mapped_column(String(16))
    device: Mapped[str] = mapped_column(String(120))
    # Whether the login proved a second factor.
    second_factor: Mapped[bool] = mapped_column(server_default=false())
    pepper_id: Mapped[bytes] = mapped_column(LargeBinary(4))
    family_mac: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    refresh_mac: Mapped[bytes] = mapped_column(LargeBinary(32))
    previous_mac: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    refreshed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    idle_expires_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(20))


class Identity(Base):
    """A person at an identity provider, and the one account here that they log in to."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    issuer: Mapped[str] = mapped_column(String(300))
    subject: Mapped[str] = mapped_column(String(255))
    # As the provider had verified it then: for its user to recognise, and for nothing else.
    email: Mapped[str] = mapped_column(String(320))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_login_at: Mapped[datetime | None]


class FederatedLogin(Base):
    """A login that is under way at a provider, found by a MAC of the secret in its browser's cookie.

    Unlogged: a crash of the database forgets it, and somebody logs in once more.
    """

    __tablename__ = "federated_logins"
    __table_args__ = (
        CheckConstraint("(user_id IS NULL) = (session_id IS NULL)", name="linking"),
        {"prefixes": ["UNLOGGED"]},
    )

    mac: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    provider_id: Mapped[str] = mapped_column(String(40))
    return_to: Mapped[str] = mapped_column(String(512))
    # Whose identity it will be, and the session that asked; empty for a login.
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    session_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    # When the browser came back with it: never twice.
    spent_at: Mapped[datetime | None]
    identity_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("identities.id", ondelete="CASCADE"), index=True
    )


class SigningKey(Base):
    """A key pair that signs access tokens: published, then in use, then only verifying, then gone."""

    __tablename__ = "signing_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kid: Mapped[str] = mapped_column(String(64), unique=True)
    public_pem: Mapped[str] = mapped_column(String(400))
    private_sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    use_from: Mapped[datetime]
    verify_until: Mapped[datetime | None]


class SecondFactor(Base):
    """An account's TOTP seed. It counts once a code of it was shown (`confirmed_at`)."""

    __tablename__ = "second_factors"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    seed_sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    confirmed_at: Mapped[datetime | None]
    # The time step of the last accepted code: no code counts twice.
    last_step: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class RecoveryCode(Base):
    """A recovery code that was not used yet, as a MAC under the pepper."""

    __tablename__ = "recovery_codes"

    mac: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    pepper_id: Mapped[bytes] = mapped_column(LargeBinary(4))


class LoginAttempts(Base):
    """How often something secret was tried for one account or from one address, in one window.

    Unlogged: a crash of the database forgets it, which costs an attacker's pause and nothing else.
    """

    __tablename__ = "login_attempts"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012

    # A MAC of what is counted: names that were tried are nobody's to read.
    key: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    attempts: Mapped[int]
    window_ends_at: Mapped[datetime] = mapped_column(index=True)


class ApiToken(Base):
    """A personal token, stored as a MAC under the pepper that `pepper_id` names."""

    __tablename__ = "api_tokens"
    __table_args__ = (CheckConstraint("expires_at > created_at", name="expiry"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(80))
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(40)))
    pepper_id: Mapped[bytes] = mapped_column(LargeBinary(4))
    mac: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    # Replaced by a new one: it works on until it expires, and cannot be rotated again.
    rotated_at: Mapped[datetime | None]


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
    # The personal token or the session through which the actor acted.
    credential_id: Mapped[UUID | None]
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
