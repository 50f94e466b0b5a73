"""The embedded database, started again for as long as it takes.

Owns: noticing that it ended, and pauses between tries that grow. A full disk ends a database and
keeps it from starting; once there is room it has to come back without anybody's doing.
Must never: stop anything else. Who asks the database waits for it, and says so meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pokerarena.ops.embedded import START_TIMEOUT_S, EmbeddedPostgres
from pokerarena.ops.embedded_errors import EmbeddedPostgresError
from pokerarena.retrying import RetryPolicy

PAUSES: Final = RetryPolicy(base_s=0.5, cap_s=15.0)
# Recovery may take longer than a usual start; interrupted each time, it would never be done.
START_TIMEOUT_MAX_S: Final = 600.0
# Having lived this long it did not die of its start.
SETTLED_AFTER_S: Final = 30.0


class KeptDatabase:
    """Looks after one server that was started before."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self._failures = 0
        self._started_at_s = time.monotonic()
        self._start_at_s: float | None = None

    def keep_alive(self, say: Callable[[str], None]) -> bool:
        """Starts it again if it ended and the pause is over; whether its address is another now."""
        if self._postgres.running:
            return False
        now_s = time.monotonic()
        if self._start_at_s is None:
            if now_s - self._started_at_s >= SETTLED_AFTER_S:
                self._failures = 0
            self._again(say, "the database ended unexpectedly")
            return False
        if now_s < self._start_at_s:
            return False
        before = self._postgres.last_socket_dir
        timeout_s = min(START_TIMEOUT_MAX_S, START_TIMEOUT_S * 2 ** min(self._failures, 10))
        try:
            self._postgres.stop()
            self._postgres.start(timeout_s=timeout_s)
        except (EmbeddedPostgresError, OSError) as error:
            self._again(say, str(error).rstrip("."))
            return False
        self._start_at_s = None
        self._started_at_s = time.monotonic()
        say("the database is back")
        return self._postgres.last_socket_dir != before

    def _again(self, say: Callable[[str], None], why: str) -> None:
        self._failures += 1
        pause_s = PAUSES.later_s(self._failures)
        say(f"{why}; starting it again in {pause_s:.1f} s")
        self._start_at_s = time.monotonic() + pause_s
