"""Operators read and decide dead letters; nobody else sees them."""

from __future__ import annotations

from sqlalchemy import text

from pokerarena.auth.models import Role
from pokerarena.ids import IdKind, id_text, new_id
from tests.api.arena import Arena, new_table, ok, sit


async def test_an_operator_lists_reads_retries_and_discards(arena: Arena) -> None:
    owner, operator = await arena.user("alice"), await arena.user("operator", Role.OPERATOR)
    letters = []
    for _ in range(2):
        table = await new_table(owner)
        await sit(owner, table, 1)
        await sit(owner, table, 2)
        run = ok(await owner.post(f"/v1/tables/{table}/runs", {"hands": 3}), 201)["id"]
        letter = new_id()
        async with arena.database.unit_of_work() as session:
            values = {"id": letter, "run": run.removeprefix("run_")}
            for statement in (
                "UPDATE runs SET status = 'failed', failure_code = 'infrastructure',"
                " job_id = NULL WHERE id = CAST(:run AS uuid)",
                "INSERT INTO dead_letters"
                " (id, subject, run_id, code, detail, attempts, epoch, state)"
                " VALUES (:id, 'run', CAST(:run AS uuid), 'infrastructure', 'why', 3, 1, 'open')",
            ):
                await session.execute(
                    text(statement),
                    {name: values[name] for name in values if f":{name}" in statement},
                )
        letters.append((id_text(IdKind.DEAD_LETTER, letter), run))
    page = ok(await operator.get("/v1/dead-letters"))
    assert [(one["id"], one["run_id"]) for one in page["items"]] == letters[::-1]
    assert page["open"] == 2
    (first, first_run), (second, _) = letters
    shown = ok(await operator.get(f"/v1/dead-letters/{first}"))
    assert (shown["code"], shown["attempts"], shown["state"]) == ("infrastructure", 3, "open")
    retried = ok(await operator.post(f"/v1/dead-letters/{first}/retry"))
    assert (retried["state"], retried["closed_by"]) == ("retried", operator.id)
    assert ok(await owner.get(f"/v1/runs/{first_run}"))["status"] == "queued"
    assert ok(await operator.post(f"/v1/dead-letters/{second}/discard"))["state"] == "discarded"
    again = await operator.post(f"/v1/dead-letters/{second}/retry")
    assert (again.status, again.code) == (409, "dead_letter_closed")
    assert ok(await operator.get("/v1/dead-letters")) == {
        "items": [], "next_cursor": None, "open": 0,
    }  # fmt: skip
    assert len(ok(await operator.get("/v1/dead-letters?state=all&limit=1"))["items"]) == 1
