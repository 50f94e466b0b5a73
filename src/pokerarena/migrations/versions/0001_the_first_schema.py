"""The first schema: accounts, agents, tables, runs, hands, and the queue.

Revision: 0001; follows nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# One row an action. The packing is history.codec's: ten bytes an action, big-endian.
HAND_ACTIONS_VIEW = """
CREATE VIEW hand_actions AS
SELECT h.id AS hand_id,
       h.run_id,
       h.hand_no,
       n.n AS action_no,
       (get_byte(h.actions, o.at + 1) & 15)::smallint AS street,
       (get_byte(h.actions, o.at) & 15)::smallint AS seat_no,
       (ARRAY['fold','check','call','bet','raise'])[(get_byte(h.actions, o.at) >> 4) + 1] AS action,
       CASE WHEN (get_byte(h.actions, o.at) >> 4) >= 2 THEN
           (get_byte(h.actions, o.at + 4)::bigint << 40)
         + (get_byte(h.actions, o.at + 5)::bigint << 32)
         + (get_byte(h.actions, o.at + 6)::bigint << 24)
         + (get_byte(h.actions, o.at + 7)::bigint << 16)
         + (get_byte(h.actions, o.at + 8)::bigint << 8)
         + get_byte(h.actions, o.at + 9)::bigint
       END AS street_total,
       (get_byte(h.actions, o.at + 2) << 8) + get_byte(h.actions, o.at + 3) AS elapsed_ms,
       (ARRAY['timeout','connect_failed','egress_denied','http_status','too_large','malformed',
              'illegal_action','sandbox_cpu','sandbox_memory','sandbox_exit','circuit_open',
              'infrastructure'])[NULLIF(get_byte(h.actions, o.at + 1) >> 4, 0)] AS fallback
