"""An arena started as a person would start it, by its command, and everything it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pokerarena.ops.api_client import ApiClient

ROOT = Path(__file__).parents[2]
START_WITHIN_S = 90.0
STOP_WITHIN_S = 60.0


class RunningArena:
    """`pokerarena up` as a process of its own."""

    def __init__(self, data_dir: Path, *arguments: str, agent_host: bool = False) -> None:
        if not agent_host:
            arguments = (*arguments, "--no-agent-host")
        self.mark = f"journey-{uuid.uuid4()}"
        self.data_dir = data_dir
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pokerarena.ops.cli", "up", "--port", "0"),
                *("--data-dir", str(data_dir), *arguments),
            ],
            # The mark is inherited by everything that the arena starts with its environment.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    [str(ROOT / "src"), str(ROOT / "sdk" / "src"), str(ROOT)]
                ),
                "JOURNEY": self.mark,
            },
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> ApiClient:
        """Waits for the one line that scripts wait for."""
        line = self._output.readline()
        assert line.startswith("ready http://127.0.0.1:"), f"{line!r}\n{self.said()}"
        return ApiClient(line.split()[1])

    def rest_of_output(self) -> str:
        """What it printed after `ready`; only once it has ended."""
        return self._output.read()

    def said(self) -> str:
        """What it said to the person at the terminal."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self._process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        return self._process.wait(STOP_WITHIN_S)

    def left_behind(self) -> list[str]:
        """The command lines of processes that this arena started and that still live."""
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            try:
                command = (process / "cmdline").read_bytes()
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if self.mark.encode() in environment or os.fsencode(self.data_dir) in command:
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def close(self) -> None:
        """Ends it in any case, for a test that failed in the middle."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._output.close()
        self._errors.close()


def wait_for(what: str, condition: Callable[[], Any], within_s: float = 30.0) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {within_s:g} s in vain for {what}"
        time.sleep(0.1)
