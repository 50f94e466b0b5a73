"""The database goes away and comes back; nobody has to be started again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from pokerarena.api.app import create_app
from pokerarena.db import Database
from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from tests.api.arena import PASSWORD, Arena, new_table, ok, settings_for, sit
from tests.api.asgi import Client, Reply
from tests.arena import Arena as PlayersArena
from tests.arena import open_arena
from tests.database_server import UNSAFE_BUT_FAST, new_directory
from tests.journeys.test_recovery import until_logged
from tests.soundness import assert_sound
from tests.worker.workers import SLOW_PLAYER, worker

KEY = {"Idempotency-Key": "one-order"}


@dataclass
class Stage:
    """A database of a test's own, the API over it, and an arena in which workers play."""

    server: EmbeddedPostgres
    api: Arena
    players: PlayersArena

    async def table(self) -> tuple[Client, str]:
        """A user, and a table of theirs at which everybody sits."""
        client = await self.api.user("alice")
        table = await new_table(client)
        await sit(client, table, 1)
        await sit(client, table, 2)
        return client, table


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    with (
        new_directory() as directory,
        EmbeddedPostgres(directory / "pg", settings=UNSAFE_BUT_FAST) as server,
    ):
        server.ensure_database("pokerarena")
        migrate.upgrade(server.url())
        settings = settings_for(server.url(), database_pool_wait_s=1.0)
        database = Database(settings, application_name="test")
        app = create_app(settings, database)
        async with app.router.lifespan_context(app), open_arena(server.url()) as players:
            yield Stage(server, Arena(settings, database, Client(app)), players)
        await database.close()


def assert_honest(reply: Reply, code: str) -> None:
    assert (reply.status, reply.code) == (503, code), reply
    assert int(reply.headers["retry-after"]) >= 1


async def test_an_outage_is_an_honest_503_and_ends_by_itself(stage: Stage, tmp_path: Path) -> None:
    client, table = await stage.table()
    stage.server.stop()
    for reply in (
        await client.get(f"/v1/tables/{table}"),
        await client.post(f"/v1/tables/{table}/runs", {"hands": 20}, headers=KEY),
    ):
        assert_honest(reply, "database_unavailable")
    players = stage.players
    with worker(players.settings, tmp_path) as process:
        await until_logged(process, "database_awaited")
        stage.server.start()
        ok(await client.get(f"/v1/tables/{table}"))
        ok(await client.post(f"/v1/tables/{table}/runs", {"hands": 20}, headers=KEY), 201)
        ((run_id,),) = await players.rows("SELECT id FROM runs")
        assert (await players.until_ended(run_id)).status == "completed"
        assert process.process.poll() is None
    await assert_sound(players, run_id)


def set_read_only(server: EmbeddedPostgres, value: str) -> None:
    """Of every session, those that are open included; as on a standby, or on an operator's word."""
    with psycopg.connect(server.conninfo(), autocommit=True) as database:
        database.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        database.execute("SELECT pg_reload_conf()")


async def test_a_read_only_database_is_told_costs_no_hand_and_ends_by_itself(
    stage: Stage, tmp_path: Path
) -> None:
    client, table = await stage.table()
    players = stage.players
    run_id = await players.order(["tight", "random", "caller"], 300)
    with worker(players.settings, tmp_path, player=SLOW_PLAYER, HOUSE_DELAY_S="0.002") as process:
        await players.until(run_id, lambda run: run.hands_done >= 20)
        set_read_only(stage.server, "on")
        await until_logged(process, "commit_failed")
        stored = (await players.look(run_id)).hands_done
        # What only reads is served; what would change something is refused, and changes nothing.
        ok(await client.get(f"/v1/tables/{table}"))
        order = f"/v1/tables/{table}/runs"
        credentials = {"username": "alice", "password": PASSWORD}
        for reply in (
            await client.post(order, {"hands": 20}, headers=KEY),
            await client.post("/v1/tables", {"name": "Another"}),
            await client.delete(f"/v1/tables/{table}/seats/1"),
            await client.post("/v1/auth/login", credentials),
        ):
            assert_honest(reply, "database_read_only")
        await until_logged(process, "queue_interrupted")
        await until_logged(process, "reaper_interrupted")
        assert {event["outage"] for event in process.events("commit_failed")} == {"read_only"}
        children = process.children()
        set_read_only(stage.server, "off")
        ok(await client.post(order, {"hands": 20}, headers=KEY), 201)
        run = await players.until_ended(run_id)
        assert (run.status, run.hands_done) == ("completed", 300)
        assert run.hands_done > stored
        other = await players.value("SELECT id FROM runs WHERE id <> :id", id=run_id)
        assert (await players.until_ended(other)).status == "completed"
        # Nothing was started anew: it waited.
        assert process.children() == children
    assert not await players.rows("SELECT 1 FROM dead_letters")
    for each in (run_id, other):
        await assert_sound(players, each)
