"""The check match, local players, and a match in which an attack changes nobody's chips."""

from dataclasses import replace
from pathlib import Path

import pytest

from pokerarena.agents.conformance import Finding, Summary
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.agents.seat import fallback_action, judge
from pokerarena.engine.actions import Action
from pokerarena.engine.deal import SEED_BYTES, deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see
from pokerarena.errors import Invalid, Unavailable
from pokerarena.protocol.messages import callback_from_view
from pokerarena.sandbox import local, runtime
from pokerarena.sandbox.archive import read_upload
from pokerarena.sandbox.checking import check_hosted
from pokerarena.sandbox.local import bare_player, local_sandboxes, missing, read_agent
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.process import SandboxLauncher
from pokerarena_sdk import project
from tests.sandbox.conftest import TIGHT, upload

RULES_AGENT = Path(__file__).parents[2] / "examples" / "hosted" / "rules"


def hosted_player(home, store, packed, limits=TIGHT):
    agent = store.put(read_upload(packed))
    return HostedPlayer(SandboxLauncher(home, agent), agent.manifest, limits)


async def checked(player, **options):
    findings = [item async for item in check_hosted(player, **options)]
    summary = findings.pop()
    assert isinstance(summary, Summary)
    return findings, summary


async def test_a_good_agent_passes(home, store):
    player = hosted_player(home, store, project.pack(str(RULES_AGENT)))
    findings, summary = await checked(player, hands=10)
    assert findings == []
    assert summary.passed
    assert summary.hands == 10
    assert summary.decisions > 70


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("def act(view): return ('raise', 1)", "illegal_action", "min_raise_to"),
        ("def act(view): return 1 / 0", "malformed", "ZeroDivisionError"),
        ("import nosuchmodule", "sandbox_exit", "nosuchmodule"),
        ("def act(view):\n while True: pass", "sandbox_cpu", "300 ms"),
        ("import time\ndef act(view): time.sleep(9)", "timeout", "no answer within 300 ms"),
    ],
)
async def test_every_mistake_is_named_and_a_hopeless_agent_is_given_up(
    home, store, source, code, words
):
    limit_ms = 300 if code == "timeout" else 10_000
    findings, summary = await checked(
        hosted_player(home, store, upload(source)), time_limit_ms=limit_ms, hands=2
    )
    assert not summary.passed
    assert findings[0].code == code
    assert words in findings[0].sentence
    assert isinstance(findings[0], Finding)
    if code != "illegal_action":
        assert summary.decisions <= 12


async def test_stray_output_is_a_warning(home, store):
    source = "import os\nos.write(1, b'hello\\n')\ndef act(view): return view.check_or_call()"
    findings, summary = await checked(hosted_player(home, store, upload(source)), hands=2)
    assert [finding.code for finding in findings] == ["stray_output"]
    assert summary.passed


async def test_in_flight_promises_are_tried(home, store):
    source = """
import json, sys
for line in sys.stdin:
    print('{"action": "fold"}', flush=True)
"""
    findings, summary = await checked(
        hosted_player(home, store, upload(source, max_in_flight=4)), hands=0
    )
    assert {finding.code for finding in findings} >= {"malformed"}
    assert any("decision_id" in finding.sentence for finding in findings)
    assert not summary.passed


# On one machine.


async def test_a_path_becomes_a_player_and_leaves_nothing(root_tree, runc, tmp_path):
    project.init(str(tmp_path / "mybot"))
    async with local_sandboxes(tree=root_tree.parent, build=False) as sandboxes:
        player = sandboxes.player(tmp_path / "mybot")
        _, summary = await checked(player, hands=3)
    assert summary.passed
    assert not list(Path("/var/tmp").glob("pokerarena-agents-*"))


