"""The SDK's end of the pipe, as a real process."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pokerarena_sdk
from pokerarena_sdk.practice import positions

SDK_ROOT = str(Path(pokerarena_sdk.__file__).parent.parent)
CALLBACK = next(positions())[1]


def asked(number):
    return json.dumps(CALLBACK | {"decision_id": f"d{number}"}).encode() + b"\n"


def run_agent(tmp_path, source, lines, timeout=20):
    path = tmp_path / "bot.py"
    path.write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pokerarena_sdk", "run", str(path)],
        input=lines,
        capture_output=True,
        timeout=timeout,
        env={"PYTHONPATH": SDK_ROOT, "PATH": os.environ["PATH"]},
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode(), done


def test_every_waiting_callback_is_answered_under_its_own_id(tmp_path):
    lines = b"".join(asked(number) for number in range(50))
    answers, _, _ = run_agent(tmp_path, "def act(view): return view.call()", lines)
    assert [answer["decision_id"] for answer in answers] == [f"d{number}" for number in range(50)]


@pytest.mark.parametrize(
    "tail", ["", "\nfrom pokerarena_sdk import run\nif __name__ == '__main__': run(act)"]
)
def test_a_file_works_with_and_without_calling_run(tmp_path, tail):
    answers, _, done = run_agent(tmp_path, "def act(view): return 'fold'" + tail, asked(1))
    assert answers == [{"action": "fold", "decision_id": "d1"}]
    assert done.returncode == 0


def test_what_the_agent_prints_never_reaches_the_protocol(tmp_path):
    source = "import os\ndef act(view):\n print('x')\n os.system('echo y')\n return 'fold'"
    answers, errors, _ = run_agent(tmp_path, source, asked(1))
    assert [answer["action"] for answer in answers] == ["fold"]
    assert "x" in errors
    assert "y" in errors


def test_an_exception_in_act_is_an_answer_that_names_it(tmp_path):
    answers, errors, _ = run_agent(tmp_path, "def act(view): return 1 / 0", asked(1) + asked(2))
    assert [answer["decision_id"] for answer in answers] == ["d1", "d2"]
    assert "ZeroDivisionError" in answers[0]["error"]
    assert "Traceback" in errors


def test_events_reach_on_event_and_get_no_answer(tmp_path):
    source = (
        "import sys\ndef on_event(m): print('EVENT', m['type'], file=sys.stderr)\n"
        "def act(view): return 'fold'"
    )
    event = json.dumps({"type": "hand_end", "hand_no": 1}).encode() + b"\n"
    answers, errors, _ = run_agent(tmp_path, source, event + asked(1))
    assert len(answers) == 1
    assert "EVENT hand_end" in errors


def test_an_answer_that_is_ready_does_not_wait_for_a_slow_one(tmp_path):
    path = tmp_path / "bot.py"
    path.write_text("import time\ndef act(view):\n time.sleep(0.5)\n return 'fold'")
    process = subprocess.Popen(
        [sys.executable, "-m", "pokerarena_sdk", "run", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": SDK_ROOT, "PATH": os.environ["PATH"]},
    )
    try:
        process.stdin.write(asked(1) + asked(2) + asked(3))
        process.stdin.flush()
        started_s = time.monotonic()
        assert select.select([process.stdout], [], [], 10)[0]
        os.read(process.stdout.fileno(), 65536)
        assert time.monotonic() - started_s < 1.2
    finally:
        process.kill()
        process.communicate()
