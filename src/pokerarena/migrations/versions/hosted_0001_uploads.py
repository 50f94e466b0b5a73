"""Hosted agents: their packages, their checks, and what their sandboxes said.

Revision: hosted_0001; follows ops_0001. Expands only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "hosted_0001"
down_revision = "ops_0001"
branch_labels = None
depends_on = None

# What the linter says of this revision and is right so (scripts/migration_sql).
LINT_EXCEPTIONS = {
    "require-concurrent-index-creation": "that would wait for a migration that waits for this one,"
    " and no row is in these partial indexes yet",
}

CHECKS = {
    "package": "(kind = 'hosted') = (package_digest IS NOT NULL)",
    "package_size": "(kind = 'hosted') = (package_size IS NOT NULL)",
    "manifest": "(kind = 'hosted') = (manifest IS NOT NULL)",
    "check_status": "(kind = 'hosted') = (check_status IS NOT NULL)",
    "check_status_known": "check_status IN ('pending', 'passed', 'failed')",
    "check_report": "(check_status IN ('passed', 'failed')) = (check_report IS NOT NULL)",
}


def upgrade() -> None:
    op.create_table(
        "agent_packages",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("length(digest) = 32", name=op.f("ck_agent_packages_digest")),
        sa.CheckConstraint("size BETWEEN 1 AND 134217728", name=op.f("ck_agent_packages_size")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_agent_packages")),
    )
    for column in (
        sa.Column("package_digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("package_size", sa.Integer(), nullable=True),
        sa.Column("manifest", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("check_status", sa.String(length=16), nullable=True),
        sa.Column("check_report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    ):
        op.add_column("agent_versions", column)
    for name, condition in CHECKS.items():
        op.create_check_constraint(
            op.f(f"ck_agent_versions_{name}"),
            "agent_versions",
            condition,
            postgresql_not_valid=True,
        )
    # Not CONCURRENTLY: that would wait for a migration that waits for this one, and no row is in them.
    op.create_index(
        "ix_agent_versions_package_digest",
        "agent_versions",
        ["package_digest"],
        postgresql_where=sa.text("package_digest IS NOT NULL"),
    )
    op.create_index(
        "ix_agent_versions_unchecked",
        "agent_versions",
        ["id"],
        postgresql_where=sa.text("check_status = 'pending'"),
    )
    op.add_column(
        "run_seats",
        sa.Column("sandbox", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    )


def downgrade() -> None:
    op.drop_column("run_seats", "sandbox")
    op.drop_index("ix_agent_versions_unchecked", "agent_versions")
    op.drop_index("ix_agent_versions_package_digest", "agent_versions")
    for name in CHECKS:
        op.drop_constraint(op.f(f"ck_agent_versions_{name}"), "agent_versions")
    for name in ("check_report", "check_status", "manifest", "package_size", "package_digest"):
        op.drop_column("agent_versions", name)
    op.drop_table("agent_packages")
