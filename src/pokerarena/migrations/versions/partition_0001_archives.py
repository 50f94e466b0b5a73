"""Archives of hands, and the runs that are in them.

Revision: partition_0001; follows abuse_0001. Expands only, and locks `runs` alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "partition_0001"
down_revision = "abuse_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "history_archives",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("run_id_from", sa.Uuid(), nullable=True),
        sa.Column("run_id_to", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("place", sa.String(length=500), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("hands", sa.BigInteger(), nullable=False),
        sa.Column("first_hand_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_hand_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('writing', 'archived')", name=op.f("ck_history_archives_state")
        ),
        sa.CheckConstraint(
            "(state = 'archived') = (archived_at IS NOT NULL AND sha256 IS NOT NULL)",
            name=op.f("ck_history_archives_archived"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_history_archives")),
        sa.UniqueConstraint("name", name=op.f("uq_history_archives_name")),
    )
    op.add_column("runs", sa.Column("archive_id", sa.Uuid(), nullable=True))
    op.execute(
        "ALTER TABLE runs ADD CONSTRAINT fk_runs_archive_id"
        " FOREIGN KEY (archive_id) REFERENCES history_archives (id) NOT VALID"
    )
    # Whoever knows no archives, as the release before, is refused when it would resume such a run.
    op.execute(
        "ALTER TABLE runs ADD CONSTRAINT ck_runs_archived CHECK"
        " (archive_id IS NULL OR status IN ('completed', 'stopped', 'failed')) NOT VALID"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_runs_archived"), "runs")
    op.drop_column("runs", "archive_id")
    op.drop_table("history_archives")
