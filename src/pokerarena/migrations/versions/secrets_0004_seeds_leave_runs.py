"""Runs no longer hold their seeds, which are in `run_seeds` now.

Revision: secrets_0004; follows secrets_0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "secrets_0004"
down_revision = "secrets_0003"
branch_labels = None
depends_on = None

# What the linter says of this revision and is right so (scripts/migration_sql).
LINT_EXCEPTIONS = {
    "ban-drop-column": "the seeds have moved: a copy left here would be readable by the API's role",
}


def upgrade() -> None:
    op.drop_column("runs", "seed_sealed")


def downgrade() -> None:
    # Filled by the step before, which is the next one on the way down.
    op.add_column("runs", sa.Column("seed_sealed", sa.LargeBinary(), nullable=True))
