"""What an ended run says of the versions that played it.

Reads a run's totals and hands them to `agents.standing`, which judges. A run says nothing where it
was not the agents' to play well: house versions are ours, and a table with an action time shorter
than the setting may be too quick for anybody. It never commits.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents import standing
from pokerarena.agents.models import AgentVersion, VersionKind
from pokerarena.agents.player import FallbackReason
from pokerarena.agents.standing import Conduct
from pokerarena.runs.formats import RunRules
from pokerarena.runs.models import Run, RunSeat
from pokerarena.settings import Settings


async def note_conduct(session: AsyncSession, run_id: UUID, settings: Settings) -> list[UUID]:
    """Enter a completed or stopped run into its versions' standings; those that it suspends."""
    rules = await session.scalar(select(Run.rules).where(Run.id == run_id))
    if (
        rules is None
        or RunRules.from_json(rules).action_time_ms < settings.suspension_action_time_min_ms
    ):
        return []
    rows = await session.execute(
        select(RunSeat.version_id, RunSeat.decisions, RunSeat.fallbacks)
        .join(AgentVersion, AgentVersion.id == RunSeat.version_id)
        .where(RunSeat.run_id == run_id, AgentVersion.kind != VersionKind.HOUSE.value)
    )
    totals: dict[UUID, tuple[int, int]] = {}
    for version_id, seat_decisions, fallbacks in rows:
        decisions, failures = totals.get(version_id, (0, 0))
        ours = fallbacks.get(FallbackReason.INFRASTRUCTURE.value, 0)
        totals[version_id] = (
            decisions + seat_decisions - ours,
            failures + sum(fallbacks.values()) - ours,
        )
    conducts = [Conduct(version_id, *numbers) for version_id, numbers in totals.items()]
    return await standing.take_note(session, run_id, conducts, settings)
