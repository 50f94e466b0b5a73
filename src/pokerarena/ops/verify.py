"""Verifying a database: each run by `runs.soundness`, told as it goes.

Must never: change anything, or keep more in memory than one page of one run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from pokerarena.db import Database
from pokerarena.errors import NotFound, Unavailable
from pokerarena.ids import IdKind, parse_id
from pokerarena.runs.soundness import Checked, check_all, check_run
from pokerarena.settings import Settings


@dataclass(slots=True)
class Verified:
    """What was looked at, and how much of it does not hold."""

    runs: int = 0
    hands: int = 0
    findings: int = 0
    archived: int = 0

    def sentence(self) -> str:
        whole = "whole" if not self.findings else f"{self.findings} findings"
        elsewhere = f", {self.archived} runs archived" if self.archived else ""
        return f"{self.runs} runs, {self.hands} hands{elsewhere}: {whole}"


async def verify_database(
    settings: Settings, run_text: str | None, tell: Callable[[str], object]
) -> Verified:
    """Check one run or all; `tell` gets a line for each finding."""
    database = Database(settings, application_name="pokerarena verify")
    summary = Verified()
    try:
        async for checked in _checked(database, run_text):
            summary.runs += 1
            summary.hands += checked.hands
            summary.findings += len(checked.findings)
            summary.archived += checked.archived
            for finding in checked.findings:
                tell(finding.line())
    except DBAPIError as error:
        reason = str(error.orig).strip().split("\n", 1)[0]
        raise Unavailable(
            "database_unreadable", f"The database cannot be read to its end: {reason}."
        ) from None
    finally:
        await database.close()
    return summary


async def _checked(database: Database, run_text: str | None) -> AsyncIterator[Checked]:
    if run_text is None:
        async for checked in check_all(database):
            yield checked
        return
    one = await check_run(database, parse_id(IdKind.RUN, run_text))
    if one is None:
        raise NotFound("run")
    yield one