FROM hands h
CROSS JOIN LATERAL generate_series(0, length(h.actions) / 10 - 1) AS n(n)
CROSS JOIN LATERAL (SELECT n.n * 10 AS at) AS o
"""

# The queue's library offers no way down; everything of it carries its prefix.
DROP_QUEUE = """
DO $$
DECLARE item record;
BEGIN
  FOR item IN SELECT oid::regclass AS name FROM pg_class
      WHERE relname LIKE 'procrastinate%%' AND relkind = 'r' LOOP
    EXECUTE 'DROP TABLE ' || item.name || ' CASCADE';
  END LOOP;
  FOR item IN SELECT oid::regprocedure AS name FROM pg_proc
      WHERE proname LIKE 'procrastinate%%' LOOP
    EXECUTE 'DROP FUNCTION ' || item.name || ' CASCADE';
  END LOOP;
  FOR item IN SELECT oid::regtype AS name FROM pg_type
      WHERE typname LIKE 'procrastinate%%' AND typtype IN ('e', 'c') LOOP
    EXECUTE 'DROP TYPE ' || item.name || ' CASCADE';
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "live_watches",
        sa.Column("table_id", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("table_id", name=op.f("pk_live_watches")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.String(length=40), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("role IN ('member', 'operator')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index(
        "uq_users_username_lower", "users", [sa.literal_column("lower(username)")], unique=True
    )
    op.create_table(
        "agents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("description", sa.String(length=1000), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "visibility IN ('private', 'public')", name=op.f("ck_agents_visibility")
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_agents_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
    )
    op.create_index(
        "uq_agents_owner_id_name_lower",
        "agents",
        ["owner_id", sa.literal_column("lower(name)")],
        unique=True,
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.String(length=40)), nullable=False),
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
        sa.CheckConstraint("kind IN ('session', 'personal')", name=op.f("ck_api_tokens_kind")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_api_tokens_expiry")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_tokens_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("mac", name=op.f("uq_api_tokens_mac")),
    )
    op.create_index(op.f("ix_api_tokens_user_id"), "api_tokens", ["user_id"], unique=False)
    op.create_table(
        "tables",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("reveal_policy", sa.String(length=16), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("seat_count", sa.SmallInteger(), nullable=False),
        sa.Column("small_blind", sa.BigInteger(), nullable=False),
        sa.Column("big_blind", sa.BigInteger(), nullable=False),
        sa.Column("ante", sa.BigInteger(), nullable=False),
        sa.Column("ante_kind", sa.String(length=16), nullable=False),
        sa.Column("starting_stack", sa.BigInteger(), nullable=False),
        sa.Column("bust_policy", sa.String(length=16), nullable=False),
        sa.Column("blind_schedule", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("action_time_ms", sa.Integer(), nullable=False),
        sa.Column("time_bank_ms", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("ante_kind IN ('each', 'big_blind')", name=op.f("ck_tables_ante_kind")),
        sa.CheckConstraint("bust_policy IN ('rebuy', 'leave')", name=op.f("ck_tables_bust_policy")),
        sa.CheckConstraint(
            "format IN ('cash', 'reset', 'duplicate', 'freezeout')", name=op.f("ck_tables_format")
        ),
        sa.CheckConstraint(
            "reveal_policy IN ('showdown', 'after_run')", name=op.f("ck_tables_reveal_policy")
        ),
        sa.CheckConstraint(
            "visibility IN ('private', 'unlisted', 'public')", name=op.f("ck_tables_visibility")
        ),
        sa.CheckConstraint(
            "action_time_ms >= 1 AND time_bank_ms >= 0", name=op.f("ck_tables_times")
        ),
        sa.CheckConstraint("ante >= 0", name=op.f("ck_tables_ante")),
        sa.CheckConstraint("seat_count BETWEEN 2 AND 10", name=op.f("ck_tables_seat_count")),
        sa.CheckConstraint(
            "small_blind >= 1 AND big_blind >= small_blind", name=op.f("ck_tables_blinds")
        ),
        sa.CheckConstraint(
            "starting_stack >= big_blind AND starting_stack <= 1000000000",
            name=op.f("ck_tables_starting_stack"),
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_tables_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tables")),
    )
    op.create_index("ix_tables_owner_id", "tables", ["owner_id", "id"], unique=False)
    op.create_index(
        "ix_tables_public",
        "tables",
        ["id"],
        unique=False,
        postgresql_where=sa.text("visibility = 'public'"),
    )
    op.create_table(
        "agent_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("callback_url", sa.String(length=2000), nullable=True),
        sa.Column("house_name", sa.String(length=40), nullable=True),
        sa.Column("signing_secret_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("max_batch", sa.Integer(), nullable=False),
        sa.Column("max_in_flight", sa.Integer(), nullable=False),
        sa.Column("wants_events", sa.Boolean(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(kind = 'house') = (house_name IS NOT NULL)", name=op.f("ck_agent_versions_house_name")
        ),
        sa.CheckConstraint(
            "(kind = 'http') = (callback_url IS NOT NULL)",
            name=op.f("ck_agent_versions_callback_url"),
        ),
        sa.CheckConstraint(
            "(kind = 'http') = (signing_secret_sealed IS NOT NULL)",
            name=op.f("ck_agent_versions_secret"),
        ),
        sa.CheckConstraint(
            "kind IN ('http', 'hosted', 'house')", name=op.f("ck_agent_versions_kind")
        ),
        sa.CheckConstraint("max_batch BETWEEN 1 AND 64", name=op.f("ck_agent_versions_max_batch")),
        sa.CheckConstraint(
            "max_in_flight BETWEEN 1 AND 64", name=op.f("ck_agent_versions_max_in_flight")
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_agent_versions_number")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_agent_versions_agent_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_versions")),
        sa.UniqueConstraint("agent_id", "number", name=op.f("uq_agent_versions_agent_id_number")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("table_id", sa.Uuid(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("failure_code", sa.String(length=60), nullable=True),
        sa.Column("failure_detail", sa.String(length=1000), nullable=True),
        sa.Column("rules", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("reveal_policy", sa.String(length=16), nullable=False),
        sa.Column("hands_target", sa.Integer(), nullable=False),
        sa.Column("hands_done", sa.Integer(), nullable=False),
        sa.Column("deals_done", sa.Integer(), nullable=False),
        sa.Column("deals_reserved", sa.Integer(), nullable=False),
        sa.Column("position", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seed_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("seed_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_by", sa.String(length=120), nullable=True),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("recoveries", sa.SmallInteger(), nullable=False),
        sa.Column("stop_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'failed') = (failure_code IS NOT NULL)", name=op.f("ck_runs_failure")
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'completed', 'stopped', 'failed')",
            name=op.f("ck_runs_status"),
        ),
        sa.CheckConstraint("deals_reserved >= deals_done", name=op.f("ck_runs_deals")),
        sa.CheckConstraint(
            "hands_done BETWEEN 0 AND hands_target", name=op.f("ck_runs_hands_done")
        ),
        sa.CheckConstraint("hands_target >= 1", name=op.f("ck_runs_hands_target")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_runs_created_by")),
        sa.ForeignKeyConstraint(["table_id"], ["tables.id"], name=op.f("fk_runs_table_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(
        "ix_runs_active",
        "runs",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index("ix_runs_created_by", "runs", ["created_by", "id"], unique=False)
    op.create_index("ix_runs_table_id", "runs", ["table_id", "id"], unique=False)
    op.create_index(
        "uq_runs_active_table",
        "runs",
        ["table_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_table(
        "hands",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hand_no", sa.Integer(), nullable=False),
        sa.Column("deal_no", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("button_seat", sa.SmallInteger(), nullable=False),
        sa.Column("board", sa.LargeBinary(), nullable=False),
        sa.Column("seats", sa.LargeBinary(), nullable=False),
        sa.Column("actions", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_hands_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hands")),
        sa.UniqueConstraint("run_id", "hand_no", name=op.f("uq_hands_run_id_hand_no")),
    )
    op.create_table(
        "run_seats",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("seat_no", sa.SmallInteger(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("agent_name", sa.String(length=60), nullable=False),
        sa.Column("version_number", sa.Integer(), nullable=False),
        sa.Column("net", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("unit_sum", sa.Double(), nullable=False),
        sa.Column("unit_sum_squares", sa.Double(), nullable=False),
        sa.Column("hands", sa.Integer(), nullable=False),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
        sa.Column("rebuys", sa.Integer(), nullable=False),
        sa.Column("time_bank_ms", sa.Integer(), nullable=False),
        sa.Column("fallbacks", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("seat_no BETWEEN 1 AND 10", name=op.f("ck_run_seats_seat_no")),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name=op.f("fk_run_seats_agent_id")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_run_seats_owner_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_seats_run_id")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["agent_versions.id"], name=op.f("fk_run_seats_version_id")
        ),
        sa.PrimaryKeyConstraint("run_id", "seat_no", name=op.f("pk_run_seats")),
    )
    op.create_index(op.f("ix_run_seats_agent_id"), "run_seats", ["agent_id"], unique=False)
    op.create_index(op.f("ix_run_seats_owner_id"), "run_seats", ["owner_id"], unique=False)
    op.create_table(
        "seats",
        sa.Column("table_id", sa.Uuid(), nullable=False),
        sa.Column("seat_no", sa.SmallInteger(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("taken_by", sa.Uuid(), nullable=False),
        sa.Column(
            "taken_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("seat_no BETWEEN 1 AND 10", name=op.f("ck_seats_seat_no")),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name=op.f("fk_seats_agent_id")),
        sa.ForeignKeyConstraint(["table_id"], ["tables.id"], name=op.f("fk_seats_table_id")),
        sa.ForeignKeyConstraint(["taken_by"], ["users.id"], name=op.f("fk_seats_taken_by")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["agent_versions.id"], name=op.f("fk_seats_version_id")
        ),
        sa.PrimaryKeyConstraint("table_id", "seat_no", name=op.f("pk_seats")),
    )
    op.create_index(op.f("ix_seats_agent_id"), "seats", ["agent_id"], unique=False)
    op.create_table(
        "void_deals",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("deal_no", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_void_deals_run_id")),
        sa.PrimaryKeyConstraint("run_id", "deal_no", name=op.f("pk_void_deals")),
    )
    op.create_table(
        "decision_notes",
        sa.Column("hand_id", sa.Uuid(), nullable=False),
        sa.Column("action_no", sa.SmallInteger(), nullable=False),
        sa.Column("seat_no", sa.SmallInteger(), nullable=False),
        sa.Column("note", sa.String(length=1024), nullable=True),
        sa.Column("failure", sa.String(length=1024), nullable=True),
        sa.ForeignKeyConstraint(["hand_id"], ["hands.id"], name=op.f("fk_decision_notes_hand_id")),
        sa.PrimaryKeyConstraint("hand_id", "action_no", name=op.f("pk_decision_notes")),
    )
    op.create_table(
        "hand_cards",
        sa.Column("hand_id", sa.Uuid(), nullable=False),
        sa.Column("cards", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["hand_id"], ["hands.id"], name=op.f("fk_hand_cards_hand_id")),
        sa.PrimaryKeyConstraint("hand_id", name=op.f("pk_hand_cards")),
    )
    op.get_bind().exec_driver_sql(HAND_ACTIONS_VIEW)
    # The driver reads a percent sign as the start of a placeholder.
    op.get_bind().exec_driver_sql(SchemaManager.get_schema().replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DROP_QUEUE)
    op.get_bind().exec_driver_sql("DROP VIEW hand_actions")
    op.drop_table("hand_cards")
    op.drop_table("decision_notes")
    op.drop_table("void_deals")
    op.drop_index(op.f("ix_seats_agent_id"), table_name="seats")
    op.drop_table("seats")
    op.drop_index(op.f("ix_run_seats_owner_id"), table_name="run_seats")
    op.drop_index(op.f("ix_run_seats_agent_id"), table_name="run_seats")
    op.drop_table("run_seats")
    op.drop_table("hands")
    op.drop_index(
        "uq_runs_active_table",
        table_name="runs",
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.drop_index("ix_runs_table_id", table_name="runs")
    op.drop_index("ix_runs_created_by", table_name="runs")
    op.drop_index(
        "ix_runs_active",
        table_name="runs",
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.drop_table("runs")
    op.drop_table("agent_versions")
    op.drop_index(
        "ix_tables_public", table_name="tables", postgresql_where=sa.text("visibility = 'public'")
    )
    op.drop_index("ix_tables_owner_id", table_name="tables")
    op.drop_table("tables")
    op.drop_index(op.f("ix_api_tokens_user_id"), table_name="api_tokens")
    op.drop_table("api_tokens")
    op.drop_index("uq_agents_owner_id_name_lower", table_name="agents")
    op.drop_table("agents")
    op.drop_index("uq_users_username_lower", table_name="users")
    op.drop_table("users")
    op.drop_table("live_watches")
