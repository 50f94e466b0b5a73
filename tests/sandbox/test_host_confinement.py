"""What an agent-host holds and sees, and that it is nobody to the rest of the machine."""

import json
import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from pokerarena.errors import ConfigurationError
from pokerarena.ops import system_user
from pokerarena.sandbox.confinement import clean_environment, refuse_secrets
from tests.sandbox.hosts import HOST_USER, SOURCES, Host, opened

CALLER = "def act(view): return view.check_or_call()"
pytestmark = pytest.mark.usefixtures("runc")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POKERARENA_DATABASE_URL", "x"),
        ("POKERARENA_MASTER_KEY", "x"),
        ("POKERARENA_MASTER_KEY_FILE", "/run/secrets/x"),
        ("POKERARENA_TOKEN_PEPPER", "x"),
        ("POKERARENA_MASTER_KEYS_PREVIOUS", "x"),
        ("POKERARENA_TOKEN_PEPPERS_PREVIOUS_FILE", "/run/secrets/x"),
        ("PGPASSWORD", "x"),
        ("SOME_API_KEY", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("GITHUB_TOKEN", "x"),
        ("ANYTHING", "postgresql+psycopg://user@host/db"),
        ("ANYTHING", "https://user:secret@host/"),  # pragma: allowlist secret
        ("ANYTHING", "-----BEGIN PRIVATE KEY-----"),  # pragma: allowlist secret
    ],
)
def test_it_refuses_to_start_with_a_secret_and_names_the_variable(name, value):
    with pytest.raises(ConfigurationError, match=name):
        refuse_secrets({"PATH": "/usr/bin", name: value})


def test_an_ordinary_environment_is_accepted():
    refuse_secrets({"PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": "/root", "TZ": "UTC"})
    kept = clean_environment({"PATH": "/bin", "POKERARENA_MASTER_KEY": "x", "HOME": "/root"})
    assert kept == {"PATH": "/bin"}


def test_the_process_itself_refuses(keys, root_tree):
    environ = clean_environment(os.environ) | {
        "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
        "POKERARENA_DATABASE_URL": "postgresql+psycopg://x",
    }
    host = Host(keys, root_tree, "one", environ=environ)
    _, errors = host.process.communicate(timeout=20)
    assert host.process.returncode == 1
    assert "POKERARENA_DATABASE_URL" in errors
    assert "postgresql" not in errors


def test_of_keys_it_takes_its_own_and_a_set_of_public_ones(keys, root_tree):
    shutil.copy(keys / "host.pem", keys / "service-keys.json")
    host = Host(keys, root_tree, "one")
    _, errors = host.process.communicate(timeout=20)
    assert host.process.returncode == 1
    assert "no set of public keys" in errors
    assert (keys / "host.pem").stat().st_mode & 0o077 == 0


# What somebody would look for who got out of a sandbox and into the agent-host.
PROBE = """
import json, os, socket, sys
folder, port = sys.argv[1], int(sys.argv[2])
found = {"uid": os.getuid(), "read": [], "written": [], "connected": []}
for where, folders, files in os.walk(folder):
    for name in files:
        try:
            found["read"].append(open(os.path.join(where, name), "rb").read().decode())
        except OSError:
            pass
for path in (folder + "/planted", "/etc/planted", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
    try:
        with open(path, "a"):
            found["written"].append(path)
    except OSError:
        pass
database = folder + "/postgres/.s.PGSQL.5432"
for kind, address in ((socket.AF_UNIX, database), (socket.AF_INET, ("127.0.0.1", port))):
    try:
        socket.socket(kind).connect(address)
        found["connected"].append(str(address))
    except OSError:
        pass
found["network"] = [name for _, name in socket.if_nameindex()]
environment = open(f"/proc/{sys.argv[3]}/environ", "rb").read()
found["environment"] = [one.decode() for one in environment.split(b"\\0")]
print(json.dumps(found))
"""


async def test_from_inside_a_host_there_is_no_secret_no_database_and_no_right(
    start_host, pool_for, open_folder, monkeypatch
):
    """By a program in all of its namespaces, as its user: with everything that it has itself."""
    monkeypatch.setenv("POKERARENA_MASTER_KEY", "hunted")
    system_user.ensure(HOST_USER)
    data = open_folder / "data"
    for name in ("secrets", "postgres", "logs"):
        (data / name).mkdir(parents=True, mode=0o700)
        (data / name / "canary").write_text("hunted")
        (data / name / "canary").chmod(0o600)
    (data / "postgres").chmod(0o711)
    database = socket.socket(socket.AF_UNIX)
    database.bind(str(data / "postgres" / ".s.PGSQL.5432"))
    database.listen()
    (data / "postgres" / ".s.PGSQL.5432").chmod(0o777)
    api = socket.create_server(("127.0.0.1", 0))
    host = start_host("one", "--user", HOST_USER, "--hide", str(data / "postgres"))
    agent = await opened(pool_for(host), CALLER, way="leases")
    assert (await agent.ask()).action == "call"
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    assert f"Uid:\t{pwd.getpwnam(HOST_USER).pw_uid}\t" in status
    assert "NoNewPrivs:\t1" in status
    with database, api:
        probed = subprocess.run(
            ["nsenter", "--target", str(host.process.pid), "--user", "--mount", "--net",
             "/usr/bin/python3", "-c", PROBE, str(data), str(api.getsockname()[1]),
             str(host.process.pid)],
            capture_output=True, text=True, check=True, env={"PATH": os.defpath},
        )  # fmt: skip
    found = json.loads(probed.stdout)
    assert found["uid"] == 0, "the probe is as strong as the host itself"
    assert (found["read"], found["written"], found["connected"]) == ([], [], [])
    assert found["network"] == ["lo"]
    assert not [one for one in found["environment"] if "hunted" in one or "POKERARENA" in one]
    await agent.player.close()


async def test_a_running_host_has_no_secret_no_network_and_no_sight_of_hidden_folders(
    start_host, open_folder, monkeypatch
):
    monkeypatch.setenv("POKERARENA_MASTER_KEY", "hunted")
    hidden = open_folder / "database"
    hidden.mkdir()
    (hidden / "socket").write_text("hunted")
    host = start_host("one", "--hide", str(hidden))
    proc = Path(f"/proc/{host.process.pid}")
    assert b"hunted" not in (proc / "environ").read_bytes()
    devices = [
        line.split(":")[0].strip() for line in (proc / "net/dev").read_text().splitlines()[2:]
    ]
    assert devices == ["lo"]
    assert len((proc / "net/tcp").read_text().splitlines()) == 1
    root = proc / "root" / str(hidden).lstrip("/")
    assert list(root.iterdir()) == []
    assert (hidden / "socket").read_text() == "hunted"
