"""A sandbox with a way out, for real: it reaches what was approved, and is otherwise as closed as any."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from pokerarena.agents.models import AgentPackage, AgentVersion
from pokerarena.agents.player import Failure
from pokerarena.egress import approvals, rules
from pokerarena.egress.grants import EgressGrant
from pokerarena.egress.meters import EgressLimits
from pokerarena.ops import system_user
from pokerarena.sandbox.archive import pack, read_upload
from pokerarena.sandbox.confinement import clean_environment
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena.sandbox.remote_player import RemotePlayer
from pokerarena.service_identity.rotation import read_private_key
from tests.arena import open_arena
from tests.egress.proxies import HOST, a_proxy, a_server, until
from tests.sandbox.conftest import CALLBACK, Hosted, reporting, upload
from tests.sandbox.hosts import HOST_USER, SOURCES

EXAMPLES = Path(__file__).parents[2] / "examples" / "hosted"
ASK = """
import json
from pokerarena_sdk import egress
def ask(url):
    with egress.opener().open(url, timeout=30) as response:
        return response.read(1000).decode()
def why(url):
    try:
        return ask(url)
    except OSError as error:
        return str(error)
"""
# These wait for others in their turn, and gVisor takes its time.
PATIENT = SandboxLimits(cpu_per_callback_ms=20_000, start_timeout_ms=60_000, start_cpu_ms=60_000)
TURN_MS = 60_000


def asking(**urls: str) -> str:
    """An agent that asks for these when it is its turn, and notes what came of each."""
    return (
        ASK
        + f"""
def act(view):
    found = {{name: why(url) for name, url in {urls!r}.items()}}
    return view.check_or_call().with_note(json.dumps(found))
"""
    )


def http_answer(_data: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


@pytest.mark.parametrize("kind", ["home", "gvisor_home"])
async def test_an_agent_reaches_the_approved_host_and_no_other(kind, request, hosted, open_folder):
    home = request.getfixturevalue(kind)
    async with a_proxy(open_folder) as proxied, a_server(http_answer) as (port, received):
        source = asking(
            approved=f"http://{HOST}:{port}/hello",
            host=f"http://evil.example.org:{port}/",
            port=f"http://{HOST}:1/",
            address=f"http://127.0.0.1:{port}/",
            local=f"http://localhost:{port}/",
        )
        lines = proxied.lines(f"{HOST}:{port}")
        async with hosted(home, source, PATIENT, lines=lines) as agent:
            found = await agent.note(TURN_MS)
        assert found.pop("approved") == "hello"
        assert all("not approved" in said for said in found.values()), found
        assert [data.split(b"\r\n")[0] for data in received] == [b"GET /hello HTTP/1.1"]
        assert proxied.dialled == [("127.0.0.1", port)]
        # With the sandbox goes its way out.
        await until(lambda: not proxied.proxy._outlets)


async def test_the_example_asks_its_model_through_the_proxy(home, hosted, open_folder):
    action = next(one for one in CALLBACK["legal_actions"] if one in ("check", "call"))
    content = {"choices": [{"message": {"content": json.dumps({"action": action})}}]}
    body = json.dumps(content).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    async with a_proxy(open_folder) as proxied, a_server(lambda _: head + body) as (port, _):
        source = (EXAMPLES / "llm" / "bot.py").read_text()
        source = source.replace("https://api.example.org/", f"http://{HOST}:{port}/")
        lines = proxied.lines(f"{HOST}:{port}")
        async with hosted(home, source, PATIENT, lines=lines) as agent:
            reply = await agent.ask(TURN_MS, action_deadline_ms=TURN_MS)
        assert (reply.action, reply.note) == (action, "the model's choice")
        async with hosted(home, source, PATIENT) as agent:
            reply = await agent.ask(TURN_MS)
        assert reply.note.startswith("by rule")


async def test_private_addresses_are_denied_by_default_and_never_dialled(home, hosted, open_folder):
    async with a_proxy(open_folder, frame=None) as proxied:
        source = asking(why=f"http://{HOST}/")
        async with hosted(home, source, PATIENT, lines=proxied.lines(f"{HOST}:80")) as agent:
            assert "the address is private" in (await agent.note(TURN_MS))["why"]
        assert (proxied.asked, proxied.dialled) == ([HOST], [])


CLOSED = """
import os, socket
findings['run'] = sorted(os.listdir('/run'))
families = []
for family in range(1, 64):
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
        families.append(family)
    except OSError:
        pass
