"""A table may name the sandbox runtime of its hosted agents, and a run remembers the one it plays in.

Revision: hosts_0001; adds two columns without a default, which rewrites nothing. NULL is the runtime of
before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "hosts_0001"
down_revision = "viewer_0001"
branch_labels = None
depends_on = None

RELATIONS = ("tables", "runs")


def upgrade() -> None:
    for relation in RELATIONS:
        op.add_column(relation, sa.Column("sandbox_runtime", sa.String(16)))


def downgrade() -> None:
    for relation in RELATIONS:
        op.drop_column(relation, "sandbox_runtime")
