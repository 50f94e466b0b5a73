"""Red team: agents that want more than their share. Each is contained, and costs its owner only.

Every attack stops by itself at a bound that a sandbox must meet long before, so that a hole would
fail a test and not the machine.
"""

import asyncio
import time
from dataclasses import replace

import pytest

from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.sandbox.limits import MIB
from tests.sandbox.conftest import TIGHT, reporting

FOLD = "def act(view): return view.check_or_fold()\n"


async def test_a_fork_bomb_meets_the_process_limit(home, hosted):
    attack = """
import time
def bomb():
    made = 0
    for _ in range(500):
        try:
            pid = os.fork()
        except OSError as error:
            return [made, error.errno]
        if pid == 0:
            time.sleep(30); os._exit(0)
        made += 1
    return [made, 0]
found("forks", bomb)
"""
    async with hosted(home, reporting(attack)) as agent:
        made, error = (await agent.note())["forks"]
        assert made < TIGHT.pids_max
        assert error == 11
        assert len(agent.process.cgroup.pids()) <= TIGHT.pids_max


async def test_threads_meet_the_same_limit(home, hosted):
    attack = """
import threading, time
def bomb():
    made = 0
    try:
        for _ in range(500):
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start(); made += 1
    except RuntimeError:
        pass
    return made
found("threads", bomb)
"""
    async with hosted(home, reporting(attack)) as agent:
        assert (await agent.note())["threads"] < TIGHT.pids_max


async def test_a_memory_bomb_is_killed_in_the_sandbox_and_nowhere_else(home, hosted):
    source = FOLD.replace("return", "x = [b'x' * (1 << 20) for _ in range(1024)]; return")
    async with hosted(home, FOLD) as honest, hosted(home, source) as agent:
        reply = await agent.ask(5_000)
        assert reply.reason is FallbackReason.SANDBOX_MEMORY
        assert (await honest.ask()).action == "fold"
        assert honest.player.usage().starts == 1
    usage = agent.player.usage()
    assert usage.memory_peak_bytes <= TIGHT.memory_bytes
    assert usage.ends[0].reason is FallbackReason.SANDBOX_MEMORY


async def test_a_child_killed_for_memory_is_named_as_the_reason(home, hosted):
    source = """
import os
def act(view):
    pid = os.fork()
    if pid == 0:
        x = [b'x' * (1 << 20) for _ in range(1024)]
        os._exit(0)
    os.waitpid(pid, 0)
    import time; time.sleep(60)
"""
    async with hosted(home, source) as agent:
        assert (await agent.ask(2_000)).reason is FallbackReason.SANDBOX_MEMORY


async def test_a_disk_bomb_meets_the_size_and_the_inodes_of_its_tmp(home, hosted):
    attack = """
def fill():
    done = 0
    with open('/tmp/big', 'wb', buffering=0) as out:
        try:
            for _ in range(64):
                done += out.write(b'x' * (1 << 20))
        except OSError as error:
            os.unlink('/tmp/big')
            return [done, error.errno]
def inodes():
    for number in range(20000):
        try:
            open(f'/tmp/{number}', 'w').close()
        except OSError as error:
            return [number, error.errno]
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
found("size", fill)
found("inodes", inodes)
def elsewhere(path):
    open(path + '/x', 'w').close()
    return 'written'
for path in ('/', '/agent', '/usr', '/dev', '/dev/shm', '/run', '/etc', '/proc', '/sys'):
    found(path, elsewhere, path)
"""
    async with hosted(home, reporting(attack)) as agent:
        findings = await agent.note()
        written, error = findings.pop("size")
        assert written <= TIGHT.tmp_bytes
        assert error in (27, 28)
        made, error = findings.pop("inodes")
        assert made < TIGHT.tmp_inodes
        assert error == 28
        assert len(findings) == 9
        assert all(outcome.startswith("refused") for outcome in findings.values()), findings


async def test_open_files_are_bounded(home, hosted):
    attack = """
def hoard():
    held = []
    try:
        for _ in range(5000):
            held.append(os.open('/dev/null', os.O_RDONLY))
    except OSError as error:
        for fd in held: os.close(fd)
        return [len(held), error.errno]
found("files", hoard)
"""
    async with hosted(home, reporting(attack)) as agent:
        count, error = (await agent.note())["files"]
        assert count < TIGHT.open_files
        assert error == 24


@pytest.mark.parametrize("line", ["b'x' * 65536", "b'x\\n' * 32768"], ids=["no newline", "lines"])
async def test_an_output_flood_costs_a_bounded_amount_of_ours(home, hosted, line):
    source = (
        f"import os\ndef act(view):\n data = {line}\n for _ in range(16384): os.write(1, data)\n"
    )
    # The SDK sends stray output to stderr: the flood goes past it.
    source = source.replace("import os\n", "import os\nOUT = os.dup(1)\n").replace(
        "os.write(1,", "os.write(OUT,"
    )
    async with hosted(home, source) as agent:
        cpu_s = time.process_time()
        reply = await agent.ask(3_000)
        assert reply.reason in (
            FallbackReason.TOO_LARGE,
            FallbackReason.MALFORMED,
            FallbackReason.SANDBOX_CPU,
        )
        await asyncio.sleep(0.05)
        assert time.process_time() - cpu_s < 1.5


