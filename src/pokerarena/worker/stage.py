"""Where runs are played: everything that the runs of one player process share.

Owns claim → play → settle of each run. A run's trouble stays its own; what is recorded of it is the
committer's, and what keeps it alive meanwhile is the upkeep's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, TypeVar
from uuid import UUID

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from pokerarena import metrics
from pokerarena.db import Database
from pokerarena.egress.watch import EgressWatch
from pokerarena.errors import ArenaError
from pokerarena.ids import IdKind, id_text
from pokerarena.outage import outage
from pokerarena.runs import claim as claims
from pokerarena.runs.claim import Claim, Settlement
from pokerarena.runs.conduct import note_conduct
from pokerarena.runs.formats import Position, RunRules
from pokerarena.runs.hosted import HostedSeat, host_pool, keep_reports
from pokerarena.runs.models import RunStatus
from pokerarena.runs.play import play_run
from pokerarena.runs.players import Lineup, SeatBuilder, load_versions
from pokerarena.runs.seams import (
    Clock,
    Crowded,
    Halt,
    RunFault,
    RunOutcome,
    RunSpec,
    Seating,
    VoidReason,
)
from pokerarena.runs.service import SEED_PURPOSE
from pokerarena.runs.totals import SeatTotals
from pokerarena.sandbox.runtime import RuntimeName
from pokerarena.sealing import open_sealer
from pokerarena.settings import Settings
from pokerarena.telemetry import bound_contextvars, get_logger
from pokerarena.tracing import span, trace_id_of
from pokerarena.worker.checks import Examiners, check_version
from pokerarena.worker.committer import GroupCommitter, Refused
from pokerarena.worker.runlog import FenceLost, RunLog, RunOver, StoreLost
from pokerarena.worker.upkeep import SERVICE_RETRIES, Playing, Upkeep

log = get_logger("worker.stage")

IN_FLIGHT_MAX: Final = 64
# Until a run that found too many others waiting for an agent-host is tried again.
CROWDED_PAUSE_S: Final = (5.0, 15.0)

T = TypeVar("T")


class End(StrEnum):
    """What became of a run that this process had claimed."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    HANDED_BACK = "handed_back"
    FENCED = "fenced"
    ABANDONED = "abandoned"


