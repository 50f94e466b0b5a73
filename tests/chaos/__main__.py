"""`make chaos`: a long storm, under a seed that it names so that it can be blown again."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time

from tests.chaos.storm import Storm


def main() -> None:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=120)
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--hands", type=int, default=400, help="hands of a run, times its seats")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    given = parser.parse_args()
    began_s = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {line}", flush=True)

    tell(f"seed {given.seed}: {given.faults} faults over {given.runs} runs")
    storm = Storm(
        seed=given.seed, faults=given.faults, runs=given.runs, hands=given.hands, tell=tell
    )
    asyncio.run(storm.blow())
    tell(f"faults {storm.met}")
    tell(f"runs {storm.ended}; hands gapless, chips conserved, chains whole, nothing left over")
    sys.exit(0)


if __name__ == "__main__":
    main()
