"""The chain of a run's hands, and its last link in the run.

Revision: reliability_0002; follows reliability_0001. Expands only: both columns may stay empty, so
that the release before it goes on writing hands. The next revision links the hands that are there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "reliability_0002"
down_revision = "reliability_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hands", sa.Column("chain", sa.LargeBinary(length=16), nullable=True))
    op.add_column("runs", sa.Column("chain_head", sa.LargeBinary(length=16), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "chain_head")
    op.drop_column("hands", "chain")
