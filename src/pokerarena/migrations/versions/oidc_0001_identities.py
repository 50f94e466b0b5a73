"""Identities at providers, logins that are under way there, and accounts without a password.

Revision: oidc_0001; follows partition_0004. Expands only: to the release before, an account without a
password is one whose password is never right.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "oidc_0001"
down_revision = "partition_0004"
branch_labels = None
depends_on = None

# What the linter says of this revision and is right so (scripts/migration_sql).
LINT_EXCEPTIONS = {
    "ban-drop-not-null": "to the release before, an account without a password has one that is never right",
}


def _moment(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[object]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def upgrade() -> None:
    op.alter_column("users", "password_hash", nullable=True)
    op.create_table(
        "identities",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.String(length=300), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        _moment("created_at", now=True),
        _moment("last_login_at", nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_identities_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_identities_issuer_subject")),
    )
    op.create_index(op.f("ix_identities_user_id"), "identities", ["user_id"])
    op.create_table(
        "federated_logins",
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.Column("provider_id", sa.String(length=40), nullable=False),
        sa.Column("return_to", sa.String(length=512), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        _moment("created_at", now=True),
        _moment("expires_at"),
        _moment("spent_at", nullable=True),
        sa.Column("identity_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "(user_id IS NULL) = (session_id IS NULL)", name=op.f("ck_federated_logins_linking")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_federated_logins_user_id")
        ),
        sa.ForeignKeyConstraint(
            ["identity_id"],
            ["identities.id"],
            name=op.f("fk_federated_logins_identity_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("mac", name=op.f("pk_federated_logins")),
        prefixes=["UNLOGGED"],
    )
    for column in ("expires_at", "identity_id"):
        op.create_index(op.f(f"ix_federated_logins_{column}"), "federated_logins", [column])


def downgrade() -> None:
    op.drop_table("federated_logins")
    op.drop_table("identities")
    op.alter_column("users", "password_hash", nullable=False)
