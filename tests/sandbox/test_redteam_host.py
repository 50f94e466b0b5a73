"""Red team: agents that look for secrets, for the opponent, for the host; and cheats at the protocol."""

import json
import os
from pathlib import Path

import pytest

from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.protocol.messages import Answer
from tests.sandbox.conftest import CALLBACK, reporting

HUNT = """
words = ('POSTGRES', 'DATABASE', 'SECRET', 'TOKEN', 'PEPPER', 'MASTER_KEY', 'postgresql', 'HUN' + 'TED')
findings['env'] = sorted(os.environ)
findings['hits'] = [w for w in words for part in
                    (str(dict(os.environ)), ' '.join(sys.argv),
                     open('/proc/1/environ', 'rb').read().decode('latin1'),
                     open('/proc/1/cmdline').read()) if w in part]
def search(top):
    hits = []
    for folder, folders, files in os.walk(top):
        if folder.startswith(('/proc', '/usr', '/dev')): folders[:] = []; continue
        for name in files:
            try: data = open(os.path.join(folder, name), 'rb').read(65536)
            except OSError: continue
            if b'HUN' + b'TED' in data or b'BEGIN ' + b'PRIVATE' in data: hits.append(name)
    return hits
findings['files'] = search('/')
findings['agent'] = sorted(os.listdir('/agent'))
"""


async def test_no_secret_of_ours_is_anywhere_inside(home, hosted, monkeypatch, open_folder):
    monkeypatch.setenv("POKERARENA_DATABASE_URL", "postgresql://HUNTED")
    monkeypatch.setenv("POKERARENA_MASTER_KEY", "HUNTED")  # pragma: allowlist secret
    (open_folder / "secret").write_text("HUNTED")
    async with hosted(home, reporting(HUNT)) as agent:
        findings = await agent.note()
    assert findings["hits"] == []
    assert findings["files"] == []
    assert findings["agent"] == ["agent.json", "bot.py"]
    assert findings["env"] == [
        "HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "PYTHONUNBUFFERED", "TMPDIR",
    ]  # fmt: skip


async def test_the_opponents_code_cards_and_chance_are_out_of_reach(home, hosted, store):
    opponent = "import random\nrandom.seed(7)\nhidden = 'opponent'\ndef act(view): return 'fold'\n"
    async with hosted(home, opponent) as other:
        await other.ask()
        digests = [path.name for path in store.root.iterdir()]
        attack = f"""
found('store', os.listdir, {str(store.root)!r})
found('opponent', os.listdir, {str(store.root / digests[0] / "files")!r})
found('its memory', lambda: open('/proc/{other.process._pid}/mem', 'rb').read(1))
found('its root', os.listdir, '/proc/{other.process._pid}/root')
found('bundle', os.listdir, {str(home.folder)!r})
found('up', lambda: sorted(os.listdir('/agent/../../..')) == sorted(os.listdir('/')))
found('signal', os.kill, {other.process._pid}, 9)
"""
        async with hosted(home, reporting(attack)) as agent:
            findings = await agent.note()
        assert findings.pop("up") is True
        assert all(value.startswith("refused") for value in findings.values()), findings
        assert (await other.ask()).action == "fold"


async def test_links_it_plants_lead_the_host_nowhere(home, hosted, open_folder):
    target = open_folder / "target"
    target.write_text("untouched")
    attack = f"""
for name in ('/tmp/stderr', '/tmp/pid', '/tmp/config.json', '/tmp/runtime.log'):
    found(name, os.symlink, {str(target)!r}, name)
found('agent', os.symlink, {str(target)!r}, '/agent/link')
found('read', lambda: open('/tmp/pid').read())
"""
    async with hosted(home, reporting(attack)) as agent:
        findings = await agent.note()
        assert findings["agent"].startswith("refused")
        assert findings["read"].startswith("refused")
    assert target.read_text() == "untouched"


