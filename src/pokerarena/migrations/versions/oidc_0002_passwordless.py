"""On the way down, accounts without a password get a hash that no password has.

Revision: oidc_0002; follows oidc_0001. On the way up there is nothing to do: there are none yet.
"""

from __future__ import annotations

from alembic import op

revision = "oidc_0002"
down_revision = "oidc_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From here on an account may be made without a password."""


def downgrade() -> None:
    with op.get_context().autocommit_block():
        # pragma: allowlist nextline secret
        op.execute("UPDATE users SET password_hash = 'none' WHERE password_hash IS NULL")
