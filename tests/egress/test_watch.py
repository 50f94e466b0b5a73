"""What operators change is heeded by every process that plays: within one look at the revision."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from pokerarena.egress import approvals, rules
from pokerarena.egress.lists import Effect, RuleKind, parse_rule
from pokerarena.egress.watch import EgressWatch
from pokerarena.ids import new_id
from tests.agents.misbehaving import Misbehaving
from tests.arena import DEADLINE_S, Arena, open_arena

HOST = "api.example.org"


async def add(arena: Arena, effect: str, kind: str, value: str) -> None:
    rule = parse_rule(Effect(effect), RuleKind(kind), value)
    async with arena.database.unit_of_work() as session:
        await rules.add_rule(session, rule, note="", by=None, settings=arena.settings)


async def decide(arena: Arena, version_id, port: int, *, approve: bool) -> None:
    async with arena.database.unit_of_work() as session:
        policy = await rules.current_policy(session, arena.settings)
        await approvals.decide(
            session, version_id, f"{HOST}:{port}", approve=approve, policy=policy, by=None
        )


async def test_lists_and_approvals_reach_every_process_at_its_next_look(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        await arena.table(["hosted", "hosted"])
        versions = [row[0] for row in await arena.rows("SELECT id FROM agent_versions")]
        async with arena.database.unit_of_work() as session:
            for version_id in versions:
                approvals.declare(session, version_id, [f"{HOST}:443", f"{HOST}:8443"])
        await decide(arena, versions[0], 443, approve=True)
        processes = [EgressWatch(arena.settings, arena.database) for _ in range(2)]
        told: list[object] = []
        passes = []
        for watch in processes:
            watch.on_policy = told.append
            async with arena.database.session() as session:
                await watch.learn(session, versions)
            passes.append([watch.pass_for(version_id, new_id()) for version_id in versions])
        for mine, others in passes:
            assert mine.grant().hosts == {f"{HOST}:443"}
            assert mine.grant().plain
            assert others.grant() is None
        assert [await watch.refresh() for watch in processes] == [False, False]

        await decide(arena, versions[0], 8443, approve=True)
        await decide(arena, versions[1], 443, approve=True)
        assert [await watch.refresh() for watch in processes] == [True, True]
        for mine, others in passes:
            assert mine.grant().hosts == {f"{HOST}:443", f"{HOST}:8443"}
            assert others.grant().hosts == {f"{HOST}:443"}
        assert told == [], "approvals do not change the policy"

        # Deny wins over what was approved, whatever an allow list says.
        await add(arena, "allow", "domain", ".example.org")
        await add(arena, "deny", "port", "8443")
        await add(arena, "deny", "scheme", "http")
        await add(arena, "deny", "network", "192.0.2.0/24")
        for watch in processes:
            await watch.refresh()
        assert len(told) == 2
        for mine, _ in passes:
            assert mine.grant().hosts == {f"{HOST}:443"}
            assert not mine.grant().plain
            assert mine.grant().denied_networks == ("192.0.2.0/24",)
        await add(arena, "deny", "domain", HOST)
        await decide(arena, versions[1], 443, approve=False)
        for watch in processes:
            await watch.refresh()
        for mine, others in passes:
            assert (mine.grant(), others.grant()) == (None, None)


async def test_a_callback_that_becomes_denied_falls_back_from_the_next_dial(
    database_url: str,
) -> None:
    async with (
        Misbehaving() as server,
        open_arena(database_url, egress_refresh_s=0.1, circuit_failures=1_000) as arena,
    ):
        run_id = await arena.order([server.url("good"), "caller"], hands=1_000_000)
        playing = asyncio.create_task(arena.play(run_id))
        await arena.until(run_id, lambda run: run.hands_done > 0)
        await add(arena, "deny", "network", "127.0.0.0/8")

        async def fallbacks() -> int:
            return await arena.value(
                "SELECT coalesce((fallbacks->>'egress_denied')::int, 0) FROM run_seats"
                " WHERE run_id = :id AND seat_no = 1",
                id=run_id,
            )

        async with asyncio.timeout(DEADLINE_S):
            while not await fallbacks():
                assert not playing.done()
                await asyncio.sleep(0.05)
            asked = len(server.received)
            while server.open_connections:
                await asyncio.sleep(0.05)
        hands = (await arena.look(run_id)).hands_done
        await arena.until(run_id, lambda run: run.hands_done > hands + 20)
        assert len(server.received) == asked, "nothing is sent any more"
        async with arena.database.unit_of_work() as session:
            await session.execute(
                text("UPDATE runs SET stop_requested_at = now() WHERE id = :id"), {"id": run_id}
            )
        run = await asyncio.wait_for(playing, 60)
        assert run.status == "stopped"
