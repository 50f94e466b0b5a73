"""Links of the hands that were stored before the chain, exactly as `history.chain` makes them.

Revision: reliability_0003; follows reliability_0002. Changes rows only, run by run, each in a
transaction of its own: no lock lasts longer than one run takes, and a second try goes on where the
first one ended.
"""

from __future__ import annotations

from alembic import op

revision = "reliability_0003"
down_revision = "reliability_0002"
branch_labels = None
depends_on = None

# What the linter says of this revision and is right so (scripts/migration_sql).
LINT_EXCEPTIONS = {
    "transaction-nesting": "rows change outside of the transaction that changes shapes",
    "ban-uncommitted-transaction": "the program ends the transaction that follows",
}

LINK_WHAT_IS_THERE = """
DO $$
DECLARE
  run record;
  hand record;
  link bytea;
BEGIN
  FOR run IN SELECT id, seed_sha256 FROM runs WHERE hands_done > 0 AND chain_head IS NULL LOOP
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
    COMMIT;
  END LOOP;
END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.get_bind().exec_driver_sql(LINK_WHAT_IS_THERE)


def downgrade() -> None:
    """Links stay: the release before ignores them."""
