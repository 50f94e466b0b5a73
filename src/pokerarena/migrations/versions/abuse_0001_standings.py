"""Standings: versions that only fail, their suspension, and the worker's word for the audit chain.

Revision: abuse_0001; follows hosted_0002. Adds a relation and a function: nothing that exists is
locked but, for a moment, `agent_versions` for the foreign key.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "abuse_0001"
down_revision = "hosted_0002"
branch_labels = None
depends_on = None

# The worker's role may append these two events and no other, and in nobody's name.
FUNCTION = """
CREATE FUNCTION audit_append_judgement(event text, subject text, details text)
RETURNS TABLE (seq bigint, hash bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF event NOT IN ('version.suspended', 'version.reinstated') THEN
        RAISE EXCEPTION 'the event % is not for the worker to append', event
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN QUERY
        SELECT a.seq, a.hash
        FROM audit_append(event, NULL::uuid, NULL::uuid, subject, NULL, details) AS a;
END $$;

REVOKE EXECUTE ON FUNCTION audit_append_judgement(text, text, text) FROM PUBLIC;
"""


def upgrade() -> None:
    op.create_table(
        "version_standings",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column(
            "failing_runs",
            postgresql.ARRAY(postgresql.UUID()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "failing_decisions", sa.BigInteger(), server_default=sa.text("0"), nullable=False
        ),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(length=1000), nullable=True),
        sa.Column("checks_used", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("check_status", sa.String(length=16), nullable=True),
        sa.Column("check_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("check_report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("lifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "cause IN ('only_failed', 'operator')", name=op.f("ck_version_standings_cause")
        ),
        sa.CheckConstraint(
            "(suspended_at IS NULL) = (cause IS NULL)", name=op.f("ck_version_standings_suspended")
        ),
        sa.CheckConstraint(
            "(suspended_at IS NULL) = (reason IS NULL)", name=op.f("ck_version_standings_reason")
        ),
        sa.CheckConstraint(
            "check_status IN ('pending', 'passed', 'failed')",
            name=op.f("ck_version_standings_check_status"),
        ),
        sa.CheckConstraint(
            "cardinality(failing_runs) <= 20", name=op.f("ck_version_standings_failing_runs")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["agent_versions.id"], name=op.f("fk_version_standings_version_id")
        ),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_version_standings")),
    )
    op.create_index(
        "ix_version_standings_unchecked",
        "version_standings",
        ["version_id"],
        postgresql_where=sa.text("check_status = 'pending'"),
    )
    op.execute(FUNCTION)


def downgrade() -> None:
    op.execute("DROP FUNCTION audit_append_judgement(text, text, text)")
    op.drop_table("version_standings")
