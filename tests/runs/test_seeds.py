"""A run's seed is told by the worker that completes it, where the policy says so, and never else."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest

from pokerarena.runs import claim as claims
from pokerarena.runs import service
from pokerarena.runs.claim import Settlement
from pokerarena.runs.models import RunStatus
from pokerarena.runs.seams import VoidReason
from tests.arena import Arena, open_arena

SETTLED = Settlement(0, (), VoidReason.STOPPED)


async def end(arena: Arena, run_id: UUID, status: RunStatus, *, epochs_late: int = 0) -> bool:
    """Claim the run and end it, as a worker does."""
    async with arena.database.unit_of_work() as session:
        claim = await claims.claim(
            session, run_id, claimed_by="test", lease_s=60, max_hands_ahead=8
        )
    assert claim is not None
    seed = await arena.sealer.open(
        claim.seed_sealed, purpose=service.SEED_PURPOSE, owner=run_id.bytes
    )
    async with arena.database.unit_of_work() as session:
        return await claims.finish(
            session, run_id, claim.epoch - epochs_late, SETTLED, status=status, seed=seed
        )


async def told(arena: Arena, run_id: UUID) -> bytes | None:
    async with arena.database.session() as session:
        return await service.revealed_seed(session, run_id)


@pytest.mark.parametrize(
    ("policy", "status", "tells"),
    [
        ("after_run", RunStatus.COMPLETED, True),
        # It can be resumed, and its next cards would be known.
        ("after_run", RunStatus.STOPPED, False),
        ("showdown", RunStatus.COMPLETED, False),
    ],
)
async def test_only_a_completed_run_of_that_policy_tells_its_seed(
    database_url: str, policy: str, status: RunStatus, tells: bool
) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["random", "tight"], 10, reveal_policy=policy)
        assert await told(arena, run_id) is None
        assert await end(arena, run_id, status)
        seed = await told(arena, run_id)
        assert (seed is not None) == tells
        if seed is not None:
            run = await arena.look(run_id)
            assert hashlib.sha256(seed).digest() == run.seed_sha256


async def test_a_worker_that_was_fenced_off_tells_nothing(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        run_id = await arena.order(["random", "tight"], 10, reveal_policy="after_run")
        assert not await end(arena, run_id, RunStatus.COMPLETED, epochs_late=1)
        assert await told(arena, run_id) is None
