"""Group commit: one transaction for the finished hands of all runs of a process.

Owns one connection and the rhythm: a group is committed when it has `group_commit_hands`, after
`group_commit_ms`, or at once when somebody waits for it; while one is under way the next gathers.
A lost connection is retried for a bounded time, and repeating is harmless (see `runs.ledger`).
A run that was fenced off, or whose own data is refused, never takes the others with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from pokerarena import metrics
from pokerarena.db import connect_args
from pokerarena.ids import IdKind, id_text
from pokerarena.outage import outage
from pokerarena.retrying import RetryPolicy
from pokerarena.runs.ledger import Batch, Verdict, store
from pokerarena.runs.seams import RunFault
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger
from pokerarena.worker.runlog import FenceLost, RunLog, RunOver, StoreLost

log = get_logger("worker.committer")

# Its end is a moment, not a number: `commit_retry_s`.
COMMIT_RETRIES: Final = RetryPolicy(base_s=0.05, cap_s=2.0)
BUSY_PAUSE_S: Final = 0.02
# Beyond the server's own statement timeout: a connection that is only half open.
SILENCE_FACTOR: Final = 2.0


class Refused(RunOver):
    """The database refuses what this run wants to store: a fault of ours, not of the network."""

    def __init__(self, fault: RunFault) -> None:
        super().__init__(fault.detail)
        self.fault = fault


class GroupCommitter:
    """Takes batches from the logs that have something to store, and stores them together."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._conninfo = psycopg.conninfo.make_conninfo(
            libpq_url(settings),
            application_name=commits_name(name),
            **connect_args(settings),
        )
        self._connection: AsyncConnection[Any] | None = None
        self._dirty: dict[RunLog, None] = {}
        self._something = asyncio.Event()
        self._enough = asyncio.Event()
        self.stop_wanted: asyncio.Queue[RunLog] = asyncio.Queue()

    def poke(self, run_log: RunLog, *, urgent: bool) -> None:
        """This log has something to store; `urgent` when somebody waits for it."""
        self._dirty[run_log] = None
        self._something.set()
        full = self._settings.group_commit_hands
        if urgent or len(self._dirty) >= full or run_log.hands_waiting >= full:
            self._enough.set()

    async def run(self) -> None:
        """Commit groups until cancelled."""
        try:
            while True:
                await self._something.wait()
                await self._gather()
                self._something.clear()
                self._enough.clear()
                group = {}
                for run_log in self._dirty:
                    batch = run_log.take()
                    if batch is not None:
                        group[run_log] = batch
                self._dirty = {}
                if group:
                    await self._commit(group)
        finally:
            await self._disconnect()

    async def _gather(self) -> None:
        if self._settings.group_commit_ms and not self._enough.is_set():
            try:
                async with asyncio.timeout(self._settings.group_commit_ms / 1000):
                    await self._enough.wait()
            except TimeoutError:
                pass

    async def _commit(self, group: dict[RunLog, Batch]) -> None:
        began_s = time.monotonic()
        try:
            verdict = await self._store(list(group.values()))
        except StoreLost as lost:
            for run_log in group:
                run_log.end(lost)
            return
        except Exception as error:  # whatever it is, it must not end the commits of other runs
            if len(group) > 1:
                # One of them is refused: find out which, so that the others go on.
                log.warning("commit_split", runs=len(group), why=_first_line(error))
                for run_log, batch in group.items():
                    await self._commit({run_log: batch})
                return
            self._refuse(next(iter(group)), error)
            return
        # The lease is as long as the database says; counted from before the commit it is shorter.
        lease_until_s = began_s + self._settings.run_lease_s
        metrics.COMMIT_SECONDS.distribution().observe(time.monotonic() - began_s)
        # Those of a run whose row somebody else has locked are put back, and come again.
        stored = (batch.hands for run, batch in group.items() if run.run_id in verdict.stored)
        metrics.COMMIT_HANDS.distribution().observe(sum(stored))
        for run_log, batch in group.items():
            if run_log.run_id in verdict.stored:
                metrics.HANDS_STORED.number().add(batch.hands)
                run_log.stored(lease_until_s)
                if verdict.stored[run_log.run_id]:
                    self.stop_wanted.put_nowait(run_log)
            elif run_log.run_id in verdict.fenced:
                log.warning(
                    "fence_lost",
                    run_id=id_text(IdKind.RUN, run_log.run_id),
                    epoch=run_log.epoch,
                    hands_dropped=batch.hands,
                )
                run_log.end(FenceLost())
            else:
                run_log.put_back()
                self.poke(run_log, urgent=False)
        if verdict.busy:
            await asyncio.sleep(BUSY_PAUSE_S)

    def _refuse(self, run_log: RunLog, error: Exception) -> None:
        log.error(
            "commit_refused",
            run_id=id_text(IdKind.RUN, run_log.run_id),
            epoch=run_log.epoch,
            why=f"{type(error).__name__}: {_first_line(error)}",
        )
        run_log.end(
            Refused(RunFault("store_refused", f"{type(error).__name__}: {_first_line(error)}"))
        )

    async def _store(self, batches: Sequence[Batch]) -> Verdict:
        """One transaction, tried again while it is the connection that fails."""
        give_up_s = time.monotonic() + self._settings.commit_retry_s
        attempt = 0
        while True:
            try:
                silence_s = SILENCE_FACTOR * self._settings.database_statement_timeout_ms / 1000
                async with asyncio.timeout(silence_s):
                    connection = await self._connected()
                    async with connection.transaction():
                        verdict = await store(
                            connection, batches, lease_s=self._settings.run_lease_s
                        )
                if attempt:
                    log.info("commit_recovered", attempts=attempt + 1, runs=len(batches))
                return verdict
            except Exception as error:
                trouble = outage(error)
                if trouble is None:
                    raise
                await self._disconnect()
                attempt += 1
                metrics.COMMIT_FAILURES.number().add()
                log.warning(
                    "commit_failed",
                    attempt=attempt,
                    runs=[id_text(IdKind.RUN, batch.run_id) for batch in batches[:5]],
                    hands=sum(batch.hands for batch in batches),
                    outage=trouble.value,
                    why=f"{type(error).__name__}: {_first_line(error)}",
                )
                if time.monotonic() >= give_up_s:
                    raise StoreLost(_first_line(error)) from error
                await asyncio.sleep(COMMIT_RETRIES.pause_s(attempt) or 0)

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(self._conninfo, autocommit=True)
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def libpq_url(settings: Settings) -> str:
    """The database's URL as libpq takes it: without the name of the driver."""
    return settings.database_url.get_secret_value().replace(
        "postgresql+psycopg://", "postgresql://", 1
    )


def commits_name(player: str) -> str:
    """The name under which a player process commits; PostgreSQL keeps 63 bytes of it.

    The reaper ends the transaction of a process that was halted in the middle of it, and finds it
    by this name.
    """
    return f"pokerarena commits {blake2b(player.encode(), digest_size=12).hexdigest()}"


def _first_line(error: BaseException) -> str:
    """What happened, without the detail lines that may repeat data."""
    return str(error).split("\n", 1)[0][:300]
