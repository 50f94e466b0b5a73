"""`make chaos`: long storms, under a seed that they name so that they can be blown again.

First over workers, database and API; then over the agent-host, which needs root and runc.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Callable

from tests.chaos.host_storm import HostStorm
from tests.chaos.storm import Storm
from tests.sandbox.conftest import shared_root_tree


def main() -> None:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=120)
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--hands", type=int, default=400, help="hands of a run, times its seats")
    parser.add_argument("--host-runs", type=int, default=50, help="runs of hosted agents; 0: none")
    parser.add_argument("--host-kills", type=int, default=4)
    parser.add_argument("--host-hands", type=int, default=150)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    given = parser.parse_args()
    began_s = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {line}", flush=True)

    if given.runs:
        blow_workers(given, tell)
    if given.host_runs:
        blow_hosts(given, tell)
    sys.exit(0)


def blow_workers(given: argparse.Namespace, tell: Callable[[str], None]) -> None:
    tell(f"seed {given.seed}: {given.faults} faults over {given.runs} runs")
    storm = Storm(
        seed=given.seed, faults=given.faults, runs=given.runs, hands=given.hands, tell=tell
    )
    asyncio.run(storm.blow())
    tell(f"faults {storm.met}")
    tell(f"runs {storm.ended}; hands gapless, chips conserved, chains whole, nothing left over")


def blow_hosts(given: argparse.Namespace, tell: Callable[[str], None]) -> None:
    tell(
        f"seed {given.seed}: the agent-host killed {given.host_kills} times over "
        f"{given.host_runs} runs of {given.host_hands} hands"
    )
    storm = HostStorm(
        seed=given.seed, runs=given.host_runs, kills=given.host_kills, hands=given.host_hands,
        root_tree=shared_root_tree(), tell=tell, within_s=1_800.0,
    )  # fmt: skip
    os.environ.update(storm.environment)
    storm.blow()
    tell(
        f"killed {storm.killed} times; runs completed {storm.completed} of {given.host_runs}, at most "
        f"{storm.most_waiting} waited for room; deals void {storm.voids}; of {len(storm.instances)} "
        "hosts no cgroup, mount, process or file left"
    )


if __name__ == "__main__":
    main()
