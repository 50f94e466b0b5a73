"""How many deals of a run came to nothing, and why."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.history.models import VoidDeal


async def void_counts(session: AsyncSession, run_id: UUID) -> dict[str, int]:
    """Void deals by their reason."""
    rows = await session.execute(
        select(VoidDeal.reason, func.count())
        .where(VoidDeal.run_id == run_id)
        .group_by(VoidDeal.reason)
        .order_by(VoidDeal.reason)
    )
    return dict(rows.all())
