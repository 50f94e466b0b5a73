"""A check of an upload is made in the end, whatever becomes of its job."""

from __future__ import annotations

from sqlalchemy import text

from pokerarena.worker.checks import requeue_lost_checks
from tests.arena import Arena, open_arena

_UNCHECKED = """
UPDATE agent_versions SET check_status = 'pending', check_report = NULL,
    created_at = now() - make_interval(secs => :age_s) WHERE kind = 'hosted'
"""


async def requeued(arena: Arena) -> int:
    async with arena.database.unit_of_work() as session:
        return await requeue_lost_checks(session)


async def test_a_check_whose_job_is_lost_gets_one_new_job(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        await arena.table(["hosted", "tight"])
        assert await requeued(arena) == 0
        for age_s, expected in ((0, 0), (300, 1), (300, 0)):
            async with arena.database.unit_of_work() as session:
                await session.execute(text(_UNCHECKED), {"age_s": age_s})
            assert await requeued(arena) == expected
        jobs = await arena.rows(
            "SELECT j.status::text FROM procrastinate_jobs j JOIN agent_versions v"
            " ON j.args->>'version_id' = v.id::text AND j.queue_name = 'checks'"
        )
        assert [tuple(job) for job in jobs] == [("todo",)]
        # A job in the hands of a worker that is gone counts for nothing.
        async with arena.database.unit_of_work() as session:
            await session.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))
        assert await requeued(arena) == 1
