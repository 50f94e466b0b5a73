"""The promise that lets the hands of today become one partition.

Revision: partition_0002; follows partition_0001. Where hands are stored already, a check says that no
run of theirs is of a month that is not there yet: `partition_0003` proves it while everybody plays,
and `partition_0004` then attaches them without reading a row. The order of the locks is that in which
hands are written.
"""

from __future__ import annotations

from alembic import op

revision = "partition_0002"
down_revision = "partition_0001"
branch_labels = None
depends_on = None

# The first moment of the month after the next, as the smallest UUIDv7 of that moment: there is more
# than a month to come to partition_0004 before the check could refuse a hand.
BOUND_WHAT_IS_THERE = """
DO $$
DECLARE
  month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months';
  bound uuid := lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0') || repeat('0', 20);
  held record;
BEGIN
  IF NOT EXISTS (SELECT FROM hands) THEN
    RETURN;
  END IF;
  FOR held IN
    SELECT * FROM (VALUES ('hands', 'run_id'), ('hand_cards', 'hand_id'),
                          ('decision_notes', 'hand_id')) AS h(relation, key)
  LOOP
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I CHECK (%I < %L::uuid) NOT VALID',
                   held.relation, 'ck_' || held.relation || '_before', held.key, bound);
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute(BOUND_WHAT_IS_THERE)


def downgrade() -> None:
    for relation in ("hands", "hand_cards", "decision_notes"):
        op.execute(f"ALTER TABLE {relation} DROP CONSTRAINT IF EXISTS ck_{relation}_before")
