"""Hosted agents that play: in order, in flight, and each way of failing under its own name."""

import asyncio
import time

import pytest

from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.protocol.messages import Answer, RunEnd, RunStart
from tests.sandbox.conftest import TIGHT, traces

CALLER = "def act(view): return view.check_or_call()"
RUN_START = RunStart(
    run_id="r", table_id="t", seat=1, lineup=(), format="reset", planned_hands=1, small_blind=50,
    big_blind=100, ante=0, ante_kind="each", starting_stack=10000, time_limit_ms=2000, time_bank_ms=0,
)  # fmt: skip
RUN_END = RunEnd(run_id="r", table_id="t", seat=1, status="completed", hands_played=1, net=0)

RAW = """
import json, sys, time, os
def say(text):
    os.write(1, text.encode() + b"\\n")
for line in iter(sys.stdin.readline, ""):
    callback = json.loads(line)
"""


def limits(**changes):
    from dataclasses import replace

    return replace(TIGHT, **changes)


async def test_it_answers_one_after_another_and_many_at_once(home, hosted):
    async with hosted(home, CALLER, max_in_flight=64) as agent:
        for _ in range(20):
            assert (await agent.ask()).action == "call"
        replies = await agent.many(64)
        assert [reply.action for reply in replies] == ["call"] * 64
        assert [reply.decision_id for reply in replies] == [f"decision-{n}" for n in range(21, 85)]
        assert agent.player.usage().starts == 1


async def test_answers_in_any_order_reach_the_right_question(home, hosted):
    source = RAW + (
        "    held = globals().setdefault('held', []); held.append(callback['decision_id'])\n"
        "    if len(held) == 8:\n"
        "        for name in reversed(held):\n"
        "            say(json.dumps({'action': 'raise', 'amount': int(name[9:]),"
        " 'decision_id': name}))\n"
    )
    async with hosted(home, source, max_in_flight=8) as agent:
        replies = await agent.many(8)
        assert [reply.amount for reply in replies] == list(range(1, 9))


async def test_an_agent_that_gives_no_ids_may_be_asked_one_at_a_time(home, hosted):
    async with hosted(home, RAW + '    say(\'{"action": "fold"}\')') as agent:
        for _ in range(3):
            assert await agent.ask() == Answer("fold")


async def test_without_ids_several_in_flight_are_malformed(home, hosted):
    async with hosted(home, RAW + '    say(\'{"action": "fold"}\')', max_in_flight=2) as agent:
        first, _ = await agent.many(2)
        assert first.reason is FallbackReason.MALFORMED
        assert "decision_id" in first.detail


async def test_a_late_answer_is_never_taken_for_the_next_question(home, hosted):
    source = RAW + (
        "    slow = callback['decision_id'] == 'decision-1'\n"
        "    time.sleep(0.3 if slow else 0)\n"
        "    say(json.dumps({'action': 'raise', 'amount': 1} if slow else {'action': 'fold'}))\n"
    )
    async with hosted(home, source) as agent:
        first = await agent.ask(deadline_ms=150)
        assert first.reason is FallbackReason.TIMEOUT
        assert await agent.ask() == Answer("fold")
        assert await agent.ask() == Answer("fold")


