"""The audit chain: records that only a function of the database appends, and nobody changes.

Revision: secrets_0001; follows identity_0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "secrets_0001"
down_revision = "identity_0001"
branch_labels = None
depends_on = None

# docs/security/audit.md documents the serialisation; auth.audit checks it with code of its own.
FUNCTIONS = """
CREATE FUNCTION audit_field(value text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN value IS NULL THEN int4send(-1)
           ELSE int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') END
$$;

CREATE FUNCTION audit_append(
    event text, actor_id uuid, credential_id uuid, subject text, request_id text, details text
) RETURNS TABLE (seq bigint, hash bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    head audit_head%ROWTYPE;
    -- After the lock: later records are never older.
    now_at timestamptz;
    new_hash bytea;
BEGIN
    SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
    now_at := clock_timestamp();
    new_hash := sha256(
        head.hash
        || audit_field((head.seq + 1)::text)
        || audit_field((extract(epoch FROM now_at) * 1000000)::bigint::text)
        || audit_field(event)
        || audit_field(actor_id::text)
        || audit_field(credential_id::text)
        || audit_field(subject)
        || audit_field(request_id)
        || audit_field(details)
    );
    INSERT INTO audit_records VALUES (
        head.seq + 1, now_at, event, actor_id, credential_id, subject, request_id, details,
        head.hash, new_hash
    );
    UPDATE audit_head AS h SET seq = head.seq + 1, hash = new_hash;
    RETURN QUERY SELECT head.seq + 1, new_hash;
END $$;

REVOKE EXECUTE ON FUNCTION audit_append(text, uuid, uuid, text, text, text) FROM PUBLIC;

CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit records are never changed' USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_records_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_records
FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
"""


def upgrade() -> None:
    op.create_table(
        "audit_records",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", sa.String(length=60), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("credential_id", sa.Uuid(), nullable=True),
        sa.Column("subject", sa.String(length=100), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.CheckConstraint("octet_length(details) <= 4096", name=op.f("ck_audit_records_details")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_records")),
    )
    op.create_index("ix_audit_records_event", "audit_records", ["event", "seq"])
    op.create_index("ix_audit_records_actor_id", "audit_records", ["actor_id", "seq"])
    op.create_index("ix_audit_records_subject", "audit_records", ["subject", "seq"])
    head = op.create_table(
        "audit_head",
        sa.Column("single", sa.Boolean(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.CheckConstraint("single", name=op.f("ck_audit_head_single")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_audit_head")),
    )
    op.bulk_insert(head, [{"single": True, "seq": 0, "hash": bytes(32)}])
    op.get_bind().exec_driver_sql(FUNCTIONS.replace("%", "%%"))


def downgrade() -> None:
    op.drop_table("audit_records")
    op.drop_table("audit_head")
    for function in (
        "audit_refuse_change()",
        "audit_append(text, uuid, uuid, text, text, text)",
        "audit_field(text)",
    ):
        op.execute(f"DROP FUNCTION {function}")
