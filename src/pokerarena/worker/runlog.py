"""What one run has played and not stored yet: the recorder that stands between play and commits.

Owns the bounds: how many hands may be ahead of the store, how many deals are reserved, and that no
deal begins when the lease is over. It never talks to the database; the committer takes batches from
here and says what became of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from pokerarena.runs.claim import FIRST_RESERVATION, Settlement
from pokerarena.runs.ledger import Batch
from pokerarena.runs.seams import Moment, PlayedUnit, VoidReason


class RunOver(Exception):
    """This process no longer plays the run; whoever waits for the log must stop."""


class FenceLost(RunOver):
    """Another claim has raised the epoch: nothing of this one is ever stored again."""


class StoreLost(RunOver):
    """The database could not be reached for too long; the reaper will find the run."""


class Committer(Protocol):
    """Whoever takes batches from a log."""

    def poke(self, log: RunLog, *, urgent: bool) -> None: ...


class RunLog:
    """A `runs.play.Recorder` whose memory is the database."""

    def __init__(
        self,
        committer: Committer,
        *,
        run_id: UUID,
        epoch: int,
        deals_done: int,
        deals_reserved: int,
        hands_ahead_max: int,
        lease_until_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.over: asyncio.Future[RunOver] = asyncio.get_running_loop().create_future()
        self.watched = False
        self.moment: Moment | None = None
        self.hands_stored = 0
        self._committer = committer
        self._monotonic = monotonic
        self._lease_until_s = lease_until_s
        self._begun = deals_done
        self._begun_at_last_batch = deals_done
        self._reserved = deals_reserved
        self._window = FIRST_RESERVATION
        self._hands_ahead_max = hands_ahead_max
        self._open: set[int] = set()
        self._units: list[PlayedUnit] = []
        self._voids: list[tuple[int, VoidReason]] = []
        self._taken: Batch | None = None
        self._hands_ahead = 0
        self._changed = asyncio.Event()

    # -- the recorder -------------------------------------------------------------------------

    async def reserve(self, deal_no: int) -> None:
        """Begin a deal once it is reserved, and only while the lease lasts."""
        self._begun = max(self._begun, deal_no)
        self._open.add(deal_no)
        waited = False
        while True:
            self._raise_if_over()
            if deal_no <= self._reserved and self._monotonic() < self._lease_until_s:
                return
            if deal_no > self._reserved:
                if not waited:
                    self._window = min(2 * self._window, self._hands_ahead_max)
                    waited = True
                self._committer.poke(self, urgent=True)
            await self._changed.wait()

    async def record(self, unit: PlayedUnit) -> None:
        self._raise_if_over()
        self._open.discard(unit.deal_no)
        self._units.append(unit)
        self._hands_ahead += len(unit.hands)
        full = self._hands_ahead >= self._hands_ahead_max
        self._committer.poke(self, urgent=full)
        while self._hands_ahead >= self._hands_ahead_max:
            await self._changed.wait()
            self._raise_if_over()

    async def void(self, deal_no: int, reason: VoidReason) -> None:
        self._raise_if_over()
        self._open.discard(deal_no)
        self._voids.append((deal_no, reason))
        self._committer.poke(self, urgent=False)

    async def flush(self) -> None:
        while True:
            self._raise_if_over()
            if not self._units and not self._voids and self._taken is None:
                return
            if self._units or self._voids:
                self._committer.poke(self, urgent=True)
            await self._changed.wait()

    def show(self, moment: Moment) -> None:
        self.moment = moment

    # -- the committer ------------------------------------------------------------------------

    @property
    def hands_waiting(self) -> int:
        """Hands that no batch has taken yet."""
        return self._hands_ahead - (self._taken.hands if self._taken is not None else 0)

    def take(self) -> Batch | None:
        """Everything that waits, as one batch; None when there is nothing to store."""
        if self.over.done():
            # Its last batch may never have been settled: fenced off, or given up with the store.
            return None
        assert self._taken is None, "the batch before is still under way"
        if not self._units and not self._voids and self._begun <= self._reserved:
            return None
        if self._begun - self._begun_at_last_batch < self._window // 4:
            self._window = max(FIRST_RESERVATION, self._window // 2)
        self._begun_at_last_batch = self._begun
        batch = Batch(
            self.run_id,
            self.epoch,
            tuple(self._units),
            tuple(self._voids),
            deals_done=min(self._open) - 1 if self._open else self._begun,
            reserve_to=max(self._reserved, self._begun + self._window),
        )
        self._units.clear()
        self._voids.clear()
        self._taken = batch
        return batch

    def stored(self, lease_until_s: float) -> None:
        """The batch is in the database, and the lease renewed with it."""
        batch = self._taken
        assert batch is not None, "only a batch that was taken can be stored"
        self._taken = None
        self._reserved = max(self._reserved, batch.reserve_to)
        self._hands_ahead -= batch.hands
        self.hands_stored += batch.hands
        self.renewed(lease_until_s)

    def put_back(self) -> None:
        """The batch could not be stored this time; it comes first the next time."""
        batch = self._taken
        assert batch is not None, "only a batch that was taken can be put back"
        self._taken = None
        self._units[:0] = batch.units
        self._voids[:0] = batch.voids

    def renewed(self, lease_until_s: float) -> None:
        self._lease_until_s = max(self._lease_until_s, lease_until_s)
        self._wake()

    def end(self, reason: RunOver) -> None:
        """Nothing of this log will be stored any more."""
        if not self.over.done():
            self.over.set_result(reason)
        self._wake()

    def settlement(self, reason: VoidReason) -> Settlement:
        """What is left to settle when play has ended and everything recorded is stored."""
        unsettled = {*self._open, *[deal_no for deal_no, _ in self._voids]}
        unsettled.update(unit.deal_no for unit in self._units)
        return Settlement(self._begun, sorted(unsettled), reason)

    def _raise_if_over(self) -> None:
        if self.over.done():
            raise self.over.result()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
