"""The embedded database is started again until it stays, and never in a hurry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pokerarena.ops import kept_database
from pokerarena.ops.embedded_errors import EmbeddedPostgresError
from pokerarena.ops.kept_database import KeptDatabase


class Server:
    """Starts as often as it is told to fail, and once more."""

    def __init__(self) -> None:
        self.running = True
        self.last_socket_dir = Path("/one")
        self.failures: list[Exception] = []
        self.timeouts_s: list[float] = []

    def start(self, *, timeout_s: float) -> None:
        self.timeouts_s.append(timeout_s)
        if self.failures:
            raise self.failures.pop(0)
        self.running = True

    def stop(self) -> None:
        pass


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(kept_database.time, "monotonic", lambda: clock[0])
    return clock


def test_it_is_tried_again_with_growing_pauses_and_its_reason_until_it_starts(
    now: list[float],
) -> None:
    server: Any = Server()
    kept, said = KeptDatabase(server), []
    assert not kept.keep_alive(said.append)
    assert said == []
    server.running = False
    server.failures = [
        EmbeddedPostgresError("The database did not start: no room."),
        OSError(28, "No space left on device"),
    ] * 4
    ticks = 0
    while not server.running:
        assert not kept.keep_alive(said.append)
        now[0] += 0.1
        ticks += 1
        assert ticks < 2000, said
    assert len(server.timeouts_s) == 9
    assert said[0].startswith("the database ended unexpectedly; starting it again in ")
    assert said[1].startswith("The database did not start: no room; starting it again in ")
    assert "No space left on device" in said[2]
    assert said[-1] == "the database is back"
    pauses_s = [float(line.rpartition(" in ")[2].removesuffix(" s")) for line in said[:-1]]
    assert pauses_s[-1] > 5 * pauses_s[0]
    assert max(pauses_s) <= kept_database.PAUSES.cap_s
    # A recovery that takes long is not interrupted for ever.
    assert server.timeouts_s[-1] == kept_database.START_TIMEOUT_MAX_S


def test_another_address_is_told(now: list[float]) -> None:
    server: Any = Server()
    kept = KeptDatabase(server)
    server.running = False
    assert not kept.keep_alive(lambda _: None)
    now[0] += 60

    def start(*, timeout_s: float) -> None:
        server.running, server.last_socket_dir = True, Path("/another")

    server.start = start
    assert kept.keep_alive(lambda _: None)
    assert not kept.keep_alive(lambda _: None)