async def test_lines_before_its_turn_and_a_second_answer_are_ignored_and_counted(home, hosted):
    source = (
        'import os\nos.write(1, b\'hello\\n{"action": "fold"}\\n\')\n'
        + RAW
        + "    say(json.dumps({'action': 'call', 'decision_id': callback['decision_id']}))\n"
        "    say(json.dumps({'action': 'fold', 'decision_id': callback['decision_id']}))\n"
    )
    async with hosted(home, source) as agent:
        for _ in range(3):
            assert (await agent.ask()).action == "call"
        await asyncio.sleep(0.05)
        assert agent.player.usage().stray_lines >= 4


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        ("say('not json')", "malformed", "not JSON"),
        ('say(\'{"action": "shove"}\')', "malformed", "action must be one of"),
        ("say('[' * 10000)", "malformed", ""),
        ("say('x' * 20000)", "too_large", "16384"),
        ("os.write(1, b'x' * 20000)", "too_large", "16384"),
        ("pass", "timeout", "no answer within 400 ms"),
        ("sys.exit(3)", "sandbox_exit", "exit code 3"),
        ("os.kill(os.getpid(), 11)", "sandbox_exit", "ended|SIGSEGV|no answer"),
        ("raise ValueError('oops')", "sandbox_exit", "ValueError: oops"),
        ("os.close(1); time.sleep(60)", "sandbox_exit", "closed its stdout"),
        ("import nosuchmodule", "sandbox_exit", "nosuchmodule"),
        ("\n    while True: pass", "sandbox_cpu", "300 ms of CPU"),
        ("bytearray(200 << 20)", "sandbox_memory", "64 MiB"),
    ],
)
async def test_each_way_of_failing_has_its_reason(home, hosted, body, reason, words):
    import re

    async with hosted(home, RAW + "    " + body) as agent:
        # Long where only the quota should end it, so that a busy machine changes nothing.
        deadline_ms = 400 if reason == "timeout" else 20_000
        if "getpid" in body:
            # The first process of a sandbox ignores most signals from within, as init does.
            deadline_ms = 400
            reply = await agent.ask(deadline_ms)
            assert reply.reason in (FallbackReason.SANDBOX_EXIT, FallbackReason.TIMEOUT)
        else:
            reply = await agent.ask(deadline_ms)
            assert isinstance(reply, Failure), reply
            assert reply.reason == reason, reply
        assert re.search(words, reply.detail), reply


async def test_an_error_in_act_is_malformed_and_named(home, hosted):
    async with hosted(home, "def act(view): return view.nonsense") as agent:
        reply = await agent.ask()
        assert reply.reason is FallbackReason.MALFORMED
        assert "AttributeError" in reply.detail
        assert "Traceback" in agent.player.usage().stderr


async def test_an_agent_that_ends_is_started_again_a_bounded_number_of_times(home, hosted):
    source = RAW + '    say(\'{"action": "fold"}\'); os._exit(0)'
    async with hosted(home, source, limits(restarts_max=2)) as agent:
        replies = []
        for _ in range(6):
            replies.append(await agent.ask())
            # Let it die before it is asked again.
            await asyncio.sleep(0.1)
        assert replies[:3] == [Answer("fold")] * 3
        assert {reply.reason for reply in replies[3:]} == {FallbackReason.SANDBOX_EXIT}
        assert "not started again in this run" in replies[-1].detail
        usage = agent.player.usage()
        assert usage.starts == 3
        assert [end.reason for end in usage.ends] == [FallbackReason.SANDBOX_EXIT] * 3


async def test_what_is_in_flight_when_it_ends_fails_and_the_next_start_answers(home, hosted):
    source = (
        "import os\n"
        + RAW
        + "    if callback['hand_no'] == 666: sys.exit(1)\n"
        + "    say(json.dumps({'action': 'fold', 'decision_id': callback['decision_id']}))"
    )
    async with hosted(home, source, max_in_flight=4) as agent:
        bad = await asyncio.gather(agent.ask(hand_no=666), agent.ask(hand_no=667))
        assert [reply.reason for reply in bad] == [FallbackReason.SANDBOX_EXIT] * 2
        assert (await agent.ask()).action == "fold"