class Stage:
    """The runs that this process plays now."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self.name = name
        self._settings = settings
        self._sealer = open_sealer(settings)
        self._database = Database(settings, application_name=f"pokerarena player {name}")
        self._committer = GroupCommitter(settings, name=name)
        self._hosts = host_pool(settings, self._database, f"player {name}")
        self._egress = EgressWatch(settings, self._database)
        self._builder = SeatBuilder(settings, self._sealer, self._egress, self._hosts)
        self._playing: dict[UUID, Playing] = {}
        self._halt: Halt | None = None
        self._upkeep = Upkeep(
            settings, self._database, self._committer, self._playing, name=name,
            also={"egress": self._egress.serve},
        )  # fmt: skip

    @property
    def playing(self) -> int:
        return len(self._playing)

    async def serve(self) -> None:
        """Keep the runs alive while they are played, until cancelled."""
        await self._upkeep.serve()

    async def close(self) -> None:
        """Close every connection; for the end of the process."""
        if self._hosts is not None:
            self._hosts.close()
        await self._builder.close()
        await self._database.close()

    def drain(self) -> None:
        """Finish the hands in progress, hand every run back, and take no other."""
        self._halt = Halt.DRAIN
        for playing in self._playing.values():
            playing.control.ask(Halt.DRAIN)

    def cut(self) -> None:
        """End the hands that draining still waits for; their deals become void."""
        for playing in self._playing.values():
            if not playing.cut.done():
                playing.cut.set_result(None)

    async def check(self, version_id: UUID) -> None:
        """Check a version that waits for it; raises when that comes to no verdict."""
        await check_version(
            self._database,
            Examiners(self._hosts, self._builder, RuntimeName(self._settings.sandbox_runtimes[0])),
            version_id,
            limit_s=self._settings.suspension_check_s,
        )

    # -- one run ------------------------------------------------------------------------------

    async def claim(self, run_id: UUID) -> Claim | None:
        """Take a run that nobody holds; None when there is nothing to take."""
        began_s = time.monotonic()
        async with self._database.unit_of_work() as session:
            claim = await claims.claim(
                session,
                run_id,
                claimed_by=self.name,
                lease_s=self._settings.run_lease_s,
                max_hands_ahead=self._settings.hands_ahead_max,
            )
        if claim is None:
            return None
        run = claim.run
        with span(
            "run.claim",
            parent=run.trace_context,
            began_s_ago=time.monotonic() - began_s,
            run_id=id_text(IdKind.RUN, run.id),
            epoch=claim.epoch,
            job_id=run.job_id,
            deals_voided=claim.voided_deals,
        ):
            pass
        run_log = RunLog(
            self._committer,
            run_id=run_id,
            epoch=claim.epoch,
            deals_done=run.deals_done,
            deals_reserved=run.deals_reserved,
            hands_ahead_max=self._settings.hands_ahead_max,
            lease_until_s=began_s + self._settings.run_lease_s,
            monotonic=time.monotonic,
        )
        playing = Playing(claim, run_log)
        if run.stop_requested_at is not None:
            playing.control.ask(Halt.STOP)
        elif self._halt is not None:
            playing.control.ask(self._halt)
        self._playing[run_id] = playing
        metrics.RUNS_CLAIMED.number().add()
        return claim

    async def play(self, claim: Claim) -> End:
        """Play a claimed run, and leave it in a state that says what became of it."""
        run = claim.run
        run_text = id_text(IdKind.RUN, run.id)
        with (
            bound_contextvars(
                run_id=run_text,
                table_id=id_text(IdKind.TABLE, run.table_id),
                epoch=claim.epoch,
                job_id=run.job_id,
                request_id=run.request_id,
                trace_id=trace_id_of(run.trace_context),
            ),
            span("run", parent=run.trace_context, run_id=run_text, epoch=claim.epoch),
        ):
            log.info(
                "run_claimed",
                hands_done=run.hands_done,
                hands_target=run.hands_target,
                deals_voided=claim.voided_deals,
                resumed=claim.resumed,
            )
            playing = self._playing[run.id]
            end = End.ABANDONED
            try:
                end = await self._play(playing)
                return end
            finally:
                metrics.RUNS_LEFT.number(end.value).add()
                if self._playing.get(run.id) is playing:
                    del self._playing[run.id]

    async def _play(self, playing: Playing) -> End:
        began_s = time.monotonic()
        try:
            spec, lineup = await self._prepare(playing.claim)
            outcome = await self._play_until_over(playing, spec, lineup)
        except Crowded:
            return await self._wait_in_queue(playing)
        except RunFault as fault:
            return await self._fail(playing, fault)
        except ArenaError as error:
            return await self._fail(playing, RunFault(error.code, error.message))
        except Refused as refused:
            return await self._fail(playing, refused.fault)
        except FenceLost:
            return End.FENCED
        except StoreLost as lost:
            log.error("run_abandoned", why=str(lost))
            return End.ABANDONED
        except Exception as error:
            if isinstance(error, SQLAlchemyError | psycopg.Error) and outage(error) is not None:
                # Nobody's fault, and it passes: the reaper finds the run when its lease is over.
                log.error("run_abandoned", why=f"{type(error).__name__}: {error}"[:300])
                return End.ABANDONED
            log.exception("run_crashed")
            return await self._fail(
                playing, RunFault("internal_error", f"{type(error).__name__}: {error}")
            )
        finally:
            log.info(
                "run_left",
                hands_stored=playing.log.hands_stored,
                duration_s=round(time.monotonic() - began_s, 3),
            )
        return await self._settle(playing, outcome, spec.seed)

    async def _prepare(self, claim: Claim) -> tuple[RunSpec, Lineup]:
        run = claim.run
        async with self._database.session() as session:
            versions = await load_versions(session, claim.seats)
            await self._egress.learn(session, versions)
        rules = RunRules.from_json(run.rules)
        seed = await self._sealer.open(claim.seed_sealed, purpose=SEED_PURPOSE, owner=run.id.bytes)
        lineup = await self._builder.seat(
            run.id, claim.seats, versions, rules, seed, run.sandbox_runtime
        )
        waits = any(version.house_name is None for version in versions.values())
        spec = RunSpec(
            run_id=run.id,
            table_id=run.table_id,
            seed=seed,
            rules=rules,
            hands_target=run.hands_target,
            position=Position.from_json(run.position),
            totals={
                seat.seat_no: SeatTotals(
                    seat.net,
                    seat.units,
                    seat.unit_sum,
                    seat.unit_sum_squares,
                    seat.hands,
                    seat.decisions,
                    seat.rebuys,
                    seat.time_bank_ms,
                    seat.fallbacks,
                )
                for seat in claim.seats
            },
            hands_done=run.hands_done,
            deals_done=run.deals_done,
            in_flight_max=IN_FLIGHT_MAX if waits else 1,
        )
        return spec, lineup

    async def _play_until_over(self, playing: Playing, spec: RunSpec, lineup: Lineup) -> RunOutcome:
        """Play; end at once when the log is over, even in the middle of a hand."""
        task = asyncio.ensure_future(
            play_run(spec, lineup.seating, playing.log, playing.control, Clock(), lineup.lodging)
        )
        try:
            await asyncio.wait(
                (task, playing.log.over, playing.cut), return_when=asyncio.FIRST_COMPLETED
            )
            if playing.log.over.done() and not task.done():
                raise playing.log.over.result()
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            if lineup.lodging is not None:
                lineup.lodging.close()
            await self._keep_reports(playing.claim, lineup.seating)
        log.warning("hands_cut", why="draining has no more time for the hands in progress")
        await playing.log.flush()
        return RunOutcome("drained", spec.hands_done + playing.log.hands_stored, spec.totals)

    async def _keep_reports(self, claim: Claim, seating: dict[int, Seating]) -> None:
        """What the sandboxes said, for the agents' owners; play never fails for want of it."""
        reports = {
            seat_no: player.report()
            for seat_no, taken in seating.items()
            if isinstance(player := taken.player.player, HostedSeat)
        }
        if not reports:
            return
        try:
            async with self._database.unit_of_work() as session:
                await keep_reports(session, claim.run.id, claim.epoch, reports)
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            log.warning("sandbox_reports_lost", why=type(error).__name__)

    async def _settle(self, playing: Playing, outcome: RunOutcome, seed: bytes) -> End:
        run_id, epoch = playing.claim.run.id, playing.claim.epoch
        if outcome.end == "drained":
            return await self._give_back(playing, delay_s=0.0)
        settlement = playing.log.settlement(VoidReason.STOPPED)
        status = RunStatus(outcome.end)
        mine = await self._persist(
            lambda: self._finish(run_id, epoch, settlement, status, seed), "finish"
        )
        return self._left(mine, End(outcome.end), hands_done=outcome.hands_done)

    def _left(self, mine: bool | None, end: End, *, hands_done: int) -> End:
        if mine is None:
            return End.ABANDONED
        if not mine:
            log.warning("fence_lost", hands_dropped=0)
            return End.FENCED
        log.info("run_finished", status=end.value, hands_done=hands_done)
        return end

    async def _wait_in_queue(self, playing: Playing) -> End:
        """Too many runs wait here for an agent-host: another worker may have room."""
        delay_s = random.uniform(*CROWDED_PAUSE_S)  # noqa: S311 - jitter
        log.info("run_waits_in_queue", delay_s=round(delay_s, 1))
        return await self._give_back(playing, delay_s=delay_s)

    async def _give_back(self, playing: Playing, *, delay_s: float) -> End:
        run_id, epoch = playing.claim.run.id, playing.claim.epoch
        settlement = playing.log.settlement(VoidReason.DRAINED)
        mine = await self._persist(
            lambda: self._hand_back(run_id, epoch, settlement, delay_s), "hand_back"
        )
        hands_done = playing.claim.run.hands_done + playing.log.hands_stored
        return self._left(mine, End.HANDED_BACK, hands_done=hands_done)

    async def _fail(self, playing: Playing, fault: RunFault) -> End:
        log.error("run_failed", code=fault.code, detail=fault.detail)
        if not playing.log.over.done():
            try:
                async with asyncio.timeout(self._settings.run_lease_s):
                    await playing.log.flush()
            except (RunOver, TimeoutError):
                # What could not be stored becomes void.
                log.warning("hands_dropped_at_failure")
        settlement = playing.log.settlement(VoidReason.FAILED)
        run_id, epoch = playing.claim.run.id, playing.claim.epoch
        mine = await self._persist(
            lambda: self._mark_failed(run_id, epoch, settlement, fault), "fail"
        )
        if mine is None:
            return End.ABANDONED
        return End.FAILED if mine else End.FENCED

    async def _hand_back(
        self, run_id: UUID, epoch: int, settlement: Settlement, delay_s: float
    ) -> bool:
        async with self._database.unit_of_work() as session:
            return await claims.hand_back(session, run_id, epoch, settlement, delay_s=delay_s)

    async def _finish(
        self, run_id: UUID, epoch: int, settlement: Settlement, status: RunStatus, seed: bytes
    ) -> bool:
        async with self._database.unit_of_work() as session:
            if not await claims.finish(
                session, run_id, epoch, settlement, status=status, seed=seed
            ):
                return False
            await note_conduct(session, run_id, self._settings)
            return True

    async def _mark_failed(
        self, run_id: UUID, epoch: int, settlement: Settlement, fault: RunFault
    ) -> bool:
        async with self._database.unit_of_work() as session:
            return await claims.fail(
                session, run_id, epoch, settlement, code=fault.code, detail=fault.detail
            )

    async def _persist(self, step: Callable[[], Awaitable[T]], what: str) -> T | None:
        """Do a last step of a run, again while the database is away; None when it stays away.

        A step whose commit arrived although we never heard of it finds its epoch gone, and is
        reported as fenced: the state in the database is right all the same.
        """
        give_up_s = time.monotonic() + self._settings.commit_retry_s
        failures = 0
        while True:
            try:
                return await step()
            except (SQLAlchemyError, psycopg.Error, OSError) as error:
                if time.monotonic() >= give_up_s:
                    log.error("settle_given_up", step=what, why=type(error).__name__)
                    return None
                log.warning("settle_retry", step=what, why=type(error).__name__)
                failures += 1
                await asyncio.sleep(SERVICE_RETRIES.pause_s(failures) or 0)
