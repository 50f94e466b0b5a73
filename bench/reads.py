"""Whether reads stay as quick with many hands as with few: p99 over HTTP, small against large.

Two databases on one server, an API process before each; the same reads are asked of both in turn, so
that whatever else this machine does troubles both alike. A hand by its id, its replay, a page of a
run's hands and a run's results, each of a run and hand drawn at random from all of them. One real
six-seat run is played and then multiplied in the database, under ids of the last twelve months, a
partition each. `python -m bench.reads 10000000` takes as many hands.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median
from uuid import UUID

import psycopg
from sqlalchemy.engine import make_url

from pokerarena.ids import IdKind, id_text
from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from tests.api.served import Server
from tests.arena import open_arena

FEW = 10_000
MANY = int(os.environ.get("BENCH_READ_HANDS", "1000000"))
HANDS_A_RUN = 1_000
LINEUP = ("random", "tight", "caller", "random", "tight", "caller")
MONTHS = 12
READS = int(os.environ.get("BENCH_READS", "800"))
WARM_UP = 50
RATIO_MAX = 1.3
# Nothing has to survive this benchmark.
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "max_wal_size": "4GB"}

PAST_MONTHS = """
DO $$
DECLARE
  month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month';
BEGIN
  CREATE TEMPORARY TABLE played AS
    SELECT h.*, c.cards FROM hands h JOIN hand_cards c ON c.hand_id = h.id;
  DROP TABLE hands_before, hand_cards_before, decision_notes_before;
  FOR n IN 1..%(months)s LOOP
    PERFORM history_make_partition('hands', 'run_id', month);
    PERFORM history_make_partition('hand_cards', 'hand_id', month);
    PERFORM history_make_partition('decision_notes', 'hand_id', month);
    month := month - interval '1 month';
  END LOOP;
END $$;
CREATE FUNCTION pg_temp.id_of(ms bigint) RETURNS uuid LANGUAGE sql VOLATILE AS $$
  SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
          || '8' || substr(md5(random()::text), 1, 15))::uuid
