"""The operators' egress lists, and the hosts that hosted versions may reach.

Revision: egress_0001; adds relations: nothing that exists is locked but, for a moment, `users` and
`agent_versions` for the foreign keys. No version so far declares a host.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "egress_0001"
down_revision = "hosts_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "egress_rules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("effect", sa.String(length=8), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", sa.String(length=260), nullable=False),
        sa.Column("note", sa.String(length=200), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.CheckConstraint("effect IN ('allow', 'deny')", name=op.f("ck_egress_rules_effect")),
        sa.CheckConstraint(
            "kind IN ('domain', 'scheme', 'port', 'network')", name=op.f("ck_egress_rules_kind")
        ),
        sa.CheckConstraint(
            "kind <> 'network' OR effect = 'deny'", name=op.f("ck_egress_rules_network")
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("fk_egress_rules_created_by")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_egress_rules")),
        sa.UniqueConstraint(
            "effect", "kind", "value", name=op.f("uq_egress_rules_effect_kind_value")
        ),
    )
    revision_row = op.create_table(
        "egress_revision",
        sa.Column("single", sa.Boolean(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("single", name=op.f("ck_egress_revision_single")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_egress_revision")),
    )
    op.bulk_insert(revision_row, [{"single": True, "revision": 1}])
    op.create_table(
        "version_egress",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("port", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'denied')", name=op.f("ck_version_egress_state")
        ),
        sa.CheckConstraint(
            "(state = 'pending') = (decided_at IS NULL)", name=op.f("ck_version_egress_decided")
        ),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_version_egress_port")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["agent_versions.id"], name=op.f("fk_version_egress_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["decided_by"], ["users.id"], name=op.f("fk_version_egress_decided_by")
        ),
        sa.PrimaryKeyConstraint("version_id", "host", "port", name=op.f("pk_version_egress")),
    )
    op.create_index(
        "ix_version_egress_pending",
        "version_egress",
        ["version_id"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )


def downgrade() -> None:
    op.drop_table("version_egress")
    op.drop_table("egress_revision")
    op.drop_table("egress_rules")
