"""An agent-host on another machine: reached over TLS, by one connection and by a whole arena."""

import asyncio
import signal
import ssl
import subprocess

import pytest

from pokerarena.agents.models import AgentPackage
from pokerarena.errors import Unavailable
from pokerarena.ops import system_user
from pokerarena.sandbox.archive import pack, read_upload
from pokerarena.sandbox.host_client import HostAddress, HostConnection, HostPool
from pokerarena.sandbox.remote_player import RemotePlayer
from tests.arena import open_arena
from tests.sandbox.conftest import TIGHT, Hosted, upload
from tests.sandbox.hosts import HOST_USER

CALLER = "def act(view): return view.check_or_call()"
pytestmark = pytest.mark.usefixtures("runc")


async def no_package(digest):
    raise AssertionError(digest)


@pytest.fixture
def secured(tmp_path):
    """A certificate for 127.0.0.1, and its key."""
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", private, "-out", certificate, "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, private


@pytest.fixture
def start_secured(start_host, secured):
    certificate, private = secured

    def start(name, *extra):
        return start_host(
            name, "--listen", "127.0.0.1:0", "--tls-certificate", str(certificate),
            "--tls-private", str(private), *extra,
        )  # fmt: skip

    return start


async def test_over_tls_it_works_the_same(start_secured, secured, identity):
    certificate, _ = secured
    host = start_secured("one")
    address, _, port = host.where.rpartition(":")
    context = ssl.create_default_context(cafile=str(certificate))
    package = read_upload(upload(CALLER))

    async def load(_):
        return pack(package)

    pool = HostPool([HostAddress("one", None, address, int(port), context)], identity, load)
    player = pool.book(1, TIGHT).player(package.digest, package.manifest)
    assert isinstance(player, RemotePlayer)
    await player.open()
    assert (await Hosted(player).ask()).action == "call"
    await player.close()
    pool.close()
    await asyncio.sleep(0.05)
    # A client that does not know the certificate refuses to talk.
    strict = HostAddress("one", None, address, int(port), ssl.create_default_context())
    with pytest.raises(Unavailable):
        await HostConnection(strict, identity, no_package).connect()
    await asyncio.sleep(0.1)


async def test_a_whole_arena_plays_over_tls_and_goes_on_when_a_host_dies(
    start_secured, secured, keys, database_url
):
    certificate, _ = secured
    system_user.ensure(HOST_USER)
    hosts = [start_secured(name, "--user", HOST_USER) for name in ("one", "two")]
    source = "import time\ndef act(view):\n time.sleep(0.01)\n return view.check_or_call()"
    package = read_upload(upload(source, max_in_flight=4))
    changes = {
        "agent_hosts": tuple(f"{host.name}={host.where}" for host in hosts),
        "service_key": (keys / "worker.pem").read_text(),
        "service_public_keys": (keys / "service-keys.json").read_text(),
        "agent_host_ca": str(certificate),
    }
    async with open_arena(database_url, **changes) as arena:
        async with arena.database.unit_of_work() as session:
            packed = pack(package)
            digest = bytes.fromhex(package.digest)
            session.add(AgentPackage(digest=digest, bytes=packed, size=len(packed)))
        lineup = [f"hosted:{package.digest}"] * 2
        run_ids = [await arena.order(lineup, 40, format=kind) for kind in ("cash", "reset")]
        playing = [asyncio.create_task(arena.play(run_id)) for run_id in run_ids]
        for run_id in run_ids:
            await arena.until(run_id, lambda run: run.hands_done > 0)
        hosts[0].end(signal.SIGKILL)
        for run in await asyncio.gather(*playing):
            assert (run.status, run.hands_done) == ("completed", 40), run.failure_detail
        voids = await arena.rows("SELECT reason, count(*) FROM void_deals GROUP BY reason")
        # In one, both or neither: where the two runs played is the hosts' business.
        assert {reason for reason, _ in voids} <= {"infrastructure"}
        fallbacks = await arena.rows("SELECT fallbacks FROM run_seats")
        assert {str(one) for (one,) in fallbacks} == {"{}"}
