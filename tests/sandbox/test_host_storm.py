"""An agent-host that is killed costs the hands in progress and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.host_storm import HostStorm


@pytest.mark.usefixtures("runc")
def test_every_run_completes_although_the_agent_host_is_killed_twice(
    root_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make chaos` kills it more often, over fifty runs."""
    told: list[str] = []
    # More runs than fit at once: some wait for room while the host dies.
    storm = HostStorm(seed=3, runs=12, kills=2, hands=40, root_tree=root_tree, tell=told.append)
    for name, value in storm.environment.items():
        monkeypatch.setenv(name, value)
    storm.blow()
    assert (storm.completed, storm.killed) == (12, 2)
    assert storm.most_waiting >= 4, "there was room for all of them"
    assert storm.voids >= 1, "nobody played when the host died"
