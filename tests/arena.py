"""An arena in a test's database: accounts, agents, tables and runs, made as the services make them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import text

from pokerarena.agents.models import Agent, AgentVersion
from pokerarena.auth.models import User
from pokerarena.db import Database
from pokerarena.ids import new_id
from pokerarena.protocol.signing import new_secret
from pokerarena.runs import service
from pokerarena.runs.models import Run
from pokerarena.sealing import open_sealer
from pokerarena.settings import Settings, load_settings
from pokerarena.tables.models import Seat, Table
from pokerarena.worker.stage import Stage

DEADLINE_S = 60.0


def arena_settings(database_url: str, **changes: Any) -> Settings:
    """Settings that recover within a second or two."""
    return load_settings(
        **{
            "database_url": database_url,
            "log_format": "json",
            "run_lease_s": 2.0,
            "run_lease_renew_s": 0.5,
            "reaper_interval_s": 0.5,
            "callback_allow_private": True,
            "worker_drain_s": 10.0,
            **changes,
        }
    )


class Arena:
    """One database with one account; every table and run belongs to it."""

    def __init__(self, settings: Settings, database: Database, user_id: UUID) -> None:
        self.settings = settings
        self.database = database
        self.user_id = user_id
        self.sealer = open_sealer(settings)

    async def table(self, lineup: Sequence[str], **rules: Any) -> UUID:
        """A table with these players in its seats: names of house agents, or callback URLs."""
        table = Table(
            id=new_id(),
            owner_id=self.user_id,
            name="a table",
            visibility=rules.pop("visibility", "private"),
            reveal_policy=rules.pop("reveal_policy", "showdown"),
            format=rules.pop("format", "cash"),
            seat_count=max(2, len(lineup)),
            small_blind=rules.pop("small_blind", 50),
            big_blind=rules.pop("big_blind", 100),
            starting_stack=rules.pop("starting_stack", 10_000),
            action_time_ms=rules.pop("action_time_ms", 2_000),
            **rules,
        )
        async with self.database.unit_of_work() as session:
            session.add(table)
            await session.flush()
            for seat_no, who in enumerate(lineup, start=1):
                agent, version = await self._agent(who, seat_no)
                session.add(agent)
                await session.flush()
                session.add(version)
                await session.flush()
                session.add(
                    Seat(
                        table_id=table.id,
                        seat_no=seat_no,
                        agent_id=agent.id,
                        version_id=version.id,
                        taken_by=self.user_id,
                    )
                )
        return table.id

    async def _agent(self, who: str, seat_no: int) -> tuple[Agent, AgentVersion]:
        agent = Agent(
            id=new_id(), owner_id=self.user_id, name=f"{who[:40]} {seat_no} {new_id().hex[-6:]}"
        )
        version_id = new_id()
        if who.startswith("http"):
            url, _, options = who.partition("#")
            kind = {"kind": "http", "callback_url": url}
            kind["signing_secret_sealed"] = await self.sealer.seal(
                new_secret().encode(), purpose="signing-secret", owner=version_id.bytes
            )
            if options:
                kind["max_in_flight"] = int(options)
        elif who.startswith("hosted"):
            # Without a digest of a package that is nowhere: for tests that never come to play it.
            digest = bytes.fromhex(who.partition(":")[2]) or bytes(32)
            kind = {"kind": "hosted", "package_digest": digest, "package_size": 1}
            kind |= {"manifest": {"runtime": "python3", "entry_point": "bot.py"}}
            kind |= {"check_status": "passed", "check_report": {}}
        else:
            kind = {"kind": "house", "house_name": who}
        return agent, AgentVersion(id=version_id, agent_id=agent.id, number=1, **kind)

    async def run(self, table_id: UUID, hands: int, request_id: str | None = None) -> UUID:
        """Order a run."""
        async with self.database.unit_of_work() as session:
            table = await session.get_one(Table, table_id)
            run = await service.create_run(
                session,
                table=table,
                created_by=self.user_id,
                hands=hands,
                settings=self.settings,
                sealer=self.sealer,
                request_id=request_id,
            )
            return run.id

    async def order(self, lineup: Sequence[str], hands: int, **rules: Any) -> UUID:
        """Order a run at a new table."""
        return await self.run(await self.table(lineup, **rules), hands)

    async def play(self, run_id: UUID) -> Run:
        """Play a run in this process, as a player process would; quicker than starting a worker."""
        stage = Stage(self.settings, name=f"test {os.getpid()}")
        serving = asyncio.create_task(stage.serve())
        try:
            claim = await stage.claim(run_id)
            assert claim is not None, "somebody else plays this run"
            await stage.play(claim)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await stage.close()
        return await self.look(run_id)

    async def look(self, run_id: UUID) -> Run:
        async with self.database.session() as session:
            run = await service.get_run(session, run_id)
            assert run is not None
            return run

    async def rows(self, query: str, **parameters: Any) -> list[Any]:
        async with self.database.session() as session:
            return list((await session.execute(text(query), parameters)).all())

    async def value(self, query: str, **parameters: Any) -> Any:
        return (await self.rows(query, **parameters))[0][0]

    async def until(
        self,
        run_id: UUID,
        condition: Callable[[Run], bool],
        *,
        deadline_s: float = DEADLINE_S,
    ) -> Run:
        """The run as soon as the condition holds for it."""
        give_up_s = time.monotonic() + deadline_s
        while True:
            run = await self.look(run_id)
            if condition(run):
                return run
            assert time.monotonic() < give_up_s, (
                f"the run is {run.status} with {run.hands_done} of {run.hands_target} hands, "
                f"epoch {run.epoch}, recoveries {run.recoveries}, "
                f"failure {run.failure_code}: {run.failure_detail}"
            )
            await asyncio.sleep(0.02)

    async def until_ended(self, run_id: UUID, *, deadline_s: float = DEADLINE_S) -> Run:
        return await self.until(
            run_id, lambda run: run.status not in ("queued", "running"), deadline_s=deadline_s
        )


@asynccontextmanager
async def open_arena(database_url: str, **changes: Any) -> AsyncIterator[Arena]:
    """An arena with an account, until the block ends."""
    settings = arena_settings(database_url, **changes)
    database = Database(settings, application_name=f"test {os.getpid()}")
    user = User(id=new_id(), username=f"u{new_id().hex[-12:]}", password_hash="none", role="member")
    async with database.unit_of_work() as session:
        session.add(user)
    try:
        yield Arena(settings, database, user.id)
    finally:
        await database.close()
