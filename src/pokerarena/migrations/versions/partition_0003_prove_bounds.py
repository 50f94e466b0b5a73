"""Prove what the revisions before have promised, while everybody reads and writes.

Revision: partition_0003; follows partition_0002. Reads every hand once: it may take minutes, so it is
under no timeout, and it locks nobody out.
"""

from __future__ import annotations

from alembic import op

revision = "partition_0003"
down_revision = "partition_0002"
branch_labels = None
depends_on = None

PROVE = """
DO $$
DECLARE
  promised record;
BEGIN
  FOR promised IN
    SELECT conrelid::regclass AS relation, conname FROM pg_constraint
    WHERE NOT convalidated AND conname IN ('fk_runs_archive_id', 'ck_runs_archived',
      'ck_hands_before', 'ck_hand_cards_before', 'ck_decision_notes_before')
  LOOP
    EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT %I', promised.relation, promised.conname);
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute(PROVE)


def downgrade() -> None:
    """What was proved stays true."""