async def test_start_up_files_of_python_in_an_upload_are_never_run_by_us(home, hosted, store):
    import io
    import zipfile

    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("agent.json", json.dumps({"runtime": "python3", "entry_point": "bot.py"}))
        archive.writestr("bot.py", reporting("findings['ran'] = os.path.exists('/tmp/ran')\n"))
        for name in ("evil.pth", "sitecustomize.py", "usercustomize.py", "conftest.py", "setup.py"):
            archive.writestr(name, "import os; open('/tmp/ran', 'w').close()\n")
    marker = Path("/tmp/ran")
    marker.unlink(missing_ok=True)
    async with hosted(home, raw.getvalue()) as agent:
        # Neither here nor even inside, where it would be harmless.
        assert (await agent.note()) == {"ran": False}
    assert not marker.exists()


INJECTIONS = [
    ("an answer to another's question", '{"action": "fold", "decision_id": "decision-2"}'),
    ("two answers in a line", '{"action": "fold"}{"action": "call"}'),
    ("a key twice", '{"action": "fold", "action": "call"}'),
    ("an array", '[{"action": "fold"}]'),
    ("a huge number", '{"action": "raise", "amount": 1e400}'),
    ("a number with 10,000 digits", '{"action": "raise", "amount": ' + "9" * 10_000 + "}"),
    ("not a number", '{"action": "raise", "amount": NaN}'),
    ("a boolean", '{"action": "raise", "amount": true}'),
    ("a NUL in the note", '{"action": "fold", "note": "\\u0000"}'),
    ("half a surrogate", '{"action": "fold", "note": "\\ud800"}'),
    ("a long note", '{"action": "fold", "note": "' + "n" * 5_000 + '"}'),
    ("deep nesting", '{"action": "fold", "x": ' + "[" * 5_000 + "]" * 5_000 + "}"),
    ("a message of ours", '{"type": "hand_end", "net": {"1": 1000000}}'),
]


@pytest.mark.parametrize(
    "line", [line for _, line in INJECTIONS], ids=[name for name, _ in INJECTIONS]
)
async def test_protocol_injection_is_a_failure_of_its_author_only(home, hosted, line):
    source = (
        "import os, sys\nOUT = os.dup(1)\nLINE = " + repr(line.encode()) + "\n"
        "def act(view):\n"
        " if view.decision_id == 'decision-1': os.write(OUT, LINE + b'\\n'); import time; time.sleep(9)\n"
        " return 'fold'\n"
    )
    async with hosted(home, source) as agent:
        reply = await agent.ask(600)
        if isinstance(reply, Answer):
            # What is ignored must really be harmless.
            assert reply.amount is None
            assert reply.action == "fold"
        else:
            assert reply.reason in (FallbackReason.MALFORMED, FallbackReason.TIMEOUT), reply


async def test_an_answer_prepared_for_the_next_question_is_not_used(home, hosted):
    source = (
        "import os\nOUT = os.dup(1)\n"
        "def act(view):\n"
        " number = int(view.decision_id[9:]) + 1\n"
        ' os.write(OUT, b\'{"action": "raise", "amount": 1, "decision_id": "decision-%d"}\\n\''
        " % number)\n"
        " return 'fold'\n"
    )
    async with hosted(home, source) as agent:
        for _ in range(5):
            reply = await agent.ask()
            assert not isinstance(reply, Failure)
            assert reply.action == "fold"
        assert agent.player.usage().stray_lines >= 4


async def test_cards_it_sees_are_those_of_its_own_callback(home, hosted):
    attack = "def act(view): return view.check_or_call().with_note(json.dumps(sorted(view.raw)))\n"
    async with hosted(home, reporting(attack)) as agent:
        fields = await agent.note()
    assert fields == sorted(CALLBACK)


async def test_descriptors_of_the_host_do_not_leak_in(home, hosted, open_folder):
    (open_folder / "open").write_text("HUNTED")
    # Inheritable on purpose: a slip elsewhere in the program must not become a hole here.
    fd = os.open(open_folder / "open", os.O_RDONLY)
    os.set_inheritable(fd, True)
    attack = """
def contents():
    hits = []
    for fd in range(3, 1024):
        try: hits.append(os.readlink(f'/proc/self/fd/{fd}'))
        except OSError: pass
    return hits
findings['fds'] = contents()
"""
    try:
        async with hosted(home, reporting(attack)) as agent:
            assert (await agent.note())["fds"] == []
    finally:
        os.close(fd)
