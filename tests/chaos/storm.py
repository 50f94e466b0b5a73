"""A storm over real processes: faults at random moments while runs are played and ordered.

Owns the processes (database, workers, API), the faults, and what must hold afterwards. The seed
fixes which fault comes when; what it meets is up to the machine, and must not matter.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy.exc import DBAPIError

from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.runs.soundness import check_all
from tests.api.test_server import Server
from tests.arena import open_arena
from tests.database_server import UNSAFE_BUT_FAST, new_directory
from tests.worker.workers import SLOW_PLAYER, WorkerProcess, worker

WORKERS: Final = 2
FORMATS: Final = ("cash", "reset", "duplicate", "freezeout")
# A commit that was told of must survive the database's immediate stop.
DURABLE: Final = {**UNSAFE_BUT_FAST, "synchronous_commit": "on"}


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
        self._workers: list[WorkerProcess] = []
        self.met: dict[str, int] = {}
        self.ended: dict[str, int] = {}

    async def blow(self) -> None:
        with new_directory() as directory, ExitStack() as stack:
            self._stack, self._directory = stack, directory
            self._postgres = stack.enter_context(
                EmbeddedPostgres(directory / "pg", settings=DURABLE)
            )
            self._postgres.ensure_database("pokerarena")
            url = self._postgres.url()
            migrate.upgrade(url)
            async with open_arena(
                url,
                run_recoveries_max=50,
                commit_retry_s=30,
                runs_active_per_user_max=1000,
                run_lease_s=3.0,
                run_lease_renew_s=0.7,
            ) as arena:
                self._arena = arena
                await self._play_through()

    async def _play_through(self) -> None:
        self._server = self._start_api()
        for number in range(self._runs):
            kind = FORMATS[number % len(FORMATS)]
            # Freezeout ends when it ends; two seats make every number of hands a whole one.
            lineup = ["tight", "random"] if number % 2 else ["tight", "random", "caller"]
            hands = self._hands * len(lineup)
            await self._arena.order(lineup, hands, format=kind)
        for _ in range(WORKERS):
            self._workers.append(self._start_worker())
        orders = asyncio.create_task(self._order_through_the_api())
        faults = (
            self._kill_worker,
            self._kill_player,
            self._halt_worker,
            self._stop_database,
            self._cut_connections,
            self._kill_api,
        )
        for number in range(self._faults):
            await asyncio.sleep(self._chance.uniform(0.1, 0.8))
            # Each kind comes, whatever the seed; the rest is chance.
            fault = faults[number] if number < len(faults) else self._chance.choice(faults)
            name = fault.__name__.removeprefix("_")
            self._tell(f"{number + 1}/{self._faults} {name}")
            await fault()
            self.met[name] = self.met.get(name, 0) + 1
        self._ordering_over.set()
        keys = await orders
        await self._until_all_ended()
        await self._check(keys)

    # -- faults -------------------------------------------------------------------------------

    async def _kill_worker(self) -> None:
        at = self._chance.randrange(len(self._workers))
        victim = self._workers[at]
        children = victim.children()
        victim.kill()
        self._workers[at] = self._start_worker()
        for child in children:
            await _gone(child)

    async def _kill_player(self) -> None:
        victim = self._chance.choice(self._workers)
        for child in victim.children():
            os.kill(child, signal.SIGKILL)

    async def _halt_worker(self) -> None:
        """Longer than a lease, or shorter: it goes on as if nothing had been."""
        victim = self._chance.choice(self._workers)
        victim.signal_group(signal.SIGSTOP)
        await asyncio.sleep(self._chance.choice((0.2, 1.0, 4.0)))
        victim.signal_group(signal.SIGCONT)

    async def _stop_database(self) -> None:
        pid = self._postgres.pid
        assert pid is not None
        # SIGQUIT: immediate stop, as a crash; the next start recovers.
        os.kill(pid, signal.SIGQUIT)
        await asyncio.to_thread(self._postgres.stop)
        await asyncio.sleep(self._chance.uniform(0, 1.5))
        await asyncio.to_thread(self._postgres.start)

    async def _cut_connections(self) -> None:
        with psycopg.connect(self._postgres.conninfo(), autocommit=True) as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pokerarena%'"
                " AND pid <> pg_backend_pid() ORDER BY pid"
            ).fetchall()
            for (pid,) in self._chance.sample(rows, k=(len(rows) + 1) // 2):
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))

    async def _kill_api(self) -> None:
        self._server.process.kill()
        await asyncio.to_thread(self._server.process.wait)
        self._server = await asyncio.to_thread(self._start_api)

    # -- processes ----------------------------------------------------------------------------

    def _start_worker(self) -> WorkerProcess:
        return self._stack.enter_context(
            worker(self._arena.settings, self._directory, player=SLOW_PLAYER, HOUSE_DELAY_S="0.003")
        )

    def _start_api(self) -> Server:
        server = Server(
            self._postgres.url(),
            POKERARENA_LOG_LEVEL="ERROR",
            POKERARENA_TABLES_PER_USER_MAX="1000000",
        )

        def end() -> None:
            server.process.kill()
            server.process.communicate()

        self._stack.callback(end)
        return server

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
                    _exchange, self._server.port, method, path, body, headers
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

    async def _until_all_ended(self, deadline_s: float = 90.0) -> None:
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
        assert len(checked) == self._runs
        lines = [finding.line() for one in checked for finding in one.findings]
        assert not lines, "\n".join(lines)
        # What was ordered under one key exists once, whatever became of the answers.
        made = await arena.rows("SELECT name FROM tables WHERE name LIKE 'table %' ORDER BY id")
        assert [row[0] for row in made] == names
        for process in self._workers:
            children = process.children()
            process.signal(signal.SIGTERM)
            code = await process.wait(60)
            assert code == 0, f"a worker ended with {code}: {process.events()[-8:]}"
            for child in children:
                await _gone(child)
        self._server.process.terminate()
        await asyncio.to_thread(self._server.process.wait, 30)
        assert not await arena.rows(
            "SELECT id, status FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        ), "a job is left over"
        assert not await arena.rows(
            "SELECT application_name FROM pg_stat_activity"
            " WHERE application_name LIKE 'pokerarena%'"
        ), "a connection is left over"


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


async def _gone(pid: int, deadline_s: float = 30.0) -> None:
    give_up_s = time.monotonic() + deadline_s
    stat = Path(f"/proc/{pid}/stat")
    while True:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        assert time.monotonic() < give_up_s, f"process {pid} is left over"
        await asyncio.sleep(0.02)
