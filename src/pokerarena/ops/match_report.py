"""Runs a local match for a person or a script: progress, interruption, result.

Owns: what is shown where. The result goes to stdout, as a relation or as one JSON object; the
progress bar to stderr, and only where that is a terminal. Must never: play anything itself.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pokerarena.runs.match import MatchOptions, MatchResult, play_match
from pokerarena.runs.seams import Control, Halt

REDRAW_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Finished:
    """A match's result, and whether Ctrl-C ended it early."""

    result: MatchResult
    interrupted: bool


def run_match(options: MatchOptions, *, as_json: bool) -> bool:
    """Plays, shows the result, and says whether all hands were played."""
    finished = asyncio.run(_play(options))
    if as_json:
        print(json.dumps(finished.result.to_json()))
    else:
        # Wide enough for the relation wherever it goes: scripts should not get it wrapped.
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=120)
        _show(console, finished)
    return not finished.interrupted


async def _play(options: MatchOptions) -> Finished:
    control = Control()
    interrupted = asyncio.Event()

    def stop() -> None:
        interrupted.set()
        control.ask(Halt.STOP)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    errors = Console(stderr=True)
    with Progress(
        TextColumn("playing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("hands"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
        auto_refresh=False,
    ) as bar:
        task = bar.add_task("hands", total=options.hands)
        drawn_at_s = 0.0

        def progress(hands_done: int, _hands_target: int) -> None:
            nonlocal drawn_at_s
            now_s = time.monotonic()
            if now_s - drawn_at_s >= REDRAW_EVERY_S:
                drawn_at_s = now_s
                bar.update(task, completed=hands_done, refresh=True)

        result = await play_match(options, progress=progress, control=control)
    return Finished(result, interrupted.is_set() and result.hands < options.hands)


def _show(console: Console, finished: Finished) -> None:
    result = finished.result
    relation = Table(title=f"{result.hands:,} hands, {result.format}", title_justify="left")
    relation.add_column("seat", justify="right")
    relation.add_column("agent")
    for heading in ("chips", "bb/100", "95 % interval"):
        relation.add_column(heading, justify="right")
    relation.add_column("fallbacks")
    for seat in result.seats:
        rate = "–" if seat.bb_per_100 is None else f"{seat.bb_per_100:+,.1f}"
        interval = "–" if seat.ci95 is None else f"{seat.ci95[0]:+,.1f} … {seat.ci95[1]:+,.1f}"
        fallbacks = ", ".join(f"{reason} {count:,}" for reason, count in seat.fallbacks.items())
        relation.add_row(
            str(seat.seat), seat.name, f"{seat.chips:+,}", rate, interval, fallbacks or "none"
        )
    console.print(relation)
    console.print(
        f"{result.duration_s:,.1f} s, {result.hands_per_s:,.0f} hands/s, "
        f"{result.decisions_per_s:,.0f} decisions/s; the same hands again with --seed {result.seed}",
        markup=False,
    )
    if finished.interrupted:
        console.print("interrupted: these are the hands played until then", markup=False)
