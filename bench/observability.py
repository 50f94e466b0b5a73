"""What metrics and logs cost a match, on against off.

The worst case: house agents that answer at once, so that nothing is waited for, in a process that
does nothing else. Rounds with and without take turns and are compared pairwise by processor time.
Off means that cells do not count and that no line is rendered; the calls themselves stay.
"""

from __future__ import annotations

import asyncio
import gc
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import process_time
from unittest.mock import patch

import structlog

from pokerarena.metrics import Distribution, Number, snapshot
from pokerarena.runs.match import MatchOptions, play_match
from pokerarena.telemetry import configure_logging

HANDS = int(os.environ.get("BENCH_HANDS", "300"))
ROUNDS = 60
COST_MAX = 0.05
SEATS = ("house:caller", "house:random")


@contextmanager
def observed(on: bool) -> Iterator[None]:
    """With metrics and logs as a worker has them, or without either."""
    structlog.reset_defaults()
    configure_logging("INFO" if on else "ERROR", "json", role="bench")
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(io.StringIO()), cache_logger_on_first_use=False
    )
    if on:
        yield
        return
    with (
        patch.object(Number, "add", lambda *_: None),
        patch.object(Distribution, "observe", lambda *_: None),
    ):
        yield


def played(number: int, on: bool) -> float:
    """Processor seconds of one match."""
    options = MatchOptions(seats=SEATS, hands=HANDS, seed=f"round {number}")
    with observed(on):
        gc.collect()
        began = process_time()
        asyncio.run(play_match(options))
        if on:
            snapshot()
        return process_time() - began


def main() -> int:
    played(0, on=True)
    played(0, on=False)
    ratios = []
    for number in range(1, ROUNDS + 1):
        first_on = number % 2 == 0
        first, second = played(number, first_on), played(number, not first_on)
        with_it, without = (first, second) if first_on else (second, first)
        ratios.append(with_it / without - 1)
    cost = median(ratios)
    print(f"metrics and logs cost {cost:7.2%} of a match   (at most {COST_MAX:.0%})")
    print(f"  rounds from {min(ratios):.2%} to {max(ratios):.2%}")
    return 0 if cost <= COST_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
