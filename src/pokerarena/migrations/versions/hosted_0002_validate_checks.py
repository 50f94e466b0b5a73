"""Hold versions of before to what hosted versions are held to: none of them is one.

Revision: hosted_0002; follows hosted_0001. Reads only, while everybody reads and writes.
"""

from __future__ import annotations

from alembic import op

revision = "hosted_0002"
down_revision = "hosted_0001"
branch_labels = None
depends_on = None

CHECKS = (
    "package",
    "package_size",
    "manifest",
    "check_status",
    "check_status_known",
    "check_report",
)


def upgrade() -> None:
    for name in CHECKS:
        op.execute(f"ALTER TABLE agent_versions VALIDATE CONSTRAINT ck_agent_versions_{name}")


def downgrade() -> None:
    """A constraint that was validated does no harm to those who know it as one that was not."""
