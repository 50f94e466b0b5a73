"""The live stream: what it sends, to whom, for how long, and at what cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from pokerarena.api.app import create_app
from pokerarena.db import Database
from pokerarena.engine.transition import Transition
from pokerarena.history.live import encode_live, publish
from pokerarena.history.record import HandRecord
from pokerarena.ids import IdKind, parse_id
from pokerarena.runs.formats import HandSetup
from pokerarena.runs.play import Moment
from tests.api.arena import Arena, new_table, ok, settings_for, sit
from tests.api.asgi import Client
from tests.api.stored import play_random_hand, set_status, store, withheld_cards
from tests.api.test_redaction import OWN_SEATS, RULES, leaks, six_seats


@pytest.fixture
async def quick(database_url: str) -> AsyncIterator[Arena]:
    """An arena whose limits are short enough to be waited for."""
    settings = settings_for(
        database_url,
        stream_keepalive_s=0.2,
        stream_recheck_s=0.3,
        stream_max_per_process=3,
        stream_max_s=4,
        database_pool_size=1,
    )
    database = Database(settings, application_name="test")
    app = create_app(settings, database)
    async with app.router.lifespan_context(app):
        yield Arena(settings, database, Client(app))
    await database.close()


async def send(
    arena: Arena, table_id: str, run_id: str, record: HandRecord, transition: Transition
) -> None:
    """Publish a moment, as the worker of the run does."""
    setup = HandSetup(record.hand_no, 0, record.seats, record.stacks, record.button_seat)
    moment = Moment(record.id, record.deal_no, setup, record.holes, transition.hand)
    payload = encode_live(
        parse_id(IdKind.TABLE, table_id), parse_id(IdKind.RUN, run_id), moment, datetime.now(UTC)
    )
    assert payload is not None
    async with arena.database.unit_of_work() as session:
        await publish(session, [payload])


async def listening(arena: Arena) -> None:
    """Wait until the hub's own connection listens."""
    async with asyncio.timeout(10):
        while True:
            async with arena.database.unit_of_work() as session:
                found = await session.scalar(
                    text(
                        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle'"
                        " AND datname = current_database()"
                        " AND application_name = 'pokerarena-api-live' AND query LIKE 'LISTEN%'"
                    )
                )
            if found:
                return
            await asyncio.sleep(0.02)


async def test_every_moment_goes_to_each_watcher_with_what_it_may_see(arena: Arena) -> None:
    table_id, run_id, callers = await six_seats(arena)
    await set_status(arena.database, run_id, "running", 0)
    random = Random(3)
    moments = withheld_at_all = 0
    async with AsyncExitStack() as stack:
        streams = {
            name: await stack.enter_async_context(caller.stream(f"/v1/tables/{table_id}/live"))
            for name, caller in callers.items()
        }
        for stream in streams.values():
            run = await stream.next_event("run")
            assert (run["run_id"], run["status"], run["hands_done"]) == (run_id, "running", 0)
        await listening(arena)
        for hand_no in range(1, 7):
            record = play_random_hand(random, RULES, (1, 2, 3, 4, 5, 6), hand_no=hand_no)
            for transition in record.replay(RULES):
                moments += 1
                await send(arena, table_id, run_id, record, transition)
                for name, stream in streams.items():
                    sent = await stream.next_event("hand")
                    assert sent["hand_no"] == hand_no
                    assert len(sent["view"]["history"]) == len(transition.hand.history)
                    withheld = withheld_cards(record, transition.hand, OWN_SEATS[name])
                    withheld_at_all += len(withheld)
                    assert not leaks(json.dumps(sent), withheld), (name, record)
                    shown = {seat["seat_no"] for seat in sent["view"]["seats"] if seat["cards"]}
                    assert shown >= OWN_SEATS[name], name
            state = ok(await callers["bob"].get(f"/v1/tables/{table_id}/state"))
            assert state["hand"]["hand_no"] == hand_no
        assert all(
            stream.headers["content-type"].startswith("text/event-stream")
            for stream in streams.values()
        )
    assert moments > 30
    assert withheld_at_all > 500


