"""The chain of a run's hands, and its last link in the run.

Revision: reliability_0002; follows reliability_0001. Expands only: both columns may stay empty, so
that the release before it goes on writing hands. Links of hands that are there are computed here,
run by run, exactly as `history.chain` does.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "reliability_0002"
down_revision = "reliability_0001"
branch_labels = None
depends_on = None

LINK_WHAT_IS_THERE = """
DO $$
DECLARE
  run record;
  hand record;
  link bytea;
BEGIN
  FOR run IN SELECT id, seed_sha256 FROM runs WHERE hands_done > 0 LOOP
    link := substr(sha256('pokerarena hands'::bytea || uuid_send(run.id) || run.seed_sha256), 1, 16);
    FOR hand IN
      SELECT h.*, c.cards FROM hands h JOIN hand_cards c ON c.hand_id = h.id
      WHERE h.run_id = run.id ORDER BY h.hand_no
    LOOP
      link := substr(sha256(
        link || uuid_send(hand.id) || int4send(hand.hand_no) || int4send(hand.deal_no)
        || int4send(hand.epoch) || int2send(hand.level) || int2send(hand.button_seat)
        || int8send((extract(epoch FROM hand.ended_at) * 1000000)::bigint)
        || int4send(length(hand.board)) || hand.board
        || int4send(length(hand.seats)) || hand.seats
        || int4send(length(hand.actions)) || hand.actions
        || int4send(length(hand.cards)) || hand.cards
      ), 1, 16);
      UPDATE hands SET chain = link WHERE id = hand.id;
    END LOOP;
    UPDATE runs SET chain_head = link WHERE id = run.id;
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.add_column("hands", sa.Column("chain", sa.LargeBinary(length=16), nullable=True))
    op.add_column("runs", sa.Column("chain_head", sa.LargeBinary(length=16), nullable=True))
    op.get_bind().exec_driver_sql(LINK_WHAT_IS_THERE)


def downgrade() -> None:
    op.drop_column("runs", "chain_head")
    op.drop_column("hands", "chain")
