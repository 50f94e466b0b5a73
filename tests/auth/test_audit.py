"""The audit chain: what commits is recorded, in one order, and what was tampered with is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from pokerarena.auth import audit
from pokerarena.auth.audit import Event, Filter
from pokerarena.db import Database
from pokerarena.ids import new_id
from tests.api.arena import settings_for


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(settings_for(database_url), application_name="test")
    yield database
    await database.close()


async def note(database: Database, number: int = 0, **more: Any) -> None:
    async with database.unit_of_work() as session:
        audit.record(
            session, Event.TOKEN_CREATED, subject=f"tok_{number}", name=f"Ünïcode {number}", **more
        )


async def verdict(database: Database, **anchor: Any) -> audit.Verdict:
    async with database.session() as session:
        return await audit.verify(session, **anchor)


async def tamper(database: Database, *statements: str) -> None:
    """What somebody with the owner's rights can do: switch the guard off first."""
    async with database.unit_of_work() as session:
        await session.execute(text("ALTER TABLE audit_records DISABLE TRIGGER USER"))
        for statement in statements:
            await session.execute(text(statement))
        await session.execute(text("ALTER TABLE audit_records ENABLE TRIGGER USER"))


async def test_an_empty_chain_holds(database: Database) -> None:
    assert await verdict(database) == audit.Verdict(0, 0, audit.GENESIS, None)


async def test_an_event_is_recorded_exactly_when_its_transaction_commits(
    database: Database,
) -> None:
    await note(database, 1)
    with pytest.raises(ProgrammingError, match="no_such_relation"):  # noqa: PT012 - one request
        async with database.unit_of_work() as session:
            audit.record(session, Event.SESSION_ENDED)
            await session.execute(text("SELECT FROM no_such_relation"))
    async with database.session() as session:
        audit.record(session, Event.SESSION_ENDED)
        await session.execute(text("SELECT 1"))
        await session.rollback()
        audit.record(session, Event.USER_DISABLED, actor_id=new_id(), last=True)
        await session.commit()
        rows = await audit.search(session, Filter(), before_seq=None, limit=10)
    assert [row.event for row in rows] == ["user.disabled", "token.created"]
    assert (await verdict(database)).broken is None


async def test_a_savepoint_cannot_hold_a_record(database: Database) -> None:
    async with database.unit_of_work() as session:
        async with session.begin_nested():
            with pytest.raises(RuntimeError, match="savepoint"):
                audit.record(session, Event.SESSION_ENDED)
        audit.record(session, Event.LOGIN_FAILED)
        async with session.begin_nested():
            await session.execute(text("SELECT 1"))
    assert (await verdict(database)).records == 1


async def test_concurrent_transactions_make_one_unbroken_chain(database: Database) -> None:
    async def several(worker: int) -> None:
        for number in range(10):
            await note(database, worker * 100 + number, worker=worker)

    await asyncio.gather(*(several(worker) for worker in range(5)))
    found = await verdict(database)
    assert (found.records, found.broken) == (50, None)
    async with database.session() as session:
        rows = await audit.search(session, Filter(), before_seq=None, limit=100)
    assert [row.seq for row in rows] == list(range(50, 0, -1))
    assert all(newer.at > older.at for newer, older in pairwise(rows))


@pytest.mark.parametrize(
    ("tampering", "seq", "what"),
    [
        ("UPDATE audit_records SET details = '{}' WHERE seq = 3", 3, "was changed"),
        ("UPDATE audit_records SET subject = NULL WHERE seq = 5", 5, "was changed"),
        (
            "UPDATE audit_records SET at = at + interval '1 microsecond' WHERE seq = 1",
            1,
            "was changed",
        ),
        ("DELETE FROM audit_records WHERE seq = 2", 2, "is missing"),
        ("DELETE FROM audit_records WHERE seq = 1", 1, "is missing"),
        ("DELETE FROM audit_records WHERE seq = 6", 6, "is missing"),
        (
            "UPDATE audit_records SET seq = 7 - seq + 100 WHERE seq IN (3, 4);"
            "UPDATE audit_records SET seq = seq - 100 WHERE seq > 100",
            3,
            "does not follow",
        ),
    ],
)
async def test_a_changed_missing_or_reordered_record_is_found(
    database: Database, tampering: str, seq: int, what: str
) -> None:
    for number in range(6):
        await note(database, number)
    assert (await verdict(database)).broken is None
    await tamper(database, *tampering.split(";"))
    broken = (await verdict(database)).broken
    assert broken is not None
    assert broken.seq == seq
    assert what in broken.what