async def test_a_silent_agent_is_started_again_after_several_turns(home, hosted):
    source = RAW + (
        "    if callback['hand_no'] == 666: time.sleep(3600)\n"
        "    say(json.dumps({'action': 'fold', 'decision_id': callback['decision_id']}))"
    )
    async with hosted(home, source) as agent:
        assert (await agent.ask(150, hand_no=666)).reason is FallbackReason.TIMEOUT
        assert (await agent.ask(150)).reason is FallbackReason.TIMEOUT
        assert (await agent.ask(150)).reason is FallbackReason.TIMEOUT
        assert (await agent.ask()).action == "fold"
        assert agent.player.usage().starts == 2


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [
        ("import time; time.sleep(0)\nwhile True: pass", "sandbox_cpu", "before it was ready"),
        ("def act(view) return 1", "sandbox_exit", "SyntaxError"),
        ("import nosuchmodule", "sandbox_exit", "nosuchmodule"),
        ("x = bytearray(300 << 20)", "sandbox_memory", "64 MiB"),
        ("", "sandbox_exit", "exit code 0"),
    ],
)
async def test_a_bad_start_is_the_agents_fault_with_a_reason(home, hosted, source, reason, words):
    async with hosted(home, source, limits(start_cpu_ms=700, restarts_max=1)) as agent:
        reply = await agent.ask()
        assert reply.reason == reason, reply
        assert words in reply.detail
        assert agent.player.usage().starts == 2


async def test_our_own_failure_is_infrastructure_and_costs_the_agent_no_start(home, hosted):
    async with hosted(home, CALLER) as agent:
        assert (await agent.ask()).action == "call"
        root, home.rootfs = home.rootfs, home.rootfs / "gone"
        agent.process.kill()
        while agent.player._process is not None:
            await asyncio.sleep(0.01)
        reply = await agent.ask()
        assert reply.reason is FallbackReason.INFRASTRUCTURE, reply
        home.rootfs = root
        assert (await agent.ask()).action == "call"


async def test_callbacks_in_flight_share_their_cpu_and_save_nothing(home, hosted):
    source = (
        "import time\ndef act(view):\n"
        " end = time.process_time() + view.hand_no / 1000\n"
        " while time.process_time() < end: pass\n"
        " return 'fold'"
    )
    async with hosted(home, source, max_in_flight=8) as agent:
        # Eight of 150 ms each are within 8 × 300.
        replies = await asyncio.gather(*(agent.ask(60_000, hand_no=150) for _ in range(8)))
        assert [reply.action for reply in replies] == ["fold"] * 8
        # One of 600 ms is not, whatever was saved before.
        assert (await agent.ask(60_000, hand_no=600)).reason is FallbackReason.SANDBOX_CPU


async def test_between_turns_it_is_frozen(home, hosted):
    async with hosted(home, CALLER) as agent:
        await agent.ask()
        await asyncio.sleep(0.05)
        assert agent.process.cgroup.frozen
        started_s = time.monotonic()
        assert (await agent.ask()).action == "call"
        assert time.monotonic() - started_s < 0.5


async def test_events_come_only_when_the_manifest_asks(home, hosted):
    source = (
        "import sys\ndef on_event(m): print('EVENT', m['type'], file=sys.stderr, flush=True)\n"
        + CALLER
    )
    async with hosted(home, source, events=True) as agent:
        agent.player._run_start = None
        await agent.ask()
        await agent.player.tell(RUN_END)
        assert "EVENT run_end" in agent.player.usage().stderr
    async with hosted(home, source) as agent:
        await agent.ask()
        await agent.player.tell(RUN_END)
        assert "EVENT" not in agent.player.usage().stderr


async def test_a_cancelled_decision_leaves_the_next_one_alone(home, hosted):
    source = RAW + (
        "    time.sleep(0.2)\n"
        "    say(json.dumps({'action': 'raise', 'amount': callback['hand_no']}))"
    )
    async with hosted(home, source) as agent:
        task = asyncio.create_task(agent.ask(hand_no=1))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await agent.ask(hand_no=2)).amount == 2


async def test_closing_while_asked_ends_everything_at_once(home, hosted):
    async with hosted(home, RAW + "    time.sleep(3600)") as agent:
        task = asyncio.create_task(agent.ask(60_000))
        await asyncio.sleep(0.05)
        await agent.player.close()
        assert (await task).reason is FallbackReason.INFRASTRUCTURE
        assert traces(home) == []
