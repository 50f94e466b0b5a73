"""One timer that watches over many waits.

Owns the rescue from a wait that should have ended by itself long ago. Such a rescue is rare and may
come late, so it must cost next to nothing while all is well: a timer for each wait would cost more
than everything else a seat does.
"""

from __future__ import annotations

import asyncio


class Watchdog:
    """Cancels the task of a wait that is overdue, at most one `period_s` late.

    Used as `guard`, wait, `release`; a `CancelledError` in between is the watchdog's own when
    `released_overdue` says so.
    """

    __slots__ = ("_due_at_s", "_overdue", "_period_s", "_timer")

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._due_at_s: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def guard(self, task: asyncio.Task[object], wait_s: float) -> None:
        """Watch a wait of `task` that should end within `wait_s`."""
        loop = task.get_loop()
        self._due_at_s[task] = loop.time() + wait_s
        if self._timer is None:
            self._timer = loop.call_later(self._period_s, self._look)

    def release(self, task: asyncio.Task[object]) -> None:
        """The wait is over, whatever its end."""
        del self._due_at_s[task]

    def released_overdue(self, task: asyncio.Task[object]) -> bool:
        """Whether the cancellation of `task` is the watchdog's and nobody else's."""
        if task not in self._overdue:
            return False
        self._overdue.discard(task)
        return task.uncancel() == 0

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for task, due_at_s in self._due_at_s.items():
            if due_at_s <= now_s and task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
        self._timer = loop.call_later(self._period_s, self._look) if self._due_at_s else None