$$;
CREATE TEMPORARY TABLE run_of AS SELECT r.* FROM runs r WHERE r.id = (SELECT run_id FROM played LIMIT 1);
CREATE TEMPORARY TABLE seats_of AS SELECT * FROM run_seats;
"""
ANOTHER_RUN = """
WITH made AS (SELECT %(at_ms)s::bigint AS ms, pg_temp.id_of(%(at_ms)s::bigint) AS run_id),
new_run AS (
  INSERT INTO runs SELECT (jsonb_populate_record(r, jsonb_build_object('id', made.run_id))).*
  FROM run_of r, made RETURNING id
),
new_seats AS (
  INSERT INTO run_seats
  SELECT (jsonb_populate_record(s, jsonb_build_object('run_id', made.run_id))).*
  FROM seats_of s, made
),
dealt AS MATERIALIZED (
  SELECT pg_temp.id_of(made.ms + 40 * p.hand_no) AS id, made.run_id AS new_run_id, p.*
  FROM (SELECT id AS old_id, ended_at, hand_no, deal_no, epoch, level, button_seat, board, seats,
               actions, chain, cards FROM played) p, made
),
new_hands AS (
  INSERT INTO hands (id, run_id, ended_at, hand_no, deal_no, epoch, level, button_seat, board, seats,
                     actions, chain)
  SELECT id, new_run_id, ended_at, hand_no, deal_no, epoch, level, button_seat, board, seats, actions,
         chain FROM dealt
)
INSERT INTO hand_cards (hand_id, cards) SELECT id, cards FROM dealt
"""


async def fill(url: str, hands: int) -> None:
    """A played run, and as many like it as give so many hands."""
    async with open_arena(url) as arena:
        run_id = await arena.order(LINEUP, HANDS_A_RUN, visibility="public")
        run = await arena.play(run_id)
        assert run.status == "completed", run.failure_detail
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    year_ms = 330 * 86_400_000
    runs = hands // HANDS_A_RUN
    with psycopg.connect(_plain(url), autocommit=True) as db:
        db.execute(PAST_MONTHS.replace("%(months)s", str(MONTHS)))
        for number in range(runs):
            db.execute(ANOTHER_RUN, {"at_ms": now_ms - year_ms + number * (year_ms // runs)})
        db.execute("VACUUM ANALYZE")


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


class Reader:
    """One database, its API process, and one connection that is kept."""

    def __init__(self, url: str) -> None:
        self._server = Server(url, POKERARENA_LOG_LEVEL="ERROR")
        self._server.log_in("reader")
        self._connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
        with psycopg.connect(_plain(url)) as db:
            self._runs: Sequence[UUID] = [
                run for (run,) in db.execute("SELECT DISTINCT run_id FROM hands")
            ]
            self._hands: dict[UUID, list[UUID]] = {}
            for run in Random(1).sample(self._runs, min(200, len(self._runs))):
                self._hands[run] = [
                    hand for (hand,) in db.execute("SELECT id FROM hands WHERE run_id = %s", (run,))
                ]
            size = db.execute("SELECT pg_database_size(current_database())").fetchone()
            assert size is not None
            self.size_mb = size[0] / 1e6
        self._known = list(self._hands)

    def paths(self, random: Random) -> dict[str, str]:
        run = random.choice(self._known)
        hand = id_text(IdKind.HAND, random.choice(self._hands[run]))
        other = id_text(IdKind.RUN, random.choice(self._runs))
        return {
            "a hand": f"/v1/hands/{hand}",
            "its replay": f"/v1/hands/{hand}/replay",
            "a page of hands": f"/v1/runs/{other}/hands?limit=50",
            "results": f"/v1/runs/{other}/results",
        }

    def took_ms(self, path: str) -> float:
        began_s = time.perf_counter()
        self._connection.request(
            "GET", path, headers={"Authorization": f"Bearer {self._server.token}"}
        )
        reply = self._connection.getresponse()
        body = reply.read()
        assert reply.status == 200, (path, body)
        return (time.perf_counter() - began_s) * 1000

    def close(self) -> None:
        self._connection.close()
        self._server.stop()


def p99(sample: Sequence[float]) -> float:
    return sorted(sample)[min(len(sample) - 1, int(len(sample) * 0.99))]


def compare(few: Reader, many: Reader) -> dict[str, tuple[list[float], list[float]]]:
    """How long each kind of read took, of the small database and of the large one."""
    random = Random(20261127)
    took: dict[str, tuple[list[float], list[float]]] = {}
    for number in range(WARM_UP + READS):
        # Who comes first changes, for what the first one wakes the second one finds awake.
        for at in (0, 1) if number % 2 else (1, 0):
            reader = (few, many)[at]
            for kind, path in reader.paths(random).items():
                ms = reader.took_ms(path)
                if number >= WARM_UP:
                    took.setdefault(kind, ([], []))[at].append(ms)
    return took


def report(took: dict[str, tuple[list[float], list[float]]]) -> int:
    worst = 0.0
    for kind, (small, large) in took.items():
        ratio = p99(large) / p99(small)
        worst = max(worst, ratio)
        print(
            f"{kind:16s}  p99 {p99(small):6.2f} ms, {p99(large):6.2f} ms   ratio {ratio:.2f}"
            f"   (medians {median(small):.2f} and {median(large):.2f} ms)"
        )
    print(f"worst ratio {worst:.2f}   (at most {RATIO_MAX}; {READS} reads of each)")
    return 0 if worst <= RATIO_MAX else 1


def prepare(postgres: EmbeddedPostgres, name: str, hands: int) -> str:
    """A database with so many hands; its URL."""
    began_s = time.monotonic()
    postgres.ensure_database(name)
    url = postgres.url(name)
    migrate.upgrade(url)
    asyncio.run(fill(url, hands))
    print(f"{name}: {hands} hands stored in {time.monotonic() - began_s:.0f} s", flush=True)
    return url


def main() -> int:
    hands = int(sys.argv[1]) if len(sys.argv) > 1 else MANY
    with tempfile.TemporaryDirectory(prefix="pokerarena-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with EmbeddedPostgres(directory / "pg", settings=UNSAFE_BUT_FAST) as postgres:
            few = Reader(prepare(postgres, "few", FEW))
            many = Reader(prepare(postgres, "many", hands))
            try:
                print(f"databases of {few.size_mb:.0f} and {many.size_mb:.0f} MB")
                return report(compare(few, many))
            finally:
                few.close()
                many.close()


if __name__ == "__main__":
    sys.exit(main())
