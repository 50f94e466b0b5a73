"""Runs: ordering, stopping, resuming, and what came of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.hand_shapes import HandSummary, SeatNet
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.run_shapes import ResultsShown, RunShown, RunSummary, results_shown
from pokerarena.api.shapes import INT32_MAX, Page, RequestShape, RunId, Shown, TableId
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.engine.cards import cards_text
from pokerarena.errors import Conflict, Forbidden
from pokerarena.history import read
from pokerarena.history.archives import refuse_archived_run
from pokerarena.runs import service
from pokerarena.runs.viewers import SeenRun, see_run, visible_runs
from pokerarena.stats.voids import void_counts
from pokerarena.tables import service as tables

of_table = APIRouter(prefix="/tables/{table_id}/runs", tags=["runs"], route_class=IdempotentRoute)
router = APIRouter(prefix="/runs", tags=["runs"], route_class=IdempotentRoute)


class NewRun(RequestShape):
    """An order to play this many hands with the agents that are seated now."""

    hands: Annotated[int, Field(ge=1, le=INT32_MAX)]


class SeedShown(Shown):
    """The secret that every deck of the run follows from, and its published SHA-256."""

    run_id: RunId
    seed: str
    seed_sha256: str


@of_table.get("")
async def list_runs(
    caller: Annotated[Principal, needs(Permission.RUN_READ)],
    table_id: TableId,
    page: Annotated[PageQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[RunSummary]:
    """The runs of a table, newest first. A page may be short where some are not visible."""
    limit = page.bounded_limit(parts.settings)
    table = await tables.visible_table(session, caller, table_id)
    rows = await service.list_runs(session, table.id, page.before_id("runs"), limit + 1)
    rows_shown, cursor = cut(rows, limit, "runs", lambda run: run.id)
    seen = await visible_runs(session, caller, table, rows_shown)
    return Page(items=[RunSummary.of(run) for run in seen], next_cursor=cursor)


@of_table.post("", status_code=201)
async def create_run(
    caller: Annotated[Principal, needs(Permission.RUN_CREATE)],
    table_id: TableId,
    body: NewRun,
    request: Request,
    response: Response,
    parts: PartsOf,
    session: Session,
) -> RunShown:
    """Start a run: it and its job are one transaction, and a worker takes it from there."""
    table = await tables.own_table(session, caller, table_id)
    if table.archived_at is not None:
        raise Conflict("table_archived", "This table is archived; make a new one.")
    run = await service.create_run(
        session,
        table=table,
        created_by=caller.known_id(),
        hands=body.hands,
        settings=parts.settings,
        sealer=parts.sealer,
        request_id=request.state.request_id,
    )
    shown = RunShown.of_seen(await see_run(session, caller, run.id), inside=True)
    response.headers["Location"] = f"/v1/runs/run_{run.id.hex}"
    return shown


def _inside(caller: Principal, seen: SeenRun) -> bool:
    return caller.owns(seen.table.owner_id) or caller.is_operator


@router.get("/{run_id}")
async def read_run(
    caller: Annotated[Principal, needs(Permission.RUN_READ)], run_id: RunId, session: Session
) -> RunShown:
    """One run with its lineup."""
    seen = await see_run(session, caller, run_id)
    return RunShown.of_seen(seen, inside=_inside(caller, seen))


async def _controlled(session: Session, caller: Principal, run_id: RunId) -> SeenRun:
    seen = await see_run(session, caller, run_id)
    if not _inside(caller, seen):
        raise Forbidden("not_table_owner", "Only the owner of the run's table may do this.")
    return seen


@router.post("/{run_id}/stop")
async def stop_run(
    caller: Annotated[Principal, needs(Permission.RUN_CONTROL)], run_id: RunId, session: Session
) -> RunShown:
    """Stop a run within one hand. It can be resumed."""
    await _controlled(session, caller, run_id)
    await service.request_stop(session, run_id)
    return RunShown.of_seen(await see_run(session, caller, run_id), inside=True)


@router.post("/{run_id}/resume")
async def resume_run(
    caller: Annotated[Principal, needs(Permission.RUN_CONTROL)], run_id: RunId, session: Session
) -> RunShown:
    """Go on with a stopped or failed run at its next hand."""
    seen = await _controlled(session, caller, run_id)
    if seen.table.archived_at is not None:
        raise Conflict("table_archived", "This table is archived; make a new one.")
    await service.resume_run(session, run_id)
    return RunShown.of_seen(await see_run(session, caller, run_id), inside=True)


@router.get("/{run_id}/results")
async def read_results(
    caller: Annotated[Principal, needs(Permission.RUN_READ)], run_id: RunId, session: Session
) -> ResultsShown:
    """Chips, rates with their intervals, and fallbacks of every seat so far."""
    seen = await see_run(session, caller, run_id)
    return results_shown(seen, await void_counts(session, run_id))


@router.get("/{run_id}/hands")
async def list_hands(
    caller: Annotated[Principal, needs(Permission.HISTORY_READ)],
    run_id: RunId,
    page: Annotated[PageQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> Page[HandSummary]:
    """The complete hands of a run, in the order of play."""
    limit = page.bounded_limit(parts.settings)
    await refuse_archived_run(session, (await see_run(session, caller, run_id)).run)
    rows = await read.list_hands(session, run_id, page.number("hands") or 0, limit + 1)
    rows_shown, cursor = cut(rows, limit, "hands", lambda hand: hand.hand_no)
    return Page(
        items=[
            HandSummary(
                id=hand.id,
                run_id=hand.run_id,
                hand_no=hand.hand_no,
                deal_no=hand.deal_no,
                ended_at=hand.ended_at,
                button_seat=hand.button_seat,
                board=list(cards_text(hand.board)),
                seats=[
                    SeatNet(seat_no=seat_no, starting_stack=stack, net=net)
                    for seat_no, stack, net in zip(hand.seats, hand.stacks, hand.net, strict=True)
                ],
            )
            for hand in rows_shown
        ],
        next_cursor=cursor,
    )


@router.get("/{run_id}/seed")
async def read_seed(
    caller: Annotated[Principal, needs(Permission.HISTORY_READ)],
    run_id: RunId,
    session: Session,
) -> SeedShown:
    """The seed of a completed run whose reveal policy is ``after_run``."""
    seen = await see_run(session, caller, run_id)
    seed = await service.revealed_seed(session, run_id)
    if not seen.sight.everything or seed is None:
        raise Forbidden(
            "seed_withheld",
            "A seed is told once its run is completed, and only where the reveal policy is "
            "'after_run'.",
        )
    return SeedShown(run_id=run_id, seed=seed.hex(), seed_sha256=seen.run.seed_sha256.hex())
