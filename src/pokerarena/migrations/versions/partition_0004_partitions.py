"""Hands, hole cards and notes become partitioned by time; what is there becomes the first partition.

Revision: partition_0004; follows partition_0003. Changes the catalogue only, under locks that last a
moment: no row is read (partition_0003 has), none is moved. Names and columns stay, so that the release
before goes on as it is.

Hands are partitioned by the time in their run's id (a UUIDv7): all hands of a run are in one
partition, so a unique (run_id, hand_no) is still the database's word. Hole cards and notes know only
the hand's id and are partitioned by the time in that; a foreign key to a hand cannot be had any more.
docs/decisions/partitions-by-run.md has the reasons.
"""

from __future__ import annotations

from alembic import op

revision = "partition_0004"
down_revision = "partition_0003"
branch_labels = None
depends_on = None

BOUND = """
CREATE FUNCTION history_bound(month timestamp) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$
"""
# Partitions follow each other without a gap: the last one's end is where the next one begins.
COVERED = r"""
CREATE FUNCTION history_covered_until(whole regclass) RETURNS timestamp
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT timestamp 'epoch' + (('x' || left(bound, 8) || substr(bound, 10, 4))::bit(48)::bigint
                              * interval '1 millisecond')
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  CROSS JOIN LATERAL (
    SELECT (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([0-9a-f-]{36})''\)'))[1]
  ) AS b(bound)
  WHERE i.inhparent = whole AND bound IS NOT NULL
  ORDER BY bound DESC LIMIT 1
$$
"""
MAKE = """
CREATE FUNCTION history_make_partition(whole text, key text, month timestamp) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  part text := whole || to_char(month, '_YYYY_MM');
  lower uuid := public.history_bound(month);
  upper uuid := public.history_bound(month + interval '1 month');
BEGIN
  EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING STORAGE)',
                 part, whole);
  IF whole = 'hands' THEN
    EXECUTE format('ALTER TABLE public.%I ADD CONSTRAINT %I PRIMARY KEY (id)', part, 'pk_' || part);
  END IF;
  -- What came in while there was no partition for it lies in the default one.
  EXECUTE format(
    'WITH moved AS (DELETE FROM public.%I WHERE %I >= %L AND %I < %L RETURNING *)'
    ' INSERT INTO public.%I SELECT * FROM moved',
    whole || '_default', key, lower, key, upper, part);
  EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                 whole, part, lower, upper);
END $$
"""
# Called by workers, who may not change a schema. All locks are taken at once, in the order in which
# hands are written (`runs` is changed last), and given up before a deadlock would be looked for (1 s):
# at worst this comes to nothing and is tried again, and play has waited for a moment.
ENSURE = """
CREATE FUNCTION history_ensure_partitions(months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  present timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
  last_month timestamp := present + make_interval(months => months_ahead);
  whole record;
  month timestamp;
  made integer := 0;
BEGIN
  IF months_ahead NOT BETWEEN 0 AND 24 THEN
    RAISE 'between 0 and 24 months ahead, not %', months_ahead USING ERRCODE = '22023';
  END IF;
  IF (SELECT min(coalesce(public.history_covered_until(name::regclass), present)) > last_month
      FROM unnest(ARRAY['public.hands', 'public.hand_cards', 'public.decision_notes']) AS name)
     OR NOT pg_try_advisory_xact_lock(8101253776571427699) THEN
    RETURN 0;
  END IF;
  LOCK TABLE public.hands_default, public.hand_cards_default, public.decision_notes_default
    IN ACCESS EXCLUSIVE MODE;
  LOCK TABLE public.runs IN SHARE ROW EXCLUSIVE MODE;
  FOR whole IN VALUES ('hands', 'run_id'), ('hand_cards', 'hand_id'), ('decision_notes', 'hand_id')
  LOOP
    month := coalesce(
      public.history_covered_until(format('public.%I', whole.column1)::regclass), present);
    WHILE month <= last_month LOOP
      PERFORM public.history_make_partition(whole.column1, whole.column2, month);
      month := month + interval '1 month';
      made := made + 1;
    END LOOP;
  END LOOP;
  RETURN made;
END $$
"""
COPY_GRANTS = """
CREATE FUNCTION pg_temp.copy_grants(giver regclass, taker regclass) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  given record;
BEGIN
  FOR given IN
    SELECT pg_get_userbyid(a.grantee) AS role, a.privilege_type
    FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
    WHERE c.oid = giver AND a.grantee NOT IN (0, c.relowner)
  LOOP
    EXECUTE format('GRANT %s ON %s TO %I', given.privilege_type, taker, given.role);
  END LOOP;
END $$
"""
SWAP = r"""
DO $$
DECLARE
  present timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
  actions text := pg_get_viewdef('hand_actions');
  bound uuid;
  whole record;
  named record;
BEGIN
  -- The view and its hands first, then as a worker goes: it changes `runs` after all the others.
  LOCK TABLE hand_actions, hand_cards, decision_notes IN ACCESS EXCLUSIVE MODE;
  LOCK TABLE runs IN SHARE ROW EXCLUSIVE MODE;
  SELECT (regexp_match(pg_get_constraintdef(oid), '''([0-9a-f-]{36})'''))[1] INTO bound
  FROM pg_constraint WHERE conrelid = 'hands'::regclass AND conname = 'ck_hands_before';
  IF bound IS NULL THEN
    bound := history_bound(
      CASE WHEN EXISTS (SELECT FROM hands) THEN present + interval '2 months' ELSE present END);
  END IF;
  ALTER TABLE hand_cards DROP CONSTRAINT fk_hand_cards_hand_id;
  ALTER TABLE decision_notes DROP CONSTRAINT fk_decision_notes_hand_id;
  FOR whole IN VALUES ('hands', 'run_id'), ('hand_cards', 'hand_id'), ('decision_notes', 'hand_id')
  LOOP
    EXECUTE format('ALTER TABLE %I RENAME TO %I', whole.column1, whole.column1 || '_before');
    -- The names of keys are the names of indexes, and the whole shall have those.
    FOR named IN SELECT conname FROM pg_constraint
      WHERE conrelid = (whole.column1 || '_before')::regclass AND contype IN ('p', 'u')
    LOOP
      EXECUTE format('ALTER TABLE %I RENAME CONSTRAINT %I TO %I',
                     whole.column1 || '_before', named.conname, named.conname || '_before');
    END LOOP;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING STORAGE)'
                   ' PARTITION BY RANGE (%I)',
                   whole.column1, whole.column1 || '_before', whole.column2);
    PERFORM pg_temp.copy_grants((whole.column1 || '_before')::regclass, whole.column1::regclass);
  END LOOP;
  ALTER TABLE hands
    ADD CONSTRAINT uq_hands_run_id_hand_no UNIQUE (run_id, hand_no),
    ADD CONSTRAINT fk_hands_run_id FOREIGN KEY (run_id) REFERENCES runs (id);
  ALTER TABLE hand_cards ADD CONSTRAINT pk_hand_cards PRIMARY KEY (hand_id);
  ALTER TABLE decision_notes ADD CONSTRAINT pk_decision_notes PRIMARY KEY (hand_id, action_no);
  FOR whole IN VALUES ('hands'), ('hand_cards'), ('decision_notes') LOOP
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
                   whole.column1, whole.column1 || '_before', bound);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT IF EXISTS %I',
                   whole.column1 || '_before', 'ck_' || whole.column1 || '_before');
    EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT',
                   whole.column1 || '_default', whole.column1);
  END LOOP;
  ALTER TABLE hands_default ADD CONSTRAINT pk_hands_default PRIMARY KEY (id);
  EXECUTE 'CREATE OR REPLACE VIEW hand_actions AS ' || actions;
END $$
"""
# The way down has to move what lies in other partitions than the first, under a lock.
DOWN_SWAP = """
DO $$
DECLARE
  actions text := pg_get_viewdef('hand_actions');
  whole record;
  named record;
  part text;
BEGIN
  LOCK TABLE hand_actions, hand_cards, decision_notes IN ACCESS EXCLUSIVE MODE;
  LOCK TABLE runs IN SHARE ROW EXCLUSIVE MODE;
  FOR whole IN VALUES ('hands'), ('hand_cards'), ('decision_notes') LOOP
    part := whole.column1 || '_before';
    IF to_regclass(part) IS NULL THEN
      -- It was archived.
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING STORAGE'
                     ' INCLUDING INDEXES)', part, whole.column1);
      IF whole.column1 = 'hands' THEN
        ALTER TABLE hands_before ADD CONSTRAINT pk_hands_before PRIMARY KEY (id),
          ADD CONSTRAINT fk_hands_run_id FOREIGN KEY (run_id) REFERENCES runs (id);
      END IF;
    ELSE
      EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', whole.column1, part);
    END IF;
    EXECUTE format('INSERT INTO %I SELECT * FROM %I', part, whole.column1);
    PERFORM pg_temp.copy_grants(whole.column1::regclass, part::regclass);
    EXECUTE format('ALTER TABLE %I RENAME TO %I', whole.column1, whole.column1 || '_whole');
    EXECUTE format('ALTER TABLE %I RENAME TO %I', part, whole.column1);
  END LOOP;
  EXECUTE 'CREATE OR REPLACE VIEW hand_actions AS ' || actions;
  DROP TABLE hands_whole, hand_cards_whole, decision_notes_whole;
  FOR named IN SELECT conrelid::regclass AS relation, conname, contype FROM pg_constraint
    WHERE contype IN ('p', 'u')
      AND conrelid IN ('hands'::regclass, 'hand_cards'::regclass, 'decision_notes'::regclass)
  LOOP
    EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', named.relation, named.conname,
                   CASE WHEN named.contype = 'p' THEN 'pk_' || named.relation
                        ELSE 'uq_hands_run_id_hand_no' END);
  END LOOP;
  -- Of hands that were archived, cards can be left that were dealt in a later month.
  DELETE FROM hand_cards c WHERE NOT EXISTS (SELECT FROM hands h WHERE h.id = c.hand_id);
  DELETE FROM decision_notes n WHERE NOT EXISTS (SELECT FROM hands h WHERE h.id = n.hand_id);
  ALTER TABLE hand_cards ADD CONSTRAINT fk_hand_cards_hand_id
    FOREIGN KEY (hand_id) REFERENCES hands (id);
  ALTER TABLE decision_notes ADD CONSTRAINT fk_decision_notes_hand_id
    FOREIGN KEY (hand_id) REFERENCES hands (id);
END $$
"""


def upgrade() -> None:
    for statement in (BOUND, COVERED, MAKE, COPY_GRANTS, SWAP, ENSURE):
        op.execute(statement)
    op.execute("SELECT history_ensure_partitions(3)")


def downgrade() -> None:
    op.execute(COPY_GRANTS)
    op.execute(DOWN_SWAP)
    for function in (
        "history_ensure_partitions(integer)",
        "history_make_partition(text, text, timestamp)",
        "history_covered_until(regclass)",
        "history_bound(timestamp)",
    ):
        op.execute(f"DROP FUNCTION {function}")