async def test_a_chain_that_was_rewritten_whole_betrays_itself_by_an_earlier_head(
    database: Database,
) -> None:
    await note(database, 1)
    await note(database, 2)
    kept = await verdict(database)
    anchor = {"anchor_seq": kept.head_seq, "anchor_hash": kept.head_hash}
    await note(database, 3)
    assert (await verdict(database, **anchor)).broken is None
    await tamper(
        database,
        "DELETE FROM audit_records",
        f"UPDATE audit_head SET seq = 0, hash = '\\x{audit.GENESIS.hex()}'",
    )
    assert (await verdict(database)).broken is None
    assert (await verdict(database, **anchor)).broken == audit.Break(
        2, "is missing: the anchor lies beyond the head"
    )
    for number in range(3):
        await note(database, number)
    assert (await verdict(database)).broken is None
    assert (await verdict(database, **anchor)).broken == audit.Break(
        2, "is not the record of the anchor"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_records SET event = 'logout'",
        "DELETE FROM audit_records",
        "TRUNCATE audit_records",
    ],
)
async def test_not_even_the_owner_changes_a_record_by_mistake(
    database: Database, statement: str
) -> None:
    await note(database)
    with pytest.raises(ProgrammingError, match="never changed"):
        async with database.unit_of_work() as session:
            await session.execute(text(statement))


async def test_a_search_filters_and_goes_on_where_it_ended(database: Database) -> None:
    actor = new_id()
    async with database.unit_of_work() as session:
        for number in range(4):
            audit.record(session, Event.LOGIN_FAILED, actor_id=actor, subject=f"user_{number % 2}")
        audit.record(session, Event.SESSION_ENDED, actor_id=new_id())
    async with database.session() as session:

        async def seqs(before_seq: int | None = None, limit: int = 10, **wanted: Any) -> list[int]:
            rows = await audit.search(session, Filter(**wanted), before_seq=before_seq, limit=limit)
            return [row.seq for row in rows]

        assert await seqs(limit=2) == [5, 4]
        assert await seqs(before_seq=4, limit=2) == [3, 2]
        assert await seqs(event="session.ended") == [5]
        assert await seqs(actor_id=actor, subject="user_1") == [4, 2]
        [third] = [
            row
            for row in await audit.search(session, Filter(), before_seq=None, limit=10)
            if row.seq == 3
        ]
        assert await seqs(since=third.at) == [5, 4, 3]
        assert await seqs(until=third.at) == [2, 1]
        assert await seqs(since=third.at + timedelta(days=1)) == []


async def test_the_database_and_the_program_compute_the_same_hash_of_any_text(
    database: Database,
) -> None:
    async with database.unit_of_work() as session:
        for awkward in (
            "",
            "'; DROP TABLE users --",
            'a"b\\c',
            "é\u0301 \U0001f0a1",
            "x" * 5000,
            "\n\t",
        ):
            audit.record(
                session, Event.LOGIN_FAILED, subject=awkward, why=awkward, again=True, n=-(2**53)
            )
    found = await verdict(database)
    assert (found.records, found.broken) == (6, None)


def test_details_have_one_spelling_whatever_their_order() -> None:
    assert audit.canonical_details({"b": 1, "a": "é", "c": True}) == '{"a":"é","b":1,"c":true}'
    assert audit.canonical_details({"c": True, "a": "é", "b": 1}) == '{"a":"é","b":1,"c":true}'
