"""A long run with real HTTP agents: first all of them well, then four that go wrong.

``POKERARENA_JOURNEY_HANDS`` sets how long a run is; the promise is made for 10,000 hands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pokerarena.agents.player import FallbackReason
from pokerarena.runs.models import Run
from tests.arena import Arena, open_arena
from tests.soundness import assert_sound
from tests.worker.workers import worker

ROOT = Path(__file__).parents[2]
HANDS = int(os.environ.get("POKERARENA_JOURNEY_HANDS", "2000"))
DEADLINE_S = 60 + HANDS * 0.15
# How many hands an agent takes at once.
AT_ONCE = 16
EXAMPLE = ("examples/python_http_agent.py", "--strategy")
MISBEHAVING = ("-m", "tests.agents.misbehaving", "--habit")


@contextmanager
def agent(*command: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A real agent process: where it listens, and the process."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("agent ready http://"), line
        yield f"{line.split()[2]}#{AT_ONCE}", process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def seconds(run: Run) -> float:
    assert run.started_at is not None
    assert run.finished_at is not None
    return (run.finished_at - run.started_at).total_seconds()


async def fallbacks(arena: Arena, run_id: object) -> dict[int, dict[str, int]]:
    """By seat, as the actions themselves say it."""
    rows = await arena.rows(
        "SELECT seat_no, fallback, count(*) FROM hand_actions"
        " WHERE run_id = :id AND fallback IS NOT NULL GROUP BY seat_no, fallback",
        id=run_id,
    )
    by_seat: dict[int, dict[str, int]] = {}
    for seat_no, reason, count in rows:
        by_seat.setdefault(seat_no, {})[reason] = count
    return by_seat


async def test_a_run_with_four_http_agents_completes_without_a_fallback(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(database_url) as arena:
        with ExitStack() as stack:
            agents = [
                stack.enter_context(agent(*EXAMPLE, strategy))
                for strategy in ("steady", "caller", "bluffer", "pusher")
            ]
            lineup = [*[url for url, _ in agents], "tight", "random"]
            run_id = await arena.order(lineup, HANDS, format="reset")
            with worker(arena.settings, tmp_path):
                run = await arena.until_ended(run_id, deadline_s=DEADLINE_S)
        assert (run.status, run.hands_done) == ("completed", HANDS)
        assert await fallbacks(arena, run_id) == {}
        assert not await arena.rows("SELECT 1 FROM void_deals WHERE run_id = :id", id=run_id)
        await assert_sound(arena, run_id)
        print(f"{HANDS} hands in {seconds(run):.1f} s")


async def test_four_agents_that_go_wrong_are_counted_and_disturb_nobody(
    database_url: str, tmp_path: Path
) -> None:
    quick = {"circuit_failures": 5, "circuit_cooldown_s": 2.0}
    async with open_arena(database_url, **quick) as arena:
        with ExitStack() as stack:
            (killed, process), (illegal, _), (dripping, _), (big, _) = [
                stack.enter_context(agent(*command))
                for command in (
                    (*EXAMPLE, "caller"),
                    (*MISBEHAVING, "illegal"),
                    (*MISBEHAVING, "drip"),
                    (*MISBEHAVING, "big"),
                )
            ]
            lineup = [killed, illegal, dripping, big, "tight", "random"]
            run_id = await arena.order(lineup, HANDS, format="reset", action_time_ms=1_000)
            with worker(arena.settings, tmp_path):
                half = await arena.until(
                    run_id, lambda run: run.hands_done >= HANDS // 2, deadline_s=DEADLINE_S
                )
                assert half.status == "running"
                before = await fallbacks(arena, run_id)
                process.kill()
                run = await arena.until_ended(run_id, deadline_s=DEADLINE_S)
        assert (run.status, run.hands_done) == ("completed", HANDS)
        after = await fallbacks(arena, run_id)
        assert 1 not in before, "the agent played well until it was killed"
        not_asked = FallbackReason.CIRCUIT_OPEN.value
        expected = {
            1: FallbackReason.CONNECT_FAILED,
            2: FallbackReason.ILLEGAL_ACTION,
            3: FallbackReason.TIMEOUT,
            4: FallbackReason.TOO_LARGE,
        }
        assert {seat_no: set(reasons) for seat_no, reasons in after.items()} == {
            seat_no: {reason.value, not_asked} for seat_no, reason in expected.items()
        }
        assert not await arena.rows("SELECT 1 FROM void_deals WHERE run_id = :id", id=run_id)
        explained = await arena.rows(
            "SELECT DISTINCT n.seat_no FROM decision_notes n JOIN hands h ON h.id = n.hand_id"
            " WHERE h.run_id = :id AND n.failure IS NOT NULL ORDER BY n.seat_no",
            id=run_id,
        )
        assert [row[0] for row in explained] == [1, 2, 3, 4]
        await assert_sound(arena, run_id)
        print(f"{HANDS} hands in {seconds(run):.1f} s")
