"""Viewer links.

Revision: viewer_0001; follows oidc_0002. Adds a relation: nothing that exists is locked but, for
a moment, `tables`, `agents` and `users` for the foreign keys.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "viewer_0001"
down_revision = "oidc_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "viewer_links",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("table_id", sa.Uuid(), nullable=False),
        sa.Column("seat_no", sa.SmallInteger(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("seat_taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("pepper_id", sa.LargeBinary(length=4), nullable=False),
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("seat_no BETWEEN 1 AND 10", name=op.f("ck_viewer_links_seat_no")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_viewer_links_expiry")),
        sa.ForeignKeyConstraint(["table_id"], ["tables.id"], name=op.f("fk_viewer_links_table_id")),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name=op.f("fk_viewer_links_agent_id")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_viewer_links_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_viewer_links")),
        sa.UniqueConstraint("mac", name=op.f("uq_viewer_links_mac")),
    )
    op.create_index("ix_viewer_links_owner_id", "viewer_links", ["owner_id", "id"])


def downgrade() -> None:
    op.drop_table("viewer_links")
