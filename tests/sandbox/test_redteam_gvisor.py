"""Red team under gVisor: the lines about processes, files and freezing, with the same agents.

Its network lines are in test_redteam_network. gVisor leaves quotas to the host's cgroup, so a bound
is met by the whole sandbox and not by one call.
"""

import asyncio
from dataclasses import replace

from pokerarena.agents.player import Failure, FallbackReason
from tests.sandbox.conftest import TIGHT, reporting, traces
from tests.sandbox.test_redteam_host import HUNT
from tests.sandbox.test_redteam_kernel import PRIVILEGES

LIMITS = replace(TIGHT, cpu_per_callback_ms=2_000, restarts_max=1, start_timeout_ms=10_000)


async def test_it_plays(gvisor_home, hosted):
    async with hosted(
        gvisor_home, "def act(view): return 'fold'", LIMITS, max_in_flight=8
    ) as agent:
        assert (await agent.ask()).action == "fold"
        assert [reply.action for reply in await agent.many(8)] == ["fold"] * 8


async def test_it_has_no_privilege(gvisor_home, hosted):
    async with hosted(gvisor_home, reporting(PRIVILEGES), LIMITS) as agent:
        findings = await agent.note(10_000)
    assert int(findings["CapEff"], 16) == int(findings["CapBnd"], 16) == 0
    assert findings["uid"] == [1000, 1000, 1000]
    assert findings["pids"] == ["1"]
    assert findings["setuid"].startswith("refused")


async def test_no_secret_is_inside(gvisor_home, hosted, monkeypatch):
    monkeypatch.setenv("POKERARENA_DATABASE_URL", "postgresql://HUNTED")
    async with hosted(gvisor_home, reporting(HUNT), LIMITS) as agent:
        findings = await agent.note(10_000)
    assert findings["hits"] == []
    assert findings["files"] == []


async def test_files_can_be_written_in_tmp_only_and_not_without_end(gvisor_home, hosted):
    attack = """
def fill():
    done = 0
    try:
        with open('/tmp/big', 'wb', buffering=0) as out:
            for _ in range(256): done += out.write(b'x' * (1 << 20))
    except OSError as error:
        return [done >> 20, error.errno]
    return [done >> 20, 0]
def elsewhere(path):
    open(path + '/x', 'w').close(); return 'written'
for path in ('/', '/agent', '/usr', '/etc', '/sys'):
    found(path, elsewhere, path)
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
found('fill', fill)
"""
    async with hosted(gvisor_home, reporting(attack), LIMITS) as agent:
        reply = await agent.ask(10_000)
        if isinstance(reply, Failure):
            assert reply.reason is FallbackReason.SANDBOX_MEMORY, reply
        else:
            import json

            findings = json.loads(reply.note)
            written_mib, error = findings.pop("fill")
            assert error
            assert written_mib <= TIGHT.tmp_bytes >> 20
            assert all(value.startswith("refused") for value in findings.values()), findings


async def test_a_fork_bomb_is_contained(gvisor_home, hosted):
    source = """
import os, time
def act(view):
    for _ in range(400):
        try:
            if os.fork() == 0: time.sleep(30); os._exit(0)
        except OSError: break
    return 'fold'
"""
    async with hosted(gvisor_home, source, LIMITS) as agent:
        await agent.ask(8_000)
        allowed = TIGHT.pids_max + gvisor_home.runtime.extra_pids
        if agent.player._process is not None:
            assert len(agent.process.cgroup.pids()) <= allowed


async def test_children_that_detached_themselves_do_not_survive(gvisor_home, hosted):
    source = """
import os, time
def act(view):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(10):
                try: os.close(fd)
                except OSError: pass
            while True: time.sleep(0.01)
        os._exit(0)
    os.wait()
    return 'fold'
"""
    async with hosted(gvisor_home, source, LIMITS) as agent:
        assert (await agent.ask(10_000)).action == "fold"
        assert agent.process.cgroup.pids()
    assert traces(gvisor_home) == []


async def test_inodes_are_bounded_by_memory_where_the_kernel_of_its_own_does_not_count_them(
    gvisor_home, hosted
):
    source = """
def act(view):
    for number in range(1_000_000):
        try: open(f'/tmp/{number}', 'w').close()
        except OSError: break
    return 'fold'
"""
    async with (
        hosted(gvisor_home, "def act(view): return 'fold'", LIMITS) as honest,
        hosted(gvisor_home, source, LIMITS) as agent,
    ):
        reply = await agent.ask(10_000)
        if isinstance(reply, Failure):
            assert reply.reason in (FallbackReason.SANDBOX_MEMORY, FallbackReason.SANDBOX_CPU), (
                reply
            )
        assert (await honest.ask()).action == "fold"
    assert traces(gvisor_home) == []


async def test_a_memory_bomb_is_killed_alone(gvisor_home, hosted):
    source = "def act(view):\n x = [b'x' * (1 << 20) for _ in range(600)]\n return 'fold'\n"
    async with (
        hosted(gvisor_home, "def act(view): return 'fold'", LIMITS) as honest,
        hosted(gvisor_home, source, LIMITS) as agent,
    ):
        reply = await agent.ask(10_000)
        assert reply.reason is FallbackReason.SANDBOX_MEMORY, reply
        assert (await honest.ask()).action == "fold"


async def test_a_spinning_thread_gets_no_cpu_time_between_turns(gvisor_home, hosted):
    source = """
import threading
started = []
def spin():
    while True: pass
def act(view):
    if not started: started.append(threading.Thread(target=spin, daemon=True)); started[0].start()
    return 'fold'
"""
    async with hosted(gvisor_home, source, LIMITS) as agent:
        reply = await agent.ask(5_000)
        assert not isinstance(reply, Failure), (reply, agent.player.usage())
        await asyncio.sleep(0.1)
        before_ns = agent.process.cgroup.cpu_ns()
        await asyncio.sleep(0.4)
        assert agent.process.cgroup.cpu_ns() == before_ns
        # A frozen gVisor sandbox cannot be killed as it is; closing thaws it first.
    assert traces(gvisor_home) == []