findings['families'] = families
for path in ('/proc/net/route', '/proc/net/arp'):
    found(path, lambda: open(path).read().splitlines()[1:])
found('remove', os.unlink, '/run/egress.sock')
found('replace', lambda: open('/run/other', 'w').close())
found('bind', lambda: socket.socket(socket.AF_UNIX).bind('/run/egress.sock'))
found('root', os.chmod, '/run/egress.sock', 0o777)
"""


@pytest.mark.parametrize("kind", ["home", "gvisor_home"])
async def test_a_way_out_opens_nothing_else_and_without_approval_there_is_none(
    kind, request, hosted, open_folder
):
    home = request.getfixturevalue(kind)
    async with a_proxy(open_folder) as proxied:
        async with hosted(
            home, reporting(CLOSED), PATIENT, lines=proxied.lines(f"{HOST}:443")
        ) as agent:
            with_one = await agent.note(TURN_MS)
        # A grant that was taken back before the start is as good as none.
        lines = proxied.lines(f"{HOST}:443")
        lines.renew("")
        async with hosted(home, reporting(CLOSED), PATIENT, lines=lines) as agent:
            without = await agent.note(TURN_MS)
        assert proxied.asked == []
    assert (with_one.pop("run"), without.pop("run")) == (["egress.sock"], [])
    assert with_one["families"] == without["families"] == [1]
    assert with_one["/proc/net/route"] == with_one["/proc/net/arp"] == []
    for name in ("remove", "replace", "bind"):
        assert "refused" in with_one[name], with_one


async def test_what_a_frozen_agent_holds_open_is_closed_after_a_while(home, hosted, open_folder):
    async with (
        a_proxy(open_folder, limits=EgressLimits(idle_s=1)) as proxied,
        a_server() as (port, _),
    ):
        source = f"""
from pokerarena_sdk import egress
one = None
def act(view):
    global one
    if one is None:
        one = egress.connect({HOST!r}, {port}, 30)
        return view.check_or_call().with_note('"held"')
    return view.check_or_call().with_note('"ended"' if one.recv(10) == b"" else '"open"')