async def test_counters_grow_without_any_snapshot(arena: Arena) -> None:
    table_id, run_id, callers = await six_seats(arena)
    await set_status(arena.database, run_id, "running", 0)
    async with callers["anonymous"].stream(f"/v1/tables/{table_id}/live") as stream:
        assert (await stream.next_event("run"))["hands_done"] == 0
        await set_status(arena.database, run_id, "running", 17)
        assert (await stream.next_event("run"))["hands_done"] == 17
        await set_status(arena.database, run_id, "completed", 40)
        assert (await stream.next_event("run"))["status"] == "completed"


async def test_eyes_are_looked_up_anew_for_the_next_run(arena: Arena) -> None:
    """Who owned seat 1 in one run must not see the cards of seat 1 in the next."""
    alice, bob = await arena.user("alice"), await arena.user("bob")
    table_id = await new_table(alice, visibility="public")
    await sit(bob, table_id, 1)
    await sit(alice, table_id, 2)
    first = ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 5}), 201)["id"]
    record = play_random_hand(Random(5), RULES, (1, 2), hand_no=1)
    opening = next(record.replay(RULES))
    async with bob.stream(f"/v1/tables/{table_id}/live") as stream:
        await stream.next_event("run")
        await listening(arena)
        await send(arena, table_id, first, record, opening)
        seats = (await stream.next_event("hand"))["view"]["seats"]
        assert [bool(seat["cards"]) for seat in seats] == [True, False]
        ok(await alice.post(f"/v1/runs/{first}/stop"))
        ok(await bob.delete(f"/v1/tables/{table_id}/seats/1"), 204)
        await sit(alice, table_id, 1, "Other")
        second = ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 5}), 201)["id"]
        await send(arena, table_id, second, record, opening)
        seats = (await stream.next_event("hand"))["view"]["seats"]
        assert [bool(seat["cards"]) for seat in seats] == [False, False]


async def test_only_watched_tables_are_marked_as_watched(arena: Arena) -> None:
    table_id, _, callers = await six_seats(arena)

    async def watched() -> int:
        async with arena.database.unit_of_work() as session:
            query = "SELECT count(*) FROM live_watches WHERE expires_at > now()"
            return int((await session.execute(text(query))).scalar_one())

    assert await watched() == 0
    async with callers["dave"].stream(f"/v1/tables/{table_id}/live") as stream:
        await stream.next_event("run")
        assert await watched() == 1
    async with asyncio.timeout(10):
        while await watched():
            await asyncio.sleep(0.2)


async def test_a_stream_keeps_alive_ends_at_its_limit_and_holds_no_session(quick: Arena) -> None:
    alice = await quick.user("alice")
    table_id = await new_table(alice)
    path = f"/v1/tables/{table_id}/live"
    async with alice.stream(path) as one, alice.stream(path) as two, alice.stream(path) as three:
        for stream in (one, two, three):
            assert await stream.next_event("") == "keep-alive"
        refused = await alice.get(path)
        assert (refused.status, refused.code) == (503, "too_many_streams")
        assert int(refused.headers["retry-after"]) > 0
        # One connection serves everybody, so a stream that kept one would starve the rest.
        for _ in range(5):
            ok(await alice.get("/v1/me"))
        assert await one.next_event("end") == {"reason": "limit"}
        assert await one.next_event_or_end() is None
    async with alice.stream(path) as again:
        assert await again.next_event("") == "keep-alive"
        assert again.status == 200


async def test_a_stream_ends_with_the_rights_to_it(quick: Arena) -> None:
    alice, bob = await quick.user("alice"), await quick.user("bob")
    table_id = await new_table(alice, visibility="public")
    path = f"/v1/tables/{table_id}/live"
    async with alice.stream(path) as hers, bob.stream(path) as his:
        assert await hers.next_event("") == "keep-alive"
        ok(await bob.post("/v1/auth/logout"), 204)
        assert await his.next_event("end") == {"reason": "token_invalid"}
        async with quick.anonymous.stream(path) as theirs:
            assert await theirs.next_event("") == "keep-alive"
            ok(await alice.patch(f"/v1/tables/{table_id}", {"visibility": "private"}))
            assert await theirs.next_event("end") == {"reason": "not_found"}
        assert await hers.next_event("") == "keep-alive"


