"""Prints what the conformance check finds, for the author of an agent.

Owns: the words around the findings, and the bound on how many are shown in full. What is right and
wrong is `agents.conformance`'s to say. Must never: dial anything but the URL that was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from pokerarena.agents.conformance import Finding, Severity, Summary, check_agent
from pokerarena.agents.dial import Dialer
from pokerarena.egress.policy import EgressPolicy
from pokerarena.errors import Invalid, Unavailable
from pokerarena.sandbox.checking import check_hosted
from pokerarena.sandbox.local import local_sandboxes

# The same mistake is told in full a few times; an agent that errs each time need not fill pages.
SHOWN_PER_CODE: Final = 3
EXCERPT_MAX_BYTES: Final = 4_000

Write = Callable[[str], None]


def run_check(
    url: str, *, secret: str | None, time_limit_ms: int, hands: int, max_batch: int, write: Write
) -> bool:
    """Checks the agent at `url`; True if it makes no mistake that would cost hands."""
    # One's own agent, at one's own wish: it may well listen on this machine, on any port.
    policy = EgressPolicy(allow_private=True, port_ranges=((1, 65_535),))
    if problems := policy.check_url(url):
        raise Invalid("callback_url_refused", f"The agent's URL is no use: {'; '.join(problems)}.")
    return asyncio.run(_check(url, policy, secret, time_limit_ms, hands, max_batch, write))


async def _check(
    url: str,
    policy: EgressPolicy,
    secret: str | None,
    time_limit_ms: int,
    hands: int,
    max_batch: int,
    write: Write,
) -> bool:
    dialer = Dialer(policy)
    try:
        findings = check_agent(
            url,
            dialer,
            secret=secret,
            time_limit_ms=time_limit_ms,
            max_batch=max_batch,
            hands=hands,
        )
        return await _tell(findings, write)
    finally:
        await dialer.close()


def run_hosted_check(
    path: Path, *, rootfs: Path, time_limit_ms: int, hands: int, write: Write
) -> bool:
    """Checks an agent's file or folder in a sandbox of this process, as an arena would."""

    async def check() -> bool:
        try:
            async with local_sandboxes(tree=rootfs) as sandboxes:
                player = sandboxes.player(path)
                return await _tell(
                    check_hosted(player, time_limit_ms=time_limit_ms, hands=hands), write
                )
        except Unavailable as error:
            raise Unavailable(
                error.code,
                f"{error.message} Without a sandbox, with your own rights: "
                f"python -m pokerarena_sdk check {path}",
            ) from None

    return asyncio.run(check())


async def _tell(findings: AsyncGenerator[Finding | Summary, None], write: Write) -> bool:
    seen: dict[str, int] = {}
    passed = False
    async with aclosing(findings):
        async for finding in findings:
            if isinstance(finding, Summary):
                passed = finding.passed
                _write_summary(finding, seen, write)
            else:
                seen[finding.code] = seen.get(finding.code, 0) + 1
                if seen[finding.code] <= SHOWN_PER_CODE:
                    _write_finding(finding, write)
    return passed


def _write_finding(finding: Finding, write: Write) -> None:
    word = "ERROR  " if finding.severity is Severity.ERROR else "warning"
    write(f"{word} {finding.code}, in {finding.where}:")
    write(f"        {finding.sentence}")
    if finding.request:
        write(f"        asked:    {_excerpt(finding.request)}")
    if finding.answer:
        write(f"        answered: {_excerpt(finding.answer)}")


def _write_summary(summary: Summary, seen: dict[str, int], write: Write) -> None:
    for code, count in seen.items():
        if count > SHOWN_PER_CODE:
            write(f"        {code} came {count - SHOWN_PER_CODE} times more")
    write(
        f"{summary.decisions} decisions, {summary.hands} whole hands; "
        f"answers took {summary.median_ms:.1f} ms (median), {summary.slowest_ms:.1f} ms at worst"
    )
    if summary.passed:
        rest = f", {summary.warnings} warnings" if summary.warnings else ""
        write(f"passed{rest}: this agent speaks the protocol")
    else:
        write(f"failed: {summary.errors} errors, {summary.warnings} warnings")


def _excerpt(body: bytes) -> str:
    """Printable whatever the agent sent: its answer must not write to the author's terminal."""
    text = body[:EXCERPT_MAX_BYTES].decode(errors="replace")
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return shown if len(body) <= EXCERPT_MAX_BYTES else f"{shown}… ({len(body):,} bytes)"
