"""What must hold of every run in the database, whatever happened to its workers."""

from __future__ import annotations

from uuid import UUID

from pokerarena.runs.soundness import check_run
from tests.arena import Arena


async def assert_sound(arena: Arena, run_id: UUID) -> None:
    """Hands gapless, chips conserved, replay equal to play, totals exact, every deal used once."""
    checked = await check_run(arena.database, run_id)
    assert checked is not None, "there is no such run"
    assert not checked.findings, "\n".join(finding.line() for finding in checked.findings)
