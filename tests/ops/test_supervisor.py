"""Children are restarted with a growing pause, stopped with patience, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pokerarena.errors import Unavailable
from pokerarena.ops import supervisor
from pokerarena.ops.supervisor import Child

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('up', flush=True); time.sleep(600)"
)
FAILING = "import sys; print('no such luck', file=sys.stderr); sys.exit(3)"

MakeChild = Callable[..., Child]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeChild]:
    children: list[Child] = []

    def make_child(code: str, *, patience_s: float = 5.0) -> Child:
        child = Child(
            "sleeper",
            [sys.executable, "-c", code],
            log=tmp_path / "sleeper.log",
            environment=dict(os.environ),
            stop_patience_s=patience_s,
        )
        children.append(child)
        return child

    yield make_child
    hurry = threading.Event()
    hurry.set()
    for child in children:
        child.stop(hurry)


def wait_for(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def says(log: Path, text: str) -> Callable[[], bool]:
    return lambda: log.exists() and text in log.read_text()


def test_a_child_that_ends_is_started_again_after_a_pause(
    make: MakeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_FIRST_S", 0.1)
    child = make(SLEEPER)
    child.start()
    wait_for(says(tmp_path / "sleeper.log", "up"))
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not child.running)
    said: list[str] = []
    child.keep_alive(said.append)
    assert not child.running, "it was started again without a pause"
    assert said == ["the sleeper ended with code -9; starting it again in 0.1 s"]

    def alive() -> bool:
        child.keep_alive(said.append)
        return child.running

    wait_for(alive)
    assert child.pid != first
    assert len(said) == 1


def test_a_child_that_keeps_ending_is_given_up_with_its_last_words(
    make: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_FIRST_S", 0.01)
    child = make(FAILING)
    child.start()
    said: list[str] = []
    with pytest.raises(Unavailable, match=r"keeps ending \(no such luck; its log is"):
        wait_for(lambda: bool(child.keep_alive(said.append)), within_s=30.0)
    assert len(said) == supervisor.FAILURES_MAX


def test_a_child_is_asked_before_it_is_killed(make: MakeChild, tmp_path: Path) -> None:
    polite = make(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )
    polite.start()
    wait_for(says(tmp_path / "sleeper.log", "up"))
    polite.stop(threading.Event())
    assert says(tmp_path / "sleeper.log", "bye")()


@pytest.mark.parametrize("in_a_hurry", [True, False])
def test_a_stubborn_child_is_killed(make: MakeChild, tmp_path: Path, in_a_hurry: bool) -> None:
    child = make(STUBBORN, patience_s=60.0 if in_a_hurry else 0.3)
    child.start()
    wait_for(says(tmp_path / "sleeper.log", "up"))
    pid = child.pid
    assert pid is not None
    hurry = threading.Event()
    if in_a_hurry:
        hurry.set()
    started = time.monotonic()
    child.stop(hurry)
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_killed_supervisor_takes_its_children_along(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from pokerarena.ops.supervisor import Child\n"
        f"child = Child('c', [sys.executable, '-c', {SLEEPER!r}], log=Path(sys.argv[1]),"
        " environment={}, stop_patience_s=1)\n"
        "child.start()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    log = tmp_path / "child.log"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(log)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(says(log, "up"))
    finally:
        parent.kill()
        parent.communicate()
    wait_for(lambda: _ended(pid))


def test_a_log_is_bounded(make: MakeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_MAX_BYTES", 1000)
    child = make("for number in range(1000): print('line', number)")
    child.start()
    wait_for(lambda: not child.running)
    assert "line 999" in child.reason()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 1 + supervisor.LOG_OLD_FILES
    assert max(sizes) <= 1000


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_runs_on_although_its_log_cannot_be_written(tmp_path: Path) -> None:
    """As on a full disk: nobody may stand still because nobody takes what it says."""
    child = Child(
        "talker",
        [sys.executable, "-c", "for n in range(30_000): print('line', n)"],
        log=tmp_path / "missing" / "talker.log",
        environment=dict(os.environ),
        stop_patience_s=5.0,
    )
    child.start()
    wait_for(lambda: not child.running, within_s=60.0)
    assert "line 29999" in child.reason()
    child.stop(threading.Event())
