"""The sealed seeds of runs move to their own relation.

Revision: secrets_0003; follows secrets_0002. Changes rows only, and a second try goes on where the
first one ended.
"""

from __future__ import annotations

from alembic import op

revision = "secrets_0003"
down_revision = "secrets_0002"
branch_labels = None
depends_on = None

# What the linter says of this revision and is right so (scripts/migration_sql).
LINT_EXCEPTIONS = {
    "transaction-nesting": "rows change outside of the transaction that changes shapes",
    "ban-uncommitted-transaction": "the program ends the transaction that follows",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(
            "INSERT INTO run_seeds (run_id, seed_sealed) SELECT id, seed_sealed FROM runs"
            " ON CONFLICT (run_id) DO NOTHING"
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("UPDATE runs SET seed_sealed = s.seed_sealed FROM run_seeds s WHERE run_id = id")
