"""Sessions, signing keys, second factors and the count of login attempts.

What is left in `api_tokens` are personal tokens, so its column `kind` says nothing any more.

Revision: identity_0001; follows identity_0000.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "identity_0001"
down_revision = "identity_0000"
branch_labels = None
depends_on = None

# What the linter says of this revision and is right so (scripts/migration_sql).
LINT_EXCEPTIONS = {
    "ban-drop-column": "it told login tokens from personal ones; there are no login tokens any more",
    "ban-drop-constraint": "it held the column that goes with it",
}


def _moment(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[object]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("client", sa.String(length=16), nullable=False),
        sa.Column("device", sa.String(length=120), nullable=False),
        sa.Column("second_factor", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("pepper_id", sa.LargeBinary(length=4), nullable=False),
        sa.Column("family_mac", sa.LargeBinary(length=32), nullable=False),
        sa.Column("refresh_mac", sa.LargeBinary(length=32), nullable=False),
        sa.Column("previous_mac", sa.LargeBinary(length=32), nullable=True),
        _moment("created_at", now=True),
        _moment("refreshed_at", now=True),
        _moment("idle_expires_at"),
        _moment("expires_at"),
        _moment("ended_at", nullable=True),
        sa.Column("end_reason", sa.String(length=20), nullable=True),
        sa.CheckConstraint("client IN ('browser', 'program')", name=op.f("ck_sessions_client")),
        sa.CheckConstraint("idle_expires_at <= expires_at", name=op.f("ck_sessions_expiry")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sessions_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("family_mac", name=op.f("uq_sessions_family_mac")),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"])
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("public_pem", sa.String(length=400), nullable=False),
        sa.Column("private_sealed", sa.LargeBinary(), nullable=False),
        _moment("created_at", now=True),
        _moment("use_from"),
        _moment("verify_until", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
        sa.UniqueConstraint("kid", name=op.f("uq_signing_keys_kid")),
    )
    op.create_table(
        "second_factors",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seed_sealed", sa.LargeBinary(), nullable=False),
        _moment("created_at", now=True),
        _moment("confirmed_at", nullable=True),
        sa.Column("last_step", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_second_factors_user_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_second_factors")),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("pepper_id", sa.LargeBinary(length=4), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_recovery_codes_user_id")),
        sa.PrimaryKeyConstraint("mac", name=op.f("pk_recovery_codes")),
    )
    op.create_index(op.f("ix_recovery_codes_user_id"), "recovery_codes", ["user_id"])
    op.create_table(
        "login_attempts",
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _moment("window_ends_at"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_attempts")),
        prefixes=["UNLOGGED"],
    )
    op.create_index(op.f("ix_login_attempts_window_ends_at"), "login_attempts", ["window_ends_at"])
    op.drop_constraint(op.f("ck_api_tokens_kind"), "api_tokens", type_="check")
    op.drop_column("api_tokens", "kind")
    op.add_column("api_tokens", _moment("rotated_at", nullable=True))


def downgrade() -> None:
    op.drop_column("api_tokens", "rotated_at")
    op.add_column(
        "api_tokens",
        sa.Column("kind", sa.String(length=16), server_default="personal", nullable=False),
    )
    op.alter_column("api_tokens", "kind", server_default=None)
    op.create_check_constraint(
        op.f("ck_api_tokens_kind"), "api_tokens", "kind IN ('session', 'personal')"
    )
    for relation in ("login_attempts", "recovery_codes", "second_factors", "signing_keys"):
        op.drop_table(relation)
    op.drop_table("sessions")
