"""The tokens of logins (`pks_…`) go: sessions take their place, and their users log in again.

Revision: identity_0000; follows reliability_0004. Changes rows only, and a second try goes on where
the first one ended.
"""

from __future__ import annotations

from alembic import op

revision = "identity_0000"
down_revision = "reliability_0004"
branch_labels = None
depends_on = None

# What the linter says of this revision and is right so (scripts/migration_sql).
LINT_EXCEPTIONS = {
    "transaction-nesting": "rows change outside of the transaction that changes shapes",
    "ban-uncommitted-transaction": "the program ends the transaction that follows",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DELETE FROM api_tokens WHERE kind = 'session'")


def downgrade() -> None:
    """A token that is forgotten does not come back."""
