"""Who asks for a hand that has left the database is told where it is; the rest is as before."""

from __future__ import annotations

from random import Random
from uuid import uuid4

from sqlalchemy import text

from pokerarena.history.partitions import first_id, moment_of
from pokerarena.ids import IdKind, id_text, new_id, parse_id
from tests.api.arena import Arena, new_table, ok, sit
from tests.api.stored import store
from tests.api.test_redaction import some_hands


async def test_an_archived_hand_is_told_to_be_elsewhere_and_results_stay(arena: Arena) -> None:
    alice = await arena.user("alice")
    bob = await arena.user("bob")
    table_id = await new_table(alice)
    for seat_no in (1, 2):
        await sit(alice, table_id, seat_no)
    run_id = ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 5}), 201)["id"]
    hands = some_hands(Random(5), 5)
    await store(arena.database, run_id, hands, status="stopped")
    hand = id_text(IdKind.HAND, hands[0].id)
    results = ok(await alice.get(f"/v1/runs/{run_id}/results"))
    run = parse_id(IdKind.RUN, run_id)
    archive_id = new_id()
    async with arena.database.unit_of_work() as session:
        await session.execute(
            text(
                "INSERT INTO history_archives (id, name, run_id_from, run_id_to, state, place, runs,"
                " hands, last_hand_at) VALUES (:id, 'hands_2026_01', :begin, :end, 'writing',"
                " 'https://archive.example', 1, 5, :last)"
            ),
            {
                "id": archive_id,
                "begin": first_id(moment_of(run)),
                "end": first_id(moment_of(run).replace(year=moment_of(run).year + 1)),
                "last": hands[-1].ended_at,
            },
        )
        await session.execute(text("UPDATE runs SET archive_id = :id"), {"id": archive_id})
    # While it is being written the hands are here.
    assert len(ok(await alice.get(f"/v1/runs/{run_id}/hands"))["items"]) == 5
    ok(await alice.get(f"/v1/hands/{hand}"))
    reply = await alice.post(f"/v1/runs/{run_id}/resume", None)
    assert (reply.status, reply.code) == (409, "run_archived")

    async with arena.database.unit_of_work() as session:
        await session.execute(text("DELETE FROM hands"))
        await session.execute(
            text(
                "UPDATE history_archives SET state = 'archived', archived_at = now(), sha256 = :sum"
            ),
            {"sum": bytes(32)},
        )
    for path in (
        f"/v1/runs/{run_id}/hands",
        *(f"/v1/hands/{hand}{more}" for more in ("", "/actions", "/replay")),
    ):
        reply = await alice.get(path)
        assert (reply.status, reply.code) == (410, "archived"), path
        assert reply.json["archive"] == "hands_2026_01"
        assert reply.json["place"] == "https://archive.example"
    # That there was such a run is still not told to those who may not know.
    reply = await bob.get(f"/v1/runs/{run_id}/hands")
    assert (reply.status, reply.code) == (404, "not_found")
    assert ok(await alice.get(f"/v1/runs/{run_id}/results")) == results
    assert ok(await alice.get(f"/v1/runs/{run_id}"))["archived"]
    ok(await alice.get(f"/v1/tables/{table_id}/state"))
    for other in (uuid4(), first_id(moment_of(run).replace(year=2020))):
        reply = await alice.get(f"/v1/hands/{id_text(IdKind.HAND, other)}")
        assert reply.status in (404, 410)
    reply = await alice.get(
        f"/v1/hands/{id_text(IdKind.HAND, first_id(moment_of(run).replace(year=2020)))}"
    )
    assert (reply.status, reply.code) == (404, "not_found")
