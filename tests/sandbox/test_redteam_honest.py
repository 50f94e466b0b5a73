"""Red team at one table with an honest agent: they cost their owners fallbacks, and it not one chip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pokerarena.runs.match import MatchOptions, MatchResult, play_match

HANDS = 3
HONEST = """
def act(view):
    if view.hole_cards[0][0] == view.hole_cards[1][0] and view.min_raise_to is not None:
        return view.raise_to(view.min_raise_to)
    return view.check_or_call()
"""
# What the arena does for whoever gives no answer: checks if that is legal, else folds.
ABSENT = "def act(view): return view.check_or_fold()"
ATTACKS = {
    "fork bomb": "import os\ndef act(view):\n while True:\n  try: os.fork()\n  except OSError: pass\n",
    "memory bomb": "def act(view):\n x = [b'x' * (1 << 20) for _ in range(2_000)]\n",
    "disk bomb": """
def act(view):
    for n in range(10_000): open(f'/tmp/{n}', 'wb').write(b'x' * (1 << 20))
""",
    "output flood": "import os\nOUT = os.dup(1)\ndef act(view):\n while True: os.write(OUT, b'x' * 65536)\n",
    "lines without end": """
import os
OUT = os.dup(1)
def act(view):
    while True: os.write(OUT, b'{"action": "raise", "amount": 10000, "decision_id": "x"}\\n')
""",
    "spin": """
import threading
def spin():
    while True: pass
def act(view):
    for _ in range(4): threading.Thread(target=spin, daemon=True).start()
    spin()
""",
    "sleep": "import time\ndef act(view): time.sleep(60)\n",
    "children": """
import os
def act(view):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: pass
    os._exit(1)
""",
    "injection": """
import os
OUT = os.dup(1)
def act(view):
    os.write(OUT, b'{"action": "call"}{"action": "call"}\\n[1]\\n{"type": "run_end"}\\n')
    os._exit(0)
""",
}


@pytest.fixture
def agents(tmp_path: Path) -> dict[str, str]:
    made = {}
    for name, source in {"honest": HONEST, "absent": ABSENT, **ATTACKS}.items():
        path = tmp_path / f"{name.replace(' ', '-')}.py"
        path.write_text(source)
        made[name] = str(path)
    return made


@pytest.mark.usefixtures("runc")
async def test_the_honest_opponents_results_do_not_change_by_one_chip(
    agents: dict[str, str], root_tree: Path
) -> None:
    options = MatchOptions(
        seats=(agents["honest"], *(agents["absent"] for _ in ATTACKS)),
        hands=HANDS,
        seed="red team",
        time_ms=5_000,
        rootfs=root_tree.parent,
    )
    calm = await play_match(options)
    assert all(seat.fallbacks == {} for seat in calm.seats), calm
    seats = (agents["honest"], *(agents[name] for name in ATTACKS))
    # Short for attackers, most of whom use all of it; long enough for an honest answer.
    stormy = await play_match(replace(options, seats=seats, time_ms=800))
    assert chips(stormy) == chips(calm)
    honest, *attackers = stormy.seats
    assert honest.fallbacks == {}
    for seat in attackers:
        assert sum(seat.fallbacks.values()) > 0, seat
        assert "infrastructure" not in seat.fallbacks, seat


def chips(result: MatchResult) -> list[int]:
    return [seat.chips for seat in result.seats]
