"""A worker takes runs from the queue and plays them to their end."""

from __future__ import annotations

from pathlib import Path

from tests.arena import open_arena
from tests.worker.workers import worker


async def test_a_run_is_played_to_its_last_hand(database_url: str, tmp_path: Path) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["random", "tight", "caller", "equity"], hands=60)
        with worker(arena.settings, tmp_path) as process:
            run = await arena.until_ended(run_id)
            assert run.status == "completed", process.log_path.read_text()
        numbers = await arena.rows(
            "SELECT hand_no FROM hands WHERE run_id = :id ORDER BY hand_no", id=run_id
        )
        assert [row[0] for row in numbers] == list(range(1, 61))
        net = await arena.value("SELECT sum(net) FROM run_seats WHERE run_id = :id", id=run_id)
        assert net == 0
