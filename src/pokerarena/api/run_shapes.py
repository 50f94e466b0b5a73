"""Runs as they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pokerarena.api.shapes import AgentId, RunId, Shown, TableId, UserId, VersionId
from pokerarena.runs.models import Run, RunSeat, RunStatus
from pokerarena.runs.viewers import SeenRun
from pokerarena.stats.results import Estimate, SeatResult, SeatTotals, seat_result
from pokerarena.tables.models import Format, RevealPolicy, Visibility


class LineupSeat(Shown):
    """Who plays in a seat of a run; the version never changes during it."""

    seat_no: int
    agent_id: AgentId
    agent_name: str
    version_id: VersionId
    version_number: int
    owner_id: UserId

    @classmethod
    def of(cls, seat: RunSeat) -> LineupSeat:
        return cls.model_validate(seat, from_attributes=True)


class RunSummary(Shown):
    """A run."""

    id: RunId
    table_id: TableId
    created_by: UserId
    status: RunStatus
    failure_code: str | None
    hands_target: int
    hands_done: int
    visibility: Visibility
    reveal_policy: RevealPolicy
    rules: dict[str, Any]
    sandbox_runtime: str | None
    seed_sha256: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    # Its hands are, or are about to be, in an archive: it cannot be resumed.
    archived: bool

    @classmethod
    def of(cls, run: Run) -> RunSummary:
        return cls(**_run_fields(run))


class RunShown(RunSummary):
    """A run with its lineup. Why it failed in detail is for the table's owner and operators."""

    failure_detail: str | None
    lineup: list[LineupSeat]
    own_seats: list[int]

    @classmethod
    def of_seen(cls, seen: SeenRun, *, inside: bool) -> RunShown:
        return cls(
            **_run_fields(seen.run),
            failure_detail=seen.run.failure_detail if inside else None,
            lineup=[LineupSeat.of(seat) for seat in seen.lineup],
            own_seats=sorted(seen.sight.own_seats),
        )


def _run_fields(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "table_id": run.table_id,
        "created_by": run.created_by,
        "status": RunStatus(run.status),
        "failure_code": run.failure_code,
        "hands_target": run.hands_target,
        "hands_done": run.hands_done,
        "visibility": Visibility(run.visibility),
        "reveal_policy": RevealPolicy(run.reveal_policy),
        "rules": run.rules,
        "sandbox_runtime": run.sandbox_runtime,
        "seed_sha256": run.seed_sha256.hex(),
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "archived": run.archive_id is not None,
    }


class RateShown(Shown):
    """A rate with its 95 % interval (Student's t); null where nothing can be said."""

    mean: float | None
    ci95: tuple[float, float] | None

    @classmethod
    def of(cls, estimate: Estimate) -> RateShown:
        return cls(mean=estimate.mean, ci95=estimate.interval())


class SeatResultShown(LineupSeat):
    """A seat's result over all complete hands."""

    hands: int
    net: int
    units: int
    chips_per_unit: RateShown
    bb_per_100: RateShown
    decisions: int
    rebuys: int
    fallbacks: dict[str, int]


class ResultsShown(Shown):
    """The results of a run so far.

    ``unit`` is what counts as independent: a hand, or in ``duplicate`` a deal with all its
    rotations. ``voids`` counts deals that came to nothing, by reason.
    """

    run_id: RunId
    status: RunStatus
    hands_done: int
    hands_target: int
    unit: str
    seats: list[SeatResultShown]
    voids: dict[str, int]


def results_shown(seen: SeenRun, voids: dict[str, int]) -> ResultsShown:
    """The results of a run that the caller may see."""
    run = seen.run
    big_blind = int(run.rules["big_blind"])
    return ResultsShown(
        run_id=run.id,
        status=RunStatus(run.status),
        hands_done=run.hands_done,
        hands_target=run.hands_target,
        unit="deal" if run.rules["format"] == Format.DUPLICATE.value else "hand",
        seats=[_seat_result_shown(seat, big_blind) for seat in seen.lineup],
        voids=voids,
    )


def _seat_result_shown(seat: RunSeat, big_blind: int) -> SeatResultShown:
    result: SeatResult = seat_result(
        SeatTotals(
            seat_no=seat.seat_no,
            hands=seat.hands,
            net=seat.net,
            units=seat.units,
            unit_sum=seat.unit_sum,
            unit_sum_squares=seat.unit_sum_squares,
        ),
        big_blind=big_blind,
    )
    return SeatResultShown(
        **{name: getattr(seat, name) for name in LineupSeat.model_fields},
        hands=seat.hands,
        net=seat.net,
        units=seat.units,
        chips_per_unit=RateShown.of(result.chips_per_unit),
        bb_per_100=RateShown.of(result.bb_per_100),
        decisions=seat.decisions,
        rebuys=seat.rebuys,
        fallbacks=seat.fallbacks,
    )
