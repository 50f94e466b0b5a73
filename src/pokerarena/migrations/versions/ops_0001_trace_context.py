"""A run remembers the trace that it belongs to.

Revision: ops_0001; adds a column without a default, which rewrites nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ops_0001"
down_revision = "secrets_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("trace_context", sa.String(55)))


def downgrade() -> None:
    op.drop_column("runs", "trace_context")