async def test_without_a_sandbox_the_same_agent_plays(tmp_path):
    project.init(str(tmp_path / "mybot"))
    _, summary = await checked(bare_player(tmp_path / "mybot"), hands=3)
    assert summary.passed


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def act(view): import os; os._exit(2)", FallbackReason.SANDBOX_EXIT),
        ("import time\ndef act(view): time.sleep(30)", FallbackReason.TIMEOUT),
        ("def act(view): return None", FallbackReason.MALFORMED),
    ],
)
async def test_without_a_sandbox_failures_have_the_same_names(tmp_path, source, reason):
    (tmp_path / "bot.py").write_text(source)
    player = bare_player(tmp_path / "bot.py", replace(TIGHT, restarts_max=0))
    findings, _ = await checked(
        player, time_limit_ms=500 if reason is FallbackReason.TIMEOUT else 10_000, hands=0
    )
    assert findings[0].code == reason.value


def test_what_is_missing_is_said_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "_SYSTEM_FOLDERS", str(tmp_path))
    said = missing(tree=tmp_path / "nowhere")
    assert any("apt-get install runc" in sentence for sentence in said)
    assert any("rootfs build" in sentence for sentence in said)
    monkeypatch.undo()
    monkeypatch.setattr(runtime.os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="root"):
        runtime.find_runtime()


@pytest.mark.parametrize("name", ["nowhere", "empty", "text.txt"])
def test_a_path_that_is_no_agent_is_refused_with_a_sentence(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(Invalid):
        read_agent(tmp_path / name)
    assert local.DEFAULT_ROOTFS.is_absolute()


# Attacks cost their author only.


class NeverAnswers:
    """The reference: a seat for which the arena always acts."""

    max_in_flight = 1

    async def open(self, run_start):
        pass

    async def decide(self, callback, deadline_ms):
        return Failure(FallbackReason.TIMEOUT, "never answers")

    async def tell(self, message):
        pass

    async def close(self):
        pass


async def play(honest, other, hands):
    """The honest player's net chips in each hand, and the other's failures."""
    nets, failures = [], []
    for number in range(1, hands + 1):
        deal = deal_cards(b"s".ljust(SEED_BYTES, b"."), b"redteam", number, 2, number % 2)
        hand = start(Rules(50, 100), (1, 2), (5_000, 5_000), 1 + number % 2, deal).hand
        step = 0
        while not hand.complete:
            step += 1
            callback = callback_from_view(
                see(hand, Viewer.of_seats([hand.seat_to_act])), run_id="r", table_id="t",
                hand_id=f"h{number}s{step}", hand_no=number, action_deadline_ms=2_000,
            )  # fmt: skip
            ours = hand.seat_to_act == 1
            reply = await (honest.decide(callback, 20_000) if ours else other.decide(callback, 700))
            if isinstance(reply, Failure):
                assert not ours, reply
                failures.append(reply.reason)
                action = fallback_action(hand.legal())
            else:
                action = judge(reply, hand.legal())
                assert isinstance(action, Action), action
            hand = apply(hand, action).hand
        nets.append(hand.net[0] if isinstance(hand.net, tuple) else hand.net()[0])
    return nets, failures


ATTACKS = {
    "spin": "def act(view):\n while True: pass",
    "memory": "def act(view):\n x = [b'x' * (1 << 20) for _ in range(1024)]",
    "fork bomb": (
        "import os, time\ndef act(view):\n while True:\n"
        "  try: os.fork()\n  except OSError: time.sleep(.01)"
    ),
    "flood": "import os\nOUT = os.dup(1)\ndef act(view):\n while True: os.write(OUT, b'x' * 65536)",
    "exit": "def act(view): import os; os._exit(1)",
    "sleep": "import time\ndef act(view): time.sleep(60)",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_an_attack_costs_fallbacks_and_the_honest_opponent_not_one_chip(home, store, attack):
    limits = replace(TIGHT, cpu_per_callback_ms=200, restarts_max=3)
    honest = hosted_player(home, store, project.pack(str(RULES_AGENT)))
    hostile = hosted_player(home, store, upload(attack), limits)
    await honest.open()
    await hostile.open()
    try:
        nets, failures = await play(honest, hostile, 5)
        expected, _ = await play(honest, NeverAnswers(), 5)
    finally:
        await hostile.close()
        await honest.close()
    assert nets == expected
    assert failures
    assert FallbackReason.INFRASTRUCTURE not in failures
    assert honest.usage().starts == 1
