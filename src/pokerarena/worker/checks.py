"""Check matches: of a hosted version before it may take a seat, and of a suspended one.

Owns what is kept of it: the findings, what the sandbox used, and the end of the agent's stderr, all
bounded. A fault of ours decides nothing about an agent: it leaves as an error, and the job is tried
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents import standing
from pokerarena.agents.conformance import Finding, Severity, Summary
from pokerarena.agents.models import AgentVersion, CheckStatus, VersionKind, VersionStanding
from pokerarena.agents.packages import settle_check
from pokerarena.agents.player import FallbackReason
from pokerarena.db import Database
from pokerarena.errors import Unavailable
from pokerarena.ids import IdKind, id_text
from pokerarena.jobs import CHECK_VERSION_TASK
from pokerarena.runs.hosted import lodge, usage_report
from pokerarena.runs.players import SeatBuilder
from pokerarena.sandbox.checking import check_hosted
from pokerarena.sandbox.host_client import HostPool
from pokerarena.sandbox.runtime import RuntimeName
from pokerarena.telemetry import get_logger

log = get_logger("worker.checks")

TIME_LIMIT_MS: Final = 5_000
# What tables grant unless they say otherwise: whoever needs longer has failed for a reason.
HTTP_TIME_LIMIT_MS: Final = 2_000
ROOM_WAIT_S: Final = 300.0
FINDINGS_KEPT: Final = 20
SENTENCE_MAX_CHARS: Final = 500
LOST_PER_ROUND: Final = 100

# Pending versions whose job is gone, or in the hands of a worker that is.
_LOST: Final = text(
    """
    SELECT v.id FROM agent_versions v
    LEFT JOIN version_standings s ON s.version_id = v.id AND s.check_status = 'pending'
    WHERE v.retired_at IS NULL
      AND (v.check_status = 'pending' AND v.created_at < now() - interval '60 seconds'
           OR s.check_asked_at < now() - interval '60 seconds')
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


class Examiners(NamedTuple):
    """What checks are made with: agent-hosts, where there are any, and connections."""

    hosts: HostPool | None
    builder: SeatBuilder
    runtime: RuntimeName


async def check_version(
    database: Database, examiners: Examiners, version_id: UUID, *, limit_s: float
) -> None:
    """Play the check match of a version that waits for one, and store what came of it."""
    async with database.session() as session:
        version = await session.get(AgentVersion, version_id)
        standing_ = await session.get(VersionStanding, version_id)
    if version is None:
        return
    if version.check_status == CheckStatus.PENDING.value:
        report, passed = await _examine(examiners, version, None)
        status = CheckStatus.PASSED if passed else CheckStatus.FAILED
        async with database.unit_of_work() as session:
            stored = await settle_check(session, version_id, status, report)
    elif standing_ is not None and standing_.check_status == CheckStatus.PENDING.value:
        report, passed = await _examine(examiners, version, limit_s)
        async with database.unit_of_work() as session:
            stored = await standing.settle_check(session, version_id, passed=passed, report=report)
    else:
        return
    log.info(
        "version_checked",
        version_id=id_text(IdKind.VERSION, version_id),
        status=(CheckStatus.PASSED if passed else CheckStatus.FAILED).value,
        errors=report["errors"],
        stored=stored,
    )


async def _examine(
    examiners: Examiners, version: AgentVersion, limit_s: float | None
) -> tuple[dict[str, Any], bool]:
    """Play with the version; the report, and whether it passed. Raises for faults of ours."""
    if version.kind == VersionKind.HTTP.value:
        check = await examiners.builder.examination(version, HTTP_TIME_LIMIT_MS)
        return await _verdict(check, limit_s)
    if examiners.hosts is None:
        raise Unavailable("no_agent_host", "This worker knows no agent-host.")
    # It is over in seconds, and whoever has just uploaded an agent waits for it.
    booking = examiners.hosts.book(runtime=examiners.runtime, urgent=True)
    try:
        if not await booking.held(ROOM_WAIT_S):
            raise Unavailable("no_agent_host", "No agent-host had room for the check.")
        player = lodge(booking, version)
        check = check_hosted(player, time_limit_ms=TIME_LIMIT_MS)
        report, passed = await _verdict(check, limit_s)
        return report | usage_report(player), passed
    finally:
        booking.release()


async def _verdict(
    check: AsyncGenerator[Finding | Summary, None], limit_s: float | None
) -> tuple[dict[str, Any], bool]:
    """What the check says, or that it took longer than it may."""
    try:
        async with asyncio.timeout(limit_s):
            findings, summary = await _heard(check)
    except TimeoutError:
        assert limit_s is not None, "without a limit there is no timeout"
        return _overtime(limit_s), False
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
    }
    return report, summary.passed


async def _heard(
    check: AsyncGenerator[Finding | Summary, None],
) -> tuple[list[dict[str, Any]], Summary]:
    findings: list[dict[str, Any]] = []
    summary = None
    # Closed at once whatever happens: the sandbox must not wait for a garbage collector.
    async with aclosing(check) as items:
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


def _overtime(limit_s: float) -> dict[str, Any]:
    finding = Finding(
        Severity.ERROR,
        FallbackReason.TIMEOUT.value,
        "the whole check",
        f"The check did not come to its end within {limit_s:g} s.",
    )
    return {
        "findings": [_finding(finding)],
        "errors": 1,
        "warnings": 0,
        "decisions": 0,
        "hands": 0,
        "median_ms": 0.0,
        "slowest_ms": 0.0,
    }


async def requeue_lost_checks(session: AsyncSession) -> int:
    """Give checks that nobody will make a new job; how many. For the reaper's transaction."""
    lost = await session.scalars(_LOST, {"task": CHECK_VERSION_TASK, "limit": LOST_PER_ROUND})
    version_ids = lost.all()
    for version_id in version_ids:
        version = await session.get_one(AgentVersion, version_id)
        await standing.enqueue_check_of(session, version)
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
