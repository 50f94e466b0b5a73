"""Complete hands: their end, their actions, their replay; each as the caller may see it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.api.access import needs
from pokerarena.api.context import Session
from pokerarena.api.hand_shapes import (
    ActionsShown,
    FactShown,
    HandShown,
    ReplayShown,
    actions_shown,
    facts_shown,
    hand_shown,
)
from pokerarena.api.shapes import HandId
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.engine.view import see, visible_facts
from pokerarena.errors import NotFound
from pokerarena.history import read
from pokerarena.history.archives import refuse_archived_hand
from pokerarena.runs.viewers import SeenRun, see_run

router = APIRouter(prefix="/hands", tags=["hands"])


async def _seen_hand(
    session: AsyncSession, caller: Principal, hand_id: HandId
) -> tuple[read.StoredHand, SeenRun]:
    """The hand with the caller's sight of its run; `NotFound` where there is none."""
    hand = await read.load_hand(session, hand_id)
    if hand is None:
        await refuse_archived_hand(session, hand_id)
        raise NotFound("hand")
    try:
        return hand, await see_run(session, caller, hand.run_id)
    except NotFound:
        raise NotFound("hand") from None


@router.get("/{hand_id}")
async def read_hand(
    caller: Annotated[Principal, needs(Permission.HISTORY_READ)], hand_id: HandId, session: Session
) -> HandShown:
    """One complete hand as it ended."""
    hand, seen = await _seen_hand(session, caller, hand_id)
    return hand_shown(hand, see(hand.final(), seen.sight.viewer))


@router.get("/{hand_id}/actions")
async def read_actions(
    caller: Annotated[Principal, needs(Permission.HISTORY_READ)], hand_id: HandId, session: Session
) -> ActionsShown:
    """The actions of one hand; notes and failures of one's own seats only."""
    hand, seen = await _seen_hand(session, caller, hand_id)
    notes = await read.notes(session, hand_id, seen.sight.own_seats)
    return ActionsShown(hand_id=hand_id, items=actions_shown(hand.actions, notes))


@router.get("/{hand_id}/replay")
async def read_replay(
    caller: Annotated[Principal, needs(Permission.HISTORY_READ)], hand_id: HandId, session: Session
) -> ReplayShown:
    """One hand from its deal to its end, fact by fact, as the caller may see it."""
    hand, seen = await _seen_hand(session, caller, hand_id)
    viewer = seen.sight.viewer
    facts: list[FactShown] = []
    last = None
    for step, transition in enumerate(hand.replay()):
        facts += facts_shown(step, visible_facts(transition.facts, viewer))
        last = transition.hand
    if last is None:
        raise NotFound("hand")
    notes = await read.notes(session, hand_id, seen.sight.own_seats)
    return ReplayShown(
        hand=hand_shown(hand, see(last, viewer)),
        facts=facts,
        actions=actions_shown(hand.actions, notes),
    )
