"""A storm over real processes: faults at random moments while runs are played and ordered.

Owns the orders, the moments of the faults, and what must hold afterwards. The seed fixes which fault
comes when; what it meets is up to the machine, and must not matter.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pokerarena.runs.soundness import check_all
from tests.chaos.faults import FAULTS, gone
from tests.chaos.scene import Scene
from tests.namespaces import left_over

FORMATS: Final = ("cash", "reset", "duplicate", "freezeout")
# Two seats make every number of hands a whole one; freezeout ends when it ends.
LINEUPS: Final = (["tight", "random", "caller"], ["tight", "random"], ["hosted", "caller"])
# One agent-host starts few sandboxes at once, and a storm makes it start them again and again.
HOSTED_HANDS_SHARE: Final = 0.25


class Storm:
    """One storm from first order to last check."""

    def __init__(
        self, *, seed: int, faults: int, runs: int, hands: int, tell: Callable[[str], object]
    ) -> None:
        self._chance = random.Random(seed)
        self._faults = faults
        self._runs = runs
        self._hands = hands
        self._tell = tell
        self._orders = 0
        self.met: dict[str, int] = {}
        self.ended: dict[str, int] = {}

    async def blow(self) -> None:
        with ExitStack() as stack:
            self._scene = Scene(stack)
            async with self._scene.open() as arena:
                self._arena = arena
                await self._play_through()
        assert left_over(self._scene.network) == []

    async def _play_through(self) -> None:
        scene = self._scene
        await self._top_up()
        for at in range(scene.WORKERS):
            scene.start_worker(at)
        orders = asyncio.create_task(self._order_through_the_api())
        for number in range(self._faults):
            await asyncio.sleep(self._chance.uniform(0.1, 0.8))
            # Each kind comes, whatever the seed; the rest is chance.
            fault = FAULTS[number] if number < len(FAULTS) else self._chance.choice(FAULTS)
            active = await self._top_up()
            self._tell(f"{number + 1}/{self._faults} {fault.__name__} over {active} runs")
            await fault(scene, self._chance)
            self.met[fault.__name__] = self.met.get(fault.__name__, 0) + 1
        self._ordering_over.set()
        keys = await orders
        await self._until_all_ended()
        await self._check(keys)

    # -- runs ---------------------------------------------------------------------------------

    async def _top_up(self) -> int:
        """Order runs until as many as there should be are in progress; how many are.

        Every fault meets a full house, however quickly runs end.
        """
        give_up_s = time.monotonic() + 60
        while True:
            try:
                active = await self._arena.value(
                    "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')"
                )
                if active >= self._runs:
                    return int(active)
                await self._order_run()
            except (SQLAlchemyError, psycopg.Error, OSError):
                # The fault before was the database's, and it is only just back.
                assert time.monotonic() < give_up_s, "no run can be ordered"
                await asyncio.sleep(0.1)

    async def _order_run(self) -> None:
        number = self._orders
        lineup = LINEUPS[number % len(LINEUPS)]
        hosted = "hosted" in lineup
        hands = max(2, int(self._hands * (HOSTED_HANDS_SHARE if hosted else 1))) * len(lineup)
        table = await self._arena.table(lineup, format=FORMATS[number % len(FORMATS)])
        if hosted:
            self._scene.store_package()
        await self._arena.run(table, hands)
        self._orders += 1

    # -- orders through it all ----------------------------------------------------------------

    async def _order_through_the_api(self) -> list[str]:
        """Make tables, each under one key, again until it is answered; the names that were made."""
        self._ordering_over = asyncio.Event()
        credentials = {"username": "orderer", "password": "the river card was a seven"}
        await self._insist("POST", "/v1/auth/register", credentials, None, {201, 409})
        login = await self._insist("POST", "/v1/auth/login", credentials, None, {200})
        token = login["access_token"]
        made: list[str] = []
        while not self._ordering_over.is_set() or not made:
            name = f"table {len(made)}"
            await self._insist(
                "POST", "/v1/tables", {"name": name}, token, {201}, key=f"key-{len(made)}"
            )
            made.append(name)
            await asyncio.sleep(0.05)
        return made

    async def _insist(
        self,
        method: str,
        path: str,
        body: Any,
        token: str | None,
        wanted: set[int],
        *,
        key: str = "",
    ) -> Any:
        give_up_s = time.monotonic() + 120
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if key:
            headers["Idempotency-Key"] = key
        last: object = None
        while time.monotonic() < give_up_s:
            try:
                status, answer, answered = await asyncio.to_thread(
                    _exchange, self._scene.server.port, method, path, body, headers
                )
            except (OSError, http.client.HTTPException) as error:
                last = error
            else:
                if status in wanted:
                    return answer
                last = (status, answer)
                code = answer.get("code")
                assert status == 503 or code == "idempotency_in_progress", last
                assert status != 503 or "Retry-After" in answered or "retry-after" in answered, last
            await asyncio.sleep(0.1)
        raise AssertionError(f"{method} {path} is not answered: {last}")

    # -- afterwards ---------------------------------------------------------------------------

    async def _until_all_ended(self, deadline_s: float = 180.0) -> None:
        give_up_s = time.monotonic() + deadline_s
        while True:
            try:
                left = await self._arena.rows(
                    "SELECT id, status, hands_done, hands_target, epoch, recoveries FROM runs"
                    " WHERE status IN ('queued', 'running')"
                )
            except DBAPIError:
                left = ["the database is not back"]
            if not left:
                return
            assert time.monotonic() < give_up_s, f"{len(left)} runs never ended: {left[:3]}"
            await asyncio.sleep(0.2)

    async def _check(self, names: list[str]) -> None:
        arena = self._arena
        ended = await arena.rows(
            "SELECT coalesce(failure_code, status), count(*) FROM runs GROUP BY 1 ORDER BY 1"
        )
        self.ended = {row[0]: row[1] for row in ended}
        assert not await arena.rows(
            "SELECT 1 FROM runs WHERE status = 'failed' AND coalesce(failure_detail, '') = ''"
        ), "a run failed without a reason"
        checked = [one async for one in check_all(arena.database)]
        # An order that was made although its answer was lost is one more.
        assert len(checked) >= self._orders
        lines = [finding.line() for one in checked for finding in one.findings]
        assert not lines, "\n".join(lines)
        # What was ordered under one key exists once, whatever became of the answers.
        made = await arena.rows("SELECT name FROM tables WHERE name LIKE 'table %' ORDER BY id")
        assert [row[0] for row in made] == names
        scene = self._scene
        scene.note_sandboxes()
        for process in scene.workers:
            children = process.children()
            process.signal(signal.SIGTERM)
            code = await process.wait(60)
            assert code == 0, f"a worker ended with {code}: {process.events()[-8:]}"
            for child in children:
                await gone(child)
        scene.server.process.terminate()
        await asyncio.to_thread(scene.server.process.wait, 30)
        assert await asyncio.to_thread(scene.host.end) == 0
        assert not await arena.rows(
            "SELECT id, status FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        ), "a job is left over"
        assert await scene.left_over() == []


def _exchange(
    port: int, method: str, path: str, body: Any, headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, json.dumps(body), headers)
        reply = connection.getresponse()
        raw = reply.read()
        return reply.status, json.loads(raw) if raw else None, dict(reply.getheaders())
    finally:
        connection.close()
