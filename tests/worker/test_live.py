"""Watched tables are published, others are not; and every line of a run's log can be followed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from sqlalchemy import text

from pokerarena.history.live import LIVE_CHANNEL, LiveHand, decode_live
from pokerarena.ids import IdKind, id_text
from pokerarena.worker.committer import libpq_url
from tests.arena import Arena, open_arena
from tests.soundness import assert_sound
from tests.worker.workers import SLOW_PLAYER, worker


class Listener:
    """Collects what is published."""

    def __init__(self) -> None:
        self.heard: list[LiveHand] = []

    async def until(self, count: int, deadline_s: float = 20.0) -> list[LiveHand]:
        give_up_s = time.monotonic() + deadline_s
        while len(self.heard) < count:
            assert time.monotonic() < give_up_s, f"only {len(self.heard)} live hands were heard"
            await asyncio.sleep(0.02)
        return self.heard


@asynccontextmanager
async def listening(arena: Arena) -> AsyncIterator[Listener]:
    connection = await psycopg.AsyncConnection.connect(libpq_url(arena.settings), autocommit=True)
    listener = Listener()

    async def collect() -> None:
        async for notification in connection.notifies():
            listener.heard.append(decode_live(notification.payload))

    async with connection:
        await connection.execute(f"LISTEN {LIVE_CHANNEL}")
        task = asyncio.create_task(collect())
        try:
            yield listener
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_only_a_table_that_somebody_watches_is_published(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(database_url) as arena, listening(arena) as listener:
        watched = await arena.table(["random", "tight", "caller"])
        unwatched = await arena.table(["random", "tight", "caller"])
        async with arena.database.unit_of_work() as session:
            await session.execute(
                text("INSERT INTO live_watches VALUES (:id, now() + interval '1 hour')"),
                {"id": watched},
            )
        run_id = await arena.run(watched, 100_000)
        await arena.run(unwatched, 100_000)
        with worker(arena.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="0.02"):
            heard = list(await listener.until(12))
        assert {(live.table_id, live.run_id) for live in heard} == {(watched, run_id)}
        numbers = [live.hand_no for live in heard]
        assert numbers == sorted(numbers)
        assert any(not live.hand().complete for live in heard)


async def test_every_line_about_a_run_carries_the_ids_to_follow_it_by(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(database_url) as arena:
        table_id = await arena.table(["random", "tight"])
        run_id = await arena.run(table_id, 10, request_id="req-42")
        with worker(arena.settings, tmp_path) as process:
            await arena.until_ended(run_id)
            give_up_s = time.monotonic() + 10
            while not process.events("run_finished"):
                assert time.monotonic() < give_up_s
                await asyncio.sleep(0.02)
        for name in ("run_claimed", "run_left", "run_finished"):
            (event,) = process.events(name)
            assert event["run_id"] == id_text(IdKind.RUN, run_id)
            assert event["table_id"] == id_text(IdKind.TABLE, table_id)
            assert event["request_id"] == "req-42"
            assert event["epoch"] == 1


async def test_draining_does_not_wait_for_a_hand_that_takes_too_long(
    database_url: str, tmp_path: Path
) -> None:
    async with open_arena(database_url, worker_drain_s=6.0, run_lease_s=60) as arena:
        run_id = await arena.order(["caller", "caller"], 10)
        with worker(arena.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="30") as process:
            await arena.until(run_id, lambda _: bool(process.events("thinking")))
            process.signal(signal.SIGTERM)
            assert await process.wait(15) == 0
        run = await arena.look(run_id)
        assert (run.status, run.lease_expires_at, run.hands_done) == ("running", None, 0)
        voids = await arena.rows("SELECT deal_no, reason FROM void_deals")
        assert voids == [(1, "drained")]
        with worker(arena.settings, tmp_path):
            assert (await arena.until_ended(run_id)).status == "completed"
        await assert_sound(arena, run_id)
