"""Hands are partitioned by the time of their run, and nobody who plays has to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError

from pokerarena.db import Database
from pokerarena.history import read
from pokerarena.history.partitions import (
    KEY_OF_RELATION,
    covered_until,
    ensure_partitions,
    first_id,
    likely_runs,
    moment_of,
)
from pokerarena.ids import new_id
from pokerarena.ops import examination, migrate
from pokerarena.ops.privileges import DatabaseRole
from tests.arena import Arena, arena_settings, open_arena
from tests.database_server import as_role
from tests.soundness import assert_sound

BEFORE_PARTITIONS = "hosted_0002"


@pytest.fixture
async def arena(database_url: str) -> AsyncIterator[Arena]:
    async with open_arena(database_url) as arena:
        yield arena


def url_of(arena: Arena) -> str:
    return arena.settings.database_url.get_secret_value()


def month_after(moment: datetime, months: int) -> datetime:
    count = moment.year * 12 + moment.month - 1 + months
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)


async def where(arena: Arena, relation: str) -> dict[str, int]:
    """How many rows lie in which partition."""
    found = await arena.rows(
        f"SELECT tableoid::regclass::text, count(*) FROM {relation} GROUP BY 1"
    )
    return dict([tuple(row) for row in found])


async def as_worker(arena: Arena, months_ahead: int) -> int:
    """Make partitions with the rights of a worker."""
    settings = arena_settings(as_role(url_of(arena), DatabaseRole.WORKER))
    database = Database(settings, application_name="test")
    try:
        async with database.unit_of_work() as session:
            return await ensure_partitions(session, months_ahead)
    finally:
        await database.close()


async def drop_from(arena: Arena, month: datetime) -> None:
    """As if no worker had made the partitions from this month on."""
    async with arena.database.unit_of_work() as session:
        for name in await session.scalars(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = ANY(:wholes)"),
            {"wholes": [await oid(arena, name) for name in KEY_OF_RELATION]},
        ):
            if name[-7:] >= f"{month:%Y_%m}" and name[-7:-5].isdigit():
                await session.execute(text(f"DROP TABLE {name}"))


def examined(arena: Arena) -> examination.Finding:
    """What `doctor` says of partitions."""
    plain = make_url(url_of(arena)).set(drivername="postgresql").render_as_string()
    with psycopg.connect(plain) as connection:
        return examination.partitions(connection)


async def oid(arena: Arena, relation: str) -> Any:
    return await arena.value("SELECT CAST(:name AS regclass)::oid", name=relation)


async def test_what_is_stored_becomes_the_first_partition_without_being_moved(
    arena: Arena,
) -> None:
    url = url_of(arena)
    run_id = await arena.order(["random", "tight"], 20)
    assert (await arena.play(run_id)).status == "completed"
    # Down, with hands in a partition of this month; up, with hands in the plain relation.
    migrate.downgrade(url, BEFORE_PARTITIONS)
    await arena.database.engine.dispose()
    assert await where(arena, "hands") == {"hands": 20}
    files = {
        name: await arena.value("SELECT pg_relation_filenode(:name)", name=name)
        for name in KEY_OF_RELATION
    }
    migrate.upgrade(url)
    await arena.database.engine.dispose()
    assert await where(arena, "hands") == {"hands_before": 20}
    assert await where(arena, "hand_cards") == {"hand_cards_before": 20}
    for name, file in files.items():
        assert (
            await arena.value("SELECT pg_relation_filenode(:name)", name=f"{name}_before") == file
        ), "it was rewritten"
    await assert_sound(arena, run_id)
    assert migrate.drift(url) == []
    # The first partition reaches over this month and the next; play goes on in it.
    second = await arena.order(["random", "tight"], 5)
    assert (await arena.play(second)).status == "completed"
    assert await where(arena, "hands") == {"hands_before": 25}


async def test_a_worker_makes_partitions_ahead_and_many_at_once_make_each_once(
    arena: Arena,
) -> None:
    now = datetime.now(UTC)
    async with arena.database.session() as session:
        assert await covered_until(session) == month_after(now, 4)
    assert await as_worker(arena, 3) == 0
    made = await asyncio.gather(*(as_worker(arena, 5) for _ in range(5)), return_exceptions=True)
    # Whoever came while another was at it has nothing to do.
    assert sum(count for count in made if isinstance(count, int)) == 2 * len(KEY_OF_RELATION)
    async with arena.database.session() as session:
        assert await covered_until(session) == month_after(now, 6)


@pytest.mark.parametrize("months", [-1, 25])
async def test_how_far_ahead_is_bounded_in_the_database(arena: Arena, months: int) -> None:
    with pytest.raises(Exception, match="between 0 and 24"):
        await as_worker(arena, months)


async def test_a_missing_partition_stops_nobody_and_is_filled_in_later(arena: Arena) -> None:
    now = datetime.now(UTC)
    await drop_from(arena, month_after(now, 0))
    found = examined(arena)
    assert not found.well
    assert "history prepare" in found.text
    run_id = await arena.order(["random", "tight"], 10)
    assert (await arena.play(run_id)).status == "completed"
    assert await where(arena, "hands") == {"hands_default": 10}
    assert await as_worker(arena, 0) == len(KEY_OF_RELATION)
    assert await as_worker(arena, 1) == len(KEY_OF_RELATION)
    assert examined(arena).well
    assert await where(arena, "hands") == {f"hands_{now:%Y_%m}": 10}
    assert await where(arena, "hand_cards") == {f"hand_cards_{now:%Y_%m}": 10}
    await assert_sound(arena, run_id)


async def test_making_partitions_gives_way_to_whoever_holds_a_lock(arena: Arena) -> None:
    plain = make_url(url_of(arena)).set(drivername="postgresql").render_as_string()
    with psycopg.connect(plain) as other:
        other.execute("LOCK TABLE runs IN ROW EXCLUSIVE MODE")
        with pytest.raises(OperationalError) as refused:
            await as_worker(arena, 6)
    assert isinstance(refused.value.orig, LockNotAvailable)
    assert await as_worker(arena, 6) == 3 * len(KEY_OF_RELATION)


async def test_a_hand_number_is_used_once_in_a_run_whatever_its_hand_s_time(arena: Arena) -> None:
    """The constraint holds over all partitions, for a run lies in one."""
    run_id = await arena.order(["random", "tight"], 3)
    assert (await arena.play(run_id)).status == "completed"
    far = first_id(month_after(datetime.now(UTC), 2))
    copy = (
        "INSERT INTO hands SELECT :id, run_id, ended_at, hand_no, deal_no, epoch, level,"
        " button_seat, board, seats, actions, chain FROM hands WHERE run_id = :run AND hand_no = 2"
    )
    with pytest.raises(IntegrityError, match="run_id_hand_no"):
        async with arena.database.unit_of_work() as session:
            await session.execute(text(copy), {"id": far, "run": run_id})


async def test_a_hand_is_found_by_its_id_however_old_its_run_is(arena: Arena) -> None:
    """Near its own time first, and everywhere else then."""
    fresh = new_id()
    old = UUID(int=fresh.int - (200 * 86_400_000 << 80))
    lower, upper = likely_runs(fresh)
    assert old < lower < fresh < upper
    assert likely_runs(UUID(int=0))[0] == UUID(int=0)
    assert likely_runs(UUID(int=(1 << 128) - 1))[1] == UUID(int=(1 << 128) - 1)
    run_id = await arena.order(["random", "tight"], 3)
    assert (await arena.play(run_id)).status == "completed"
    hand_id = await arena.value("SELECT id FROM hands WHERE hand_no = 2")
    async with arena.database.unit_of_work() as session:
        await session.execute(
            text("INSERT INTO runs SELECT (jsonb_populate_record(r, jsonb_build_object('id',"
                 " CAST(:old AS uuid)))).* FROM runs r"), {"old": old},
        )  # fmt: skip
        found = await read.load_hand(session, hand_id)
        assert found is not None
        assert found.run_id == run_id
        await session.execute(text("UPDATE hands SET run_id = :old"), {"old": old})
        found = await read.load_hand(session, hand_id)
        assert found is not None
        assert found.run_id == old


def test_the_time_in_an_id_is_the_time_it_was_made() -> None:
    made = new_id()
    assert abs(moment_of(made) - datetime.now(UTC)) < timedelta(minutes=1)
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    assert moment_of(first_id(begin)) == begin
    assert first_id(begin) == UUID("01a19467-e800-0000-0000-000000000000")
