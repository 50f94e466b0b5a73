"""Whatever is changed, lost, added or reordered in a stored run is found, by its hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from pokerarena.ids import IdKind, id_text
from pokerarena.ops import migrate
from pokerarena.runs import soundness
from pokerarena.runs.soundness import Finding, check_all, check_run
from tests.arena import Arena, open_arena
from tests.ops.test_cli import pokerarena
from tests.soundness import assert_sound

HANDS = 30


@pytest.fixture
async def arena(database_url: str) -> AsyncIterator[Arena]:
    async with open_arena(database_url) as arena:
        yield arena


async def played(arena: Arena, **rules: Any) -> UUID:
    run_id = await arena.order(["random", "tight", "caller"], HANDS, **rules)
    assert (await arena.play(run_id)).status == "completed"
    return run_id


async def findings(arena: Arena, run_id: UUID) -> tuple[Finding, ...]:
    checked = await check_run(arena.database, run_id)
    assert checked is not None
    return checked.findings


async def change(arena: Arena, *statements: str, **values: Any) -> None:
    async with arena.database.unit_of_work() as session:
        for statement in statements:
            done = await session.execute(text(statement), values)
            assert done.rowcount, statement  # type: ignore[attr-defined]


async def test_every_kind_of_damage_is_found_at_its_hand(arena: Arena) -> None:
    run_id = await played(arena)
    await assert_sound(arena, run_id)
    # A copy to repair from: each damage is undone before the next.
    keep = "CREATE TABLE kept_{0} AS SELECT * FROM {0}"
    relations = ("hands", "hand_cards", "run_seats", "void_deals")
    async with arena.database.unit_of_work() as session:
        for name in relations:
            await session.execute(text(keep.format(name)))
        await session.execute(text("CREATE TABLE kept_runs AS SELECT * FROM runs"))

    async def repair() -> None:
        async with arena.database.unit_of_work() as session:
            await session.execute(text("DELETE FROM decision_notes"))
            for name in reversed(relations):
                await session.execute(text(f"DELETE FROM {name}"))
            for name in relations:
                await session.execute(text(f"INSERT INTO {name} SELECT * FROM kept_{name}"))
            await session.execute(
                text(
                    "UPDATE runs SET hands_done = k.hands_done, position = k.position,"
                    " deals_reserved = k.deals_reserved FROM kept_runs k WHERE k.id = runs.id"
                )
            )
        assert await findings(arena, run_id) == ()

    one = "run_id = :run AND hand_no = 7"
    drop_hand = (
        "DELETE FROM hand_cards WHERE hand_id = (SELECT id FROM hands WHERE {0})",
        "DELETE FROM hands WHERE {0}",
    )
    last = f"run_id = :run AND hand_no = {HANDS}"
    damages: list[tuple[tuple[str, ...], int | None, str]] = [
        # One byte of what happened: a net, a time, a moment, a card, a link.
        ((f"UPDATE hands SET seats = set_byte(seats, 13, get_byte(seats, 13) # 1) WHERE {one}",),
         7, "does not conserve chips"),
        ((f"UPDATE hands SET actions = set_byte(actions, 3, get_byte(actions, 3) # 1) WHERE {one}",),
         7, "chain"),
        ((f"UPDATE hands SET ended_at = ended_at + interval '1 microsecond' WHERE {one}",),
         7, "chain"),
        (("UPDATE hand_cards SET cards = substr(cards, 3) || substr(cards, 1, 2)"
          f" WHERE hand_id = (SELECT id FROM hands WHERE {one})",), 7, "chain"),
        ((f"UPDATE hands SET chain = NULL WHERE {one}",), 7, "no link"),
        ((f"UPDATE hands SET actions = substr(actions, 1, 5) WHERE {one}",),
         7, "cannot be replayed"),
        # Rows that are gone, in the middle and at the end, or out of order.
        (tuple(line.format(one) for line in drop_hand), 8, "end at 6"),
        (tuple(line.format(last) for line in drop_hand), None, "counts 30 hands"),
        ((f"DELETE FROM hand_cards WHERE hand_id = (SELECT id FROM hands WHERE {one})",),
         7, "no hole cards"),
        (("UPDATE hands SET hand_no = -1 WHERE run_id = :run AND hand_no = 9",
          "UPDATE hands SET hand_no = 9 WHERE run_id = :run AND hand_no = 10",
          "UPDATE hands SET hand_no = 10 WHERE run_id = :run AND hand_no = -1"), 9, "chain"),
        # The last hand taken away, and the counter with it: only the chain's end tells.
        ((*(line.format(last) for line in drop_hand),
          "UPDATE runs SET hands_done = hands_done - 1 WHERE id = :run"), None, "does not end"),
        # Sums, counters and deals.
        (("UPDATE run_seats SET net = net + 1 WHERE run_id = :run AND seat_no = 2",),
         None, "seat 2: net"),
        (("UPDATE runs SET position = jsonb_set(position, '{stacks,1}', '1') WHERE id = :run",),
         None, "would not start"),
        (("UPDATE runs SET deals_reserved = deals_reserved + 1 WHERE id = :run",),
         None, "neither stored nor void"),
        (("INSERT INTO void_deals (run_id, deal_no, epoch, reason) VALUES (:run, 3, 1, 'x')",),
         None, "both stored and void"),
        (("INSERT INTO void_deals (run_id, deal_no, epoch, reason) VALUES (:run, 99, 1, 'x')",),
         None, "never reserved"),
        (("UPDATE hands SET deal_no = 6 WHERE run_id = :run AND hand_no = 7",),
         None, "has not 1 stored hands"),
    ]  # fmt: skip
    for statements, hand_no, expected in damages:
        for statement in statements:
            await change(arena, statement, **({"run": run_id} if ":run" in statement else {}))
        found = await findings(arena, run_id)
        assert any(expected in finding.what and finding.hand_no == hand_no for finding in found), (
            statements,
            found,
        )
        await repair()


async def test_a_long_list_of_findings_is_cut(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await played(arena)
    monkeypatch.setattr(soundness, "FINDINGS_OF_RUN_MAX", 5)
    await change(arena, "UPDATE hands SET chain = NULL")
    found = await findings(arena, run_id)
    assert len(found) == 6
    assert "more" in found[-1].what


async def test_pages_do_not_change_what_is_found(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page ends within a deal of several hands, and within the list of runs."""
    duplicate = await played(arena, format="duplicate")
    cash = await played(arena)
    await change(arena, "UPDATE hands SET chain = NULL WHERE hand_no = 20")
    monkeypatch.setattr(soundness, "PAGE_HANDS", 4)
    monkeypatch.setattr(soundness, "PAGE_RUNS", 1)
    checked = [one async for one in check_all(arena.database)]
    assert [one.run_id for one in checked] == [duplicate, cash]
    assert [one.hands for one in checked] == [HANDS, HANDS]
    for one in checked:
        assert {finding.hand_no for finding in one.findings} == {20}