async def test_a_stream_goes_on_after_its_listening_connection_was_cut(arena: Arena) -> None:
    table_id, run_id, callers = await six_seats(arena)
    record = play_random_hand(Random(9), RULES, (1, 2, 3), hand_no=1)
    opening = next(record.replay(RULES))
    async with callers["dave"].stream(f"/v1/tables/{table_id}/live") as stream:
        await stream.next_event("run")
        await listening(arena)
        async with arena.database.unit_of_work() as session:
            await session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'pokerarena-api-live'"
                    " AND datname = current_database()"
                )
            )
        await asyncio.sleep(0.2)
        await listening(arena)
        await send(arena, table_id, run_id, record, opening)
        assert (await stream.next_event("hand"))["hand_no"] == 1


async def test_payloads_that_nobody_can_read_disturb_no_stream(arena: Arena) -> None:
    table_id, run_id, callers = await six_seats(arena)
    record = play_random_hand(Random(9), RULES, (1, 2, 3), hand_no=4)
    async with callers["dave"].stream(f"/v1/tables/{table_id}/live") as stream:
        await stream.next_event("run")
        await listening(arena)
        for payload in ("", "x", "{}", '{"table_id": 1}', '{"record": "AAAA"}'):
            async with arena.database.unit_of_work() as session:
                await publish(session, [payload])
        await send(arena, table_id, run_id, record, next(record.replay(RULES)))
        assert (await stream.next_event("hand"))["hand_no"] == 4


async def test_the_state_of_a_quiet_table_is_its_last_hand(arena: Arena) -> None:
    table_id, run_id, callers = await six_seats(arena)
    state = ok(await callers["dave"].get(f"/v1/tables/{table_id}/state"))
    assert (state["run"]["id"], state["hand"]) == (run_id, None)
    assert [seat["seat_no"] for seat in state["seats"]] == [1, 2, 3, 4, 5, 6]
    hands = [play_random_hand(Random(n), RULES, (1, 2, 5), hand_no=n) for n in (1, 2, 3)]
    await store(arena.database, run_id, hands)
    state = ok(await callers["dave"].get(f"/v1/tables/{table_id}/state"))
    assert state["hand"]["hand_no"] == 3
    assert state["hand"]["view"]["complete"] is True
    empty = await new_table(callers["alice"], name="Empty")
    state = ok(await callers["alice"].get(f"/v1/tables/{empty}/state"))
    assert (state["run"], state["hand"], state["seats"]) == (None, None, [])


async def test_a_client_that_reads_nothing_is_let_go(database_url: str) -> None:
    settings = settings_for(database_url, stream_send_timeout_s=0.2)
    database = Database(settings, application_name="test")
    app = create_app(settings, database)
    arena = Arena(settings, database, Client(app))
    async with app.router.lifespan_context(app):
        alice = await arena.user("alice")
        table_id = await new_table(alice)
        blocked = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

        async def send_nothing(message: Any) -> None:
            if message["type"] == "http.response.body":
                blocked.set()
                await asyncio.sleep(3600)

        from tests.api.asgi import _scope

        scope = _scope(
            "GET",
            f"/v1/tables/{table_id}/live",
            {"host": "arena.test", "authorization": f"Bearer {alice.token}"},
        )
        async with asyncio.timeout(5):
            await app(scope, receive, send_nothing)
        assert blocked.is_set()
        assert app.state.parts.hub._streams == 0
    await database.close()


def test_moments_are_replaced_not_queued() -> None:
    """A watcher that is slow finds the latest moment only: nothing grows while it is away."""
    from pokerarena.api.hub import Watched

    watched = Watched()
    news = asyncio.Event()
    watched.watchers.add(news)
    for number in range(1000):
        watched.hand_seq = number
        watched.rendered[number] = b"x"
        watched.rendered.clear()
        watched.tell()
    assert news.is_set()
    assert not watched.rendered
