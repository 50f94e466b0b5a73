"""Seeds in relations of their own: one that the API cannot read, and one for what was told.

Revision: secrets_0002; follows secrets_0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "secrets_0002"
down_revision = "secrets_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_seeds",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("seed_sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_seeds_run_id")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_seeds")),
    )
    op.create_table(
        "revealed_seeds",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("seed", sa.LargeBinary(length=32), nullable=False),
        sa.Column(
            "revealed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_revealed_seeds_run_id")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_revealed_seeds")),
    )


def downgrade() -> None:
    op.alter_column("runs", "seed_sealed", nullable=False)
    op.drop_table("revealed_seeds")
    op.drop_table("run_seeds")