async def test_the_migration_links_hands_that_are_there_already(arena: Arena) -> None:
    run_id = await played(arena)
    links = await arena.rows("SELECT hand_no, chain FROM hands ORDER BY hand_no")
    url = arena.settings.database_url.get_secret_value()
    migrate.downgrade(url, "reliability_0001")
    migrate.upgrade(url)
    await arena.database.engine.dispose()
    assert await arena.rows("SELECT hand_no, chain FROM hands ORDER BY hand_no") == links
    await assert_sound(arena, run_id)


async def test_the_command_says_each_finding_in_a_line_and_fails(arena: Arena) -> None:
    run_id = await played(arena)
    name = id_text(IdKind.RUN, run_id)
    environment = {"POKERARENA_DATABASE_URL": arena.settings.database_url.get_secret_value()}
    whole = pokerarena("verify", **environment)
    assert (whole.returncode, whole.stdout) == (0, "")
    assert "1 runs, 30 hands: whole" in whole.stderr
    await change(arena, "UPDATE run_seats SET hands = hands + 1 WHERE seat_no = 1")
    damaged = pokerarena("verify", name, **environment)
    assert damaged.returncode == 1
    assert damaged.stdout == f"{name}: seat 1: hands is 31, the hands sum to 30\n"
    unknown = pokerarena("verify", "run_" + "0" * 32, **environment)
    assert (unknown.returncode, unknown.stdout) == (1, "")
