"""From a caller and a run to what the caller may see of it: the one place that decides.

Two questions, answered together so that nobody asks one without the other: may the caller know of
the run at all, and with which eyes (`engine.view.Viewer`) does the caller look at its hands. Which
cards a viewer sees is the engine's word alone; this module must never touch a card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import case, select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.auth.permissions import Principal
from pokerarena.auth.refusals import Sampler
from pokerarena.engine.view import Viewer
from pokerarena.errors import NotFound
from pokerarena.ids import IdKind, id_text
from pokerarena.runs.models import ACTIVE_STATUSES, Run, RunSeat, RunStatus
from pokerarena.tables.models import RevealPolicy, Table, Visibility

# One record a minute for an operator who looks at one run: reading on is one look.
_READS = Sampler(1)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a caller who may know of a run sees of it."""

    viewer: Viewer
    # The seats of the caller's own agents: their notes and failures are the caller's to read.
    own_seats: frozenset[int]
    # Whether the seed, and with it every card, may be told.
    everything: bool
    # Seen by an operator's role alone: neither open to all nor one's own in any part.
    by_role: bool = False


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run that the caller may know of, with its lineup and the caller's sight."""

    run: Run
    table: Table
    lineup: list[RunSeat]
    sight: Sight


def is_over(run: Run) -> bool:
    """Whether no further card of the run can ever be dealt.

    A stopped or failed run can be resumed: to tell its seed then would tell the cards to come.
    """
    return run.status == RunStatus.COMPLETED.value


def sight_of(
    principal: Principal, *, run: Run, table: Table, lineup: Sequence[RunSeat]
) -> Sight | None:
    """The caller's sight of the run, or ``None`` where the caller may not know of it."""
    if principal.seat is not None and principal.seat.table_id != table.id:
        return None
    own_seats = frozenset(seat.seat_no for seat in lineup if _is_own(principal, seat))
    # The stricter of then and now: neither does a table that opens up expose what was played in
    # private, nor does one that closes go on showing what it showed.
    open_to_all = Visibility.PRIVATE.value not in (table.visibility, run.visibility)
    by_right = open_to_all or bool(own_seats) or principal.owns(table.owner_id)
    if not (by_right or principal.is_operator):
        return None
    if is_over(run) and run.reveal_policy == RevealPolicy.AFTER_RUN.value:
        return Sight(Viewer.EVERYTHING, own_seats, everything=True, by_role=not by_right)
    viewer = Viewer.of_seats(own_seats) if own_seats else Viewer.SPECTATOR
    return Sight(viewer, own_seats, everything=False, by_role=not by_right)


def _is_own(principal: Principal, seat: RunSeat) -> bool:
    """Whether the seat is one of the caller's own agents', or the very one of the caller's link."""
    linked = principal.seat
    if linked is None:
        return principal.owns(seat.owner_id)
    return (seat.seat_no, seat.agent_id, seat.owner_id) == (
        linked.seat_no,
        linked.agent_id,
        linked.owner_id,
    )


async def see_run(session: AsyncSession, principal: Principal, run_id: UUID) -> SeenRun:
    """The run with the caller's sight; `NotFound` also where the caller may not know of it."""
    found = (
        await session.execute(
            select(Run, Table).join(Table, Table.id == Run.table_id).where(Run.id == run_id)
        )
    ).one_or_none()
    if found is None:
        raise NotFound("run")
    run, table = found
    lineup = list(
        await session.scalars(
            select(RunSeat).where(RunSeat.run_id == run_id).order_by(RunSeat.seat_no)
        )
    )
    sight = sight_of(principal, run=run, table=table, lineup=lineup)
    if sight is None:
        raise NotFound("run")
    if sight.by_role and _READS.take((principal.user_id, run_id)) is not None:
        audit.record(
            session,
            Event.PRIVATE_RUN_READ,
            principal=principal,
            subject=id_text(IdKind.RUN, run_id),
            everything=sight.everything,
        )
    return SeenRun(run, table, lineup, sight)


async def visible_runs(
    session: AsyncSession, principal: Principal, table: Table, runs: Sequence[Run]
) -> list[Run]:
    """Those of a table's runs that the caller may know of, in the same order."""
    lineups: dict[UUID, list[RunSeat]] = {run.id: [] for run in runs}
    for seat in await session.scalars(select(RunSeat).where(RunSeat.run_id.in_(lineups))):
        lineups[seat.run_id].append(seat)
    return [
        run
        for run in runs
        if sight_of(principal, run=run, table=table, lineup=lineups[run.id]) is not None
    ]


async def current_run_id(session: AsyncSession, table_id: UUID) -> UUID | None:
    """The run that the table is at: the active one, or else the newest."""
    active = Run.status.in_([status.value for status in ACTIVE_STATUSES])
    return await session.scalar(
        select(Run.id)
        .where(Run.table_id == table_id)
        .order_by(case((active, 0), else_=1), Run.id.desc())
        .limit(1)
    )
