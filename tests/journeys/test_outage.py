"""The database goes away and comes back; nobody has to be started again."""

from __future__ import annotations

from pathlib import Path

from pokerarena.api.app import create_app
from pokerarena.db import Database
from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from tests.api.arena import Arena, new_table, ok, settings_for, sit
from tests.api.asgi import Client
from tests.arena import open_arena
from tests.database_server import UNSAFE_BUT_FAST, new_directory
from tests.journeys.test_recovery import until_logged
from tests.soundness import assert_sound
from tests.worker.workers import worker


async def test_an_outage_is_an_honest_503_and_ends_by_itself(tmp_path: Path) -> None:
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
            arena = Arena(settings, database, Client(app))
            client = await arena.user("alice")
            table = await new_table(client)
            await sit(client, table, 1)
            await sit(client, table, 2)
            server.stop()
            key = {"Idempotency-Key": "one-order"}
            for reply in (
                await client.get(f"/v1/tables/{table}"),
                await client.post(f"/v1/tables/{table}/runs", {"hands": 20}, headers=key),
            ):
                assert (reply.status, reply.code) == (503, "database_unavailable"), reply
                assert int(reply.headers["retry-after"]) >= 1
            with worker(players.settings, tmp_path) as process:
                await until_logged(process, "database_awaited")
                server.start()
                ok(await client.get(f"/v1/tables/{table}"))
                ok(
                    await client.post(f"/v1/tables/{table}/runs", {"hands": 20}, headers=key),
                    201,
                )
                ((run_id,),) = await players.rows("SELECT id FROM runs")
                assert (await players.until_ended(run_id)).status == "completed"
                assert process.process.poll() is None
            await assert_sound(players, run_id)
        await database.close()
