"""The check match of a hosted version, before it may take a seat.

Owns what is kept of it: the findings, what the sandbox used, and the end of the agent's stderr, all
bounded. A fault of ours decides nothing about an agent: it leaves as an error, and the job is tried
again.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.conformance import Finding, Severity, Summary
from pokerarena.agents.models import AgentVersion, CheckStatus
from pokerarena.agents.packages import settle_check
from pokerarena.agents.player import FallbackReason
from pokerarena.db import Database
from pokerarena.errors import Unavailable
from pokerarena.ids import IdKind, id_text
from pokerarena.jobs import CHECK_VERSION_TASK, enqueue_check
from pokerarena.runs.hosted import lodge, usage_report
from pokerarena.sandbox.checking import check_hosted
from pokerarena.sandbox.host_client import HostPool
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.remote_player import RemotePlayer
from pokerarena.sandbox.runtime import RuntimeName
from pokerarena.telemetry import get_logger

log = get_logger("worker.checks")

TIME_LIMIT_MS: Final = 5_000
ROOM_WAIT_S: Final = 300.0
FINDINGS_KEPT: Final = 20
SENTENCE_MAX_CHARS: Final = 500
LOST_PER_ROUND: Final = 100

# Pending versions whose job is gone, or in the hands of a worker that is.
_LOST: Final = text(
    """
    SELECT v.id FROM agent_versions v
    WHERE v.check_status = 'pending' AND v.retired_at IS NULL
      AND v.created_at < now() - interval '60 seconds'
      AND NOT EXISTS (
          SELECT 1 FROM procrastinate_jobs j
          LEFT JOIN procrastinate_workers w ON w.id = j.worker_id
          WHERE j.task_name = :task AND j.args->>'version_id' = v.id::text
            AND (j.status = 'todo'
                 OR j.status = 'doing' AND w.last_heartbeat > now() - interval '90 seconds')
      )
    ORDER BY v.id
    LIMIT :limit
    FOR NO KEY UPDATE OF v SKIP LOCKED
    """
)


async def check_version(
    database: Database,
    hosts: HostPool,
    version_id: UUID,
    runtime: RuntimeName = RuntimeName.RUNC,
) -> None:
    """Play the check match of a pending version, and store what came of it."""
    async with database.session() as session:
        version = await session.get(AgentVersion, version_id)
    if version is None or version.check_status != CheckStatus.PENDING.value:
        return
    # It is over in seconds, and whoever has just uploaded an agent waits for it.
    booking = hosts.book(runtime=runtime, urgent=True)
    try:
        if not await booking.held(ROOM_WAIT_S):
            raise Unavailable("no_agent_host", "No agent-host had room for the check.")
        player = lodge(booking, version)
        findings, summary = await _play_check(player)
    finally:
        booking.release()
    # Errors first: they decide, and what is beyond the bound is only counted.
    findings.sort(key=lambda finding: finding["severity"] != Severity.ERROR.value)
    report = {
        "findings": findings[:FINDINGS_KEPT],
        "errors": summary.errors,
        "warnings": summary.warnings,
        "decisions": summary.decisions,
        "hands": summary.hands,
        "median_ms": round(summary.median_ms, 2),
        "slowest_ms": round(summary.slowest_ms, 2),
        **usage_report(player),
    }
    status = CheckStatus.PASSED if summary.passed else CheckStatus.FAILED
    async with database.unit_of_work() as session:
        stored = await settle_check(session, version_id, status, report)
    log.info(
        "version_checked",
        version_id=id_text(IdKind.VERSION, version_id),
        status=status.value,
        errors=summary.errors,
        stored=stored,
    )


async def _play_check(
    player: HostedPlayer | RemotePlayer,
) -> tuple[list[dict[str, Any]], Summary]:
    findings: list[dict[str, Any]] = []
    summary = None
    # Closed at once whatever happens: the sandbox must not wait for a garbage collector.
    async with aclosing(check_hosted(player, time_limit_ms=TIME_LIMIT_MS)) as items:
        async for item in items:
            if isinstance(item, Summary):
                summary = item
            elif item.code == FallbackReason.INFRASTRUCTURE.value:
                raise Unavailable(
                    "check_interrupted", f"The check was interrupted: {item.sentence}"
                )
            else:
                findings.append(_finding(item))
    if summary is None:
        raise Unavailable("check_interrupted", "The check came to no end.")
    return findings, summary


async def requeue_lost_checks(session: AsyncSession) -> int:
    """Give checks that nobody will make a new job; how many. For the reaper's transaction."""
    lost = await session.scalars(_LOST, {"task": CHECK_VERSION_TASK, "limit": LOST_PER_ROUND})
    version_ids = lost.all()
    for version_id in version_ids:
        await enqueue_check(session, version_id)
        log.warning("check_recovered", version_id=id_text(IdKind.VERSION, version_id))
    return len(version_ids)


def _finding(finding: Finding) -> dict[str, Any]:
    sentence = finding.sentence.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return {
        "severity": finding.severity.value,
        "code": finding.code,
        "where": finding.where,
        "sentence": sentence[:SENTENCE_MAX_CHARS],
    }
