"""Child processes that are kept alive together and stopped in order.

Owns: starting, watching, restarting with a growing pause, stopping with patience, and their logs,
bounded in size.
Must never: leave a child behind (each is tethered to this process), or restart without a limit.
"""

from __future__ import annotations

import contextlib
import logging.handlers
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from pokerarena.errors import Unavailable
from pokerarena.ops import tether

LOG_MAX_BYTES: Final = 8 * 1024 * 1024
LOG_OLD_FILES: Final = 2
LAST_LINES_KEPT: Final = 20
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_CAP_S: Final = 10.0
# Running this long means that the start went well: the next failure is a new one.
SETTLED_AFTER_S: Final = 60.0
FAILURES_MAX: Final = 5
KILL_PATIENCE_S: Final = 5.0


class Child:
    """One program, tethered to this process, its output in one log."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        stop_patience_s: float,
    ) -> None:
        self.name = name
        self.log = log
        self.stop_patience_s = stop_patience_s
        self._argv = list(argv)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._started_at = 0.0
        self._failures = 0
        self._start_again_at = 0.0
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES_KEPT)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        self._process = subprocess.Popen(
            tether.command(self._argv, death_signal=signal.SIGTERM),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone; we stop them in order
        )
        self._started_at = time.monotonic()
        if self._process.stdout is not None:
            self._pump = threading.Thread(
                target=self._copy, args=(self._process.stdout,), daemon=True
            )
            self._pump.start()

    def keep_alive(self, say: Callable[[str], None]) -> None:
        """Starts it again if it ended; raises Unavailable when it keeps ending."""
        if self._process is None or self.running:
            return
        now = time.monotonic()
        if self._start_again_at == 0.0:
            if now - self._started_at >= SETTLED_AFTER_S:
                self._failures = 0
            self._failures += 1
            code = self._process.returncode
            if self._failures > FAILURES_MAX:
                raise Unavailable("child_fails", f"The {self.name} keeps ending ({self.reason()}).")
            pause_s = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2 ** (self._failures - 1))
            say(f"the {self.name} ended with code {code}; starting it again in {pause_s:g} s")
            self._start_again_at = now + pause_s
        elif now >= self._start_again_at:
            self._start_again_at = 0.0
            self.start()

    def reason(self) -> str:
        """What it said last, and where the rest is."""
        if self._pump is not None:
            self._pump.join(timeout=1.0)
        said = [line.strip() for line in self._last_lines if line.strip()]
        return f"{said[-1][:300] if said else 'it said nothing'}; its log is {self.log}"

    def stop(self, hurry: threading.Event) -> None:
        """Asks it to end, waits as long as it may take (not at all in a hurry), then kills it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            deadline = time.monotonic() + self.stop_patience_s
            while process.poll() is None and time.monotonic() < deadline and not hurry.is_set():
                time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait(KILL_PATIENCE_S)
        if self._pump is not None:
            self._pump.join(timeout=KILL_PATIENCE_S)

    def _copy(self, output: IO[bytes]) -> None:
        with output:
            file = _LogFile(
                self.log,
                maxBytes=LOG_MAX_BYTES,
                backupCount=LOG_OLD_FILES,
                encoding="utf-8",
                delay=True,
            )
            for line in output:
                text = line.decode(errors="replace").rstrip("\n")
                self._last_lines.append(text)
                file.emit(logging.makeLogRecord({"msg": text}))
            with contextlib.suppress(OSError):
                file.close()


class _LogFile(logging.handlers.RotatingFileHandler):
    """Goes on where a line could not be written: on a full disk the program must not stand still
    because nobody takes what it says."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """The line is lost; the next one is tried."""