async def test_a_flood_on_stderr_is_kept_short_and_not_even_read(home, hosted):
    source = (
        "import os\ndef act(view):\n"
        " for _ in range(65536): os.write(2, b'e' * 65536)\n return 'fold'\n"
    )
    async with hosted(home, source) as agent:
        reply = await agent.ask(500)
        assert reply.reason in (FallbackReason.TIMEOUT, FallbackReason.SANDBOX_CPU)
        usage = agent.player.usage()
        assert len(usage.stderr) <= TIGHT.stderr_kept_bytes
        assert agent.player._lives._reports or agent.process.pipes.stderr_total_bytes < 4 * MIB


async def test_a_thread_that_spins_between_turns_gets_no_cpu_time(home, hosted):
    source = (
        "import threading, time\ndef spin():\n while True: pass\n"
        "started = False\n"
        "def act(view):\n"
        " global started\n"
        " if not started: threading.Thread(target=spin, daemon=True).start(); started = True\n"
        " return view.check_or_fold()\n"
    )
    limits = replace(TIGHT, cpu_per_callback_ms=5_000)
    async with hosted(home, source, limits) as agent:
        await agent.ask()
        await asyncio.sleep(0.05)
        before_ns = agent.process.cgroup.cpu_ns()
        await asyncio.sleep(0.5)
        moved_ns = agent.process.cgroup.cpu_ns() - before_ns
        print(f"CPU time of the spinning sandbox over 500 ms of others' time: {moved_ns} ns")
        assert moved_ns == 0
        # And it still plays.
        assert (await agent.ask()).action == "fold"


async def test_pondering_is_noticed_and_ends_the_grace(home, hosted):
    source = (
        "import threading\ndef spin():\n while True: pass\n"
        "threading.Thread(target=spin, daemon=True).start()\n" + FOLD
    )
    limits = replace(TIGHT, cpu_per_callback_ms=5_000, start_cpu_ms=5_000)
    async with hosted(home, source, limits) as agent:
        for _ in range(20):
            await agent.ask()
            await asyncio.sleep(0.005)
        turns = agent.player._turns
        assert turns.ponders
        await agent.ask()
        assert agent.process.cgroup.frozen


async def test_an_honest_agent_is_never_taken_for_a_ponderer(home, hosted):
    source = "import random\ndef act(view):\n sum(range(random.randrange(3000))); return 'fold'\n"
    async with hosted(home, source, replace(TIGHT, cpu_per_callback_ms=1000)) as agent:
        for pause in (0, 0.0005, 0.001, 0.003):
            for _ in range(50):
                await agent.ask()
                await asyncio.sleep(pause)
        assert not agent.player._turns.ponders


async def test_sleeping_and_dripping_end_at_the_deadline(home, hosted):
    sleeper = "import time\ndef act(view): time.sleep(60)\n"
    dripper = (
        "import os, time\nOUT = os.dup(1)\ndef act(view):\n"
        ' for letter in b\'{"action": "fold"\' * 100: os.write(OUT, bytes([letter])); time.sleep(.05)\n'
    )
    for source in (sleeper, dripper):
        async with hosted(home, source) as agent:
            started_s = time.monotonic()
            reply = await agent.ask(400)
            assert reply.reason is FallbackReason.TIMEOUT
            assert 0.39 < time.monotonic() - started_s < 1.0


async def test_children_do_not_survive_their_sandbox(home, hosted):
    attack = """
import time
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(0, 10):
                try: os.close(fd)
                except OSError: pass
            while True: time.sleep(0.01)
        os._exit(0)
    os.wait()
    return "started"
found("daemon", daemon)
"""
    async with hosted(home, reporting(attack)) as agent:
        assert (await agent.note())["daemon"] == "started"
        pids = agent.process.cgroup.pids()
        assert len(pids) == 2
    # `hosted` asserts that no process, cgroup or file of it is left.


async def test_a_child_that_outlives_the_agent_dies_with_it(home, hosted):
    source = """
import os, time
def act(view):
    if os.fork() == 0:
        os.setsid()
        while True: time.sleep(0.01)
    os._exit(7)
"""
    async with hosted(home, source, replace(TIGHT, restarts_max=0)) as agent:
        cgroup = agent.process.cgroup
        reply = await agent.ask()
        assert reply.reason is FallbackReason.SANDBOX_EXIT
        assert "exit code 7" in reply.detail
        await asyncio.sleep(0.2)
        assert cgroup.pids() == []
        assert not cgroup.exists()


async def test_signals_that_stop_or_shield_do_not_help_it(home, hosted):
    source = """
import os, signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
def act(view):
    os.kill(os.getpid(), signal.SIGSTOP)
    while True: pass
"""
    async with hosted(home, source) as agent:
        reply = await agent.ask(3_000)
        assert isinstance(reply, Failure)
        assert reply.reason in (FallbackReason.SANDBOX_CPU, FallbackReason.TIMEOUT)