"""
        lines = proxied.lines(f"{HOST}:{port}")
        async with hosted(home, source, PATIENT, lines=lines) as agent:
            assert await agent.note(TURN_MS) == "held"
            outlet = next(iter(proxied.proxy._outlets))
            await until(lambda: not outlet._connections)
            assert await agent.note(TURN_MS) == "ended"


class Approving:
    """Implements `egress.grants.GrantSource`; what it grants can be changed."""

    def __init__(self, *hosts):
        self.hosts = frozenset(hosts)

    def grant(self):
        return EgressGrant("ver_1", "run_1", self.hosts, True) if self.hosts else None


@pytest.mark.parametrize("where", ["leased", "relayed", "another user"])
async def test_a_worker_grants_and_takes_back(start_host, pool_for, keys, where):
    async with a_server(http_answer) as (port, _):
        package = read_upload(
            upload(
                ASK + "def act(view):\n    return view.check_or_call()"
                f".with_note(repr(why('http://{HOST}:{port}/')))\n",
                egress=[f"{HOST}:{port}"],
            )
        )
        key = read_private_key(keys / "worker.pem")
        other = where == "another user"
        if other:
            system_user.ensure(HOST_USER)
        async with a_proxy(keys, key=key, name="one", group=HOST_USER if other else "") as proxied:
            became = ("--user", HOST_USER) if other else ()
            host = start_host("one", "--egress-proxy", str(proxied.path), *became)
            pool = pool_for(host)
            pool.packages[package.digest] = pack(package)
            source = Approving(f"{HOST}:{port}")
            if where != "relayed":
                player = pool.book(1, PATIENT).player(
                    package.digest, package.manifest, egress=source
                )
            else:
                player = RemotePlayer(pool.book(1, PATIENT), package.digest, 1, egress=source)
            agent = Hosted(player)
            await player.open()
            try:
                assert (await agent.ask(TURN_MS)).note == "'hello'"
                source.hosts = frozenset()
                pool.renew_egress()
                outlet = next(iter(proxied.proxy._outlets))
                await until(lambda: outlet._grant is None)
                assert "nothing now" in (await agent.ask(TURN_MS)).note
            finally:
                await player.close()
            # Nothing granted, nothing asked for: the proxy is not even told.
            plain = pool.book(1, PATIENT).player(package.digest, package.manifest, egress=source)
            await plain.open()
            try:
                assert not isinstance(reply := await Hosted(plain).ask(TURN_MS), Failure)
                assert "Name or service not known" in reply.note
            finally:
                await plain.close()
            await until(lambda: not proxied.proxy._outlets)


async def test_what_an_operator_approves_a_run_reaches(start_host, keys, database_url):
    """The whole way: the row, the worker's grant, the agent-host, the proxy, the host."""
    async with a_server(http_answer) as (port, received):
        source = (
            ASK
            + f"""
def act(view):
    return view.check_or_call().with_note(why('http://{HOST}:{port}/'))
"""
        )
        declared = [f"{HOST}:{port}", f"other.example.org:{port}"]
        package = read_upload(upload(source, egress=declared))
        key = read_private_key(keys / "worker.pem")
        async with (
            a_proxy(keys, key=key, name="one") as proxied,
            open_arena(
                database_url,
                agent_hosts=f"one={keys / 'one.sock'}",
                service_key=(keys / "worker.pem").read_text(),
                service_public_keys=(keys / "service-keys.json").read_text(),
            ) as arena,
        ):
            start_host("one", "--egress-proxy", str(proxied.path))
            run_id = await arena.order(["hosted", "caller"], hands=2)
            async with arena.database.unit_of_work() as session:
                version = await session.scalar(
                    select(AgentVersion).where(AgentVersion.kind == "hosted")
                )
                version.package_digest = bytes.fromhex(package.digest)
                version.manifest = package.manifest.as_dict()
                packed = pack(package)
                session.add(
                    AgentPackage(digest=version.package_digest, bytes=packed, size=len(packed))
                )
                approvals.declare(session, version.id, declared)
                await session.flush()
                await approvals.decide(
                    session, version.id, declared[0], approve=True, by=None,
                    policy=await rules.current_policy(session, arena.settings),
                )  # fmt: skip
            run = await arena.play(run_id)
            assert (run.status, run.hands_done) == ("completed", 2), run.failure_detail
            (fallbacks,) = await arena.rows(
                "SELECT fallbacks FROM run_seats WHERE run_id = :id AND seat_no = 1", id=run_id
            )
            assert fallbacks == ({},)
        assert received
        assert {destination for _, destination in proxied.dialled} == {port}
        assert set(proxied.asked) == {HOST}


@pytest.fixture
def start_proxy(keys):
    started = []

    def start(*options, **environment):
        command = [
            sys.executable, "-m", "pokerarena.egress.proxy", "--name", "one",
            "--public-keys", str(keys / "service-keys.json"), "--socket", str(keys / "egress.sock"),
            *options,
        ]  # fmt: skip
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(os.environ)
            | {"PYTHONPATH": os.pathsep.join(map(str, SOURCES))}
            | environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_proxy_is_a_process_without_secrets_or_privileges(start_proxy):
    refused = start_proxy(POKERARENA_DATABASE_URL="postgresql+psycopg://arena@db/arena")
    _, said = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "must not hold one" in said
    process = start_proxy("--user", "nobody", "--idle-s", "7")
    assert process.stdout.readline().startswith("ready ")
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == {"65534"}
    assert status["CapEff"].strip("0") == ""
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
