"""The agent-host of `up`: what it is given, and that the arena goes on where there can be none."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pokerarena.errors import Unavailable
from pokerarena.ops.data_directory import DataDirectory
from pokerarena.ops.hosting import Hosting
from pokerarena.ops.up import Arena
from pokerarena.sandbox.confinement import refuse_secrets
from pokerarena.sandbox.runtime import Runtime, RuntimeName
from pokerarena.service_identity.keys import ServiceName
from pokerarena.service_identity.rotation import read_key_set, read_private_key

HERE = {
    RuntimeName.RUNC: Runtime(RuntimeName.RUNC, "/usr/sbin/runc"),
    RuntimeName.CRUN: Unavailable("crun_refuses_hybrid_cgroups", "no"),
}


def an_arena(folder: Path) -> Any:
    return SimpleNamespace(directory=DataDirectory.open(folder / "data"), hurry=threading.Event())


def test_without_a_runtime_it_says_why_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokerarena.sandbox.runtime._SYSTEM_FOLDERS", "/nowhere")
    hosting = Hosting(an_arena(tmp_path), wanted=True)
    assert hosting.obstacle is not None
    assert "runc is not installed" in hosting.obstacle
    assert hosting.settings() == {}
    hosting.start()
    hosting.keep_alive(pytest.fail)
    hosting.stop()
    assert not (tmp_path / "data" / "agent-host").exists()


def test_one_that_nobody_wants_is_no_obstacle(tmp_path: Path) -> None:
    hosting = Hosting(an_arena(tmp_path), wanted=False)
    assert (hosting.possible, hosting.obstacle, hosting.settings()) == (False, None, {})


def test_worker_and_host_have_keys_of_their_own_and_know_each_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokerarena.ops.hosting.SOCKET_PATH_MAX_BYTES", 4096)
    monkeypatch.setattr("pokerarena.ops.hosting.runtimes_here", lambda: HERE)
    arena = an_arena(tmp_path)
    settings = Hosting(arena, wanted=True).settings()
    private = Path(settings["POKERARENA_SERVICE_KEY_FILE"])
    assert private.parent == arena.directory.secrets
    assert private.stat().st_mode & 0o077 == 0
    folder = arena.directory.path / "agent-host"
    assert (folder / "key.pem").stat().st_mode & 0o077 == 0
    known = read_key_set(Path(settings["POKERARENA_SERVICE_PUBLIC_KEYS_FILE"]))
    assert {key.kid: key.service for key in known.values()} == {
        read_private_key(private).kid: ServiceName.WORKER,
        read_private_key(folder / "key.pem").kid: ServiceName.AGENT_HOST,
    }
    assert settings["POKERARENA_AGENT_HOSTS"] == f"local={folder / 'run' / 'host.sock'}"
    # The next start keeps them: workers and hosts of before must still know each other.
    again = Hosting(arena, wanted=True).settings()
    assert again == settings
    assert [*read_key_set(folder / "service-keys.json")] == [*known]
    # One that got lost means new ones for both.
    private.unlink()
    Hosting(arena, wanted=True)
    assert read_private_key(private).kid in read_key_set(folder / "service-keys.json")
    assert not set(known) & set(read_key_set(folder / "service-keys.json"))
    with pytest.raises(Exception, match="POKERARENA_SERVICE_KEY"):
        refuse_secrets({"POKERARENA_SERVICE_KEY_FILE": str(private)})


def test_the_agent_host_and_its_proxy_get_no_secret_and_find_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokerarena.ops.hosting.SOCKET_PATH_MAX_BYTES", 4096)
    monkeypatch.setattr("pokerarena.ops.hosting.find_runtime", lambda: None)
    monkeypatch.setenv("POKERARENA_MASTER_KEY", "a secret")
    started: dict[str, tuple[list[str], dict[str, str]]] = {}

    class Recorded:
        def __init__(self, name: str, argv: list[str], **options: Any) -> None:
            started[name] = (argv, options["environment"])

        def start(self) -> None:
            pass

        def stop(self, _: threading.Event) -> None:
            started.popitem()

    monkeypatch.setattr("pokerarena.ops.hosting.Child", Recorded)
    hosting = Hosting(an_arena(tmp_path), wanted=True)
    hosting.start()
    assert started.keys() == {"egress-proxy", "agent-host"}
    for _, environment in started.values():
        refuse_secrets(environment)
    proxy, host = (started[name][0] for name in ("egress-proxy", "agent-host"))
    assert proxy[proxy.index("--socket") + 1] == host[host.index("--egress-proxy") + 1]
    assert proxy[proxy.index("--user") + 1] == "nobody"
    hosting.stop()
    assert started == {}


def test_of_the_processes_only_the_worker_gets_the_key_of_the_agent_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokerarena.ops.hosting.SOCKET_PATH_MAX_BYTES", 4096)
    monkeypatch.setattr("pokerarena.ops.hosting.runtimes_here", lambda: HERE)
    monkeypatch.setattr("pokerarena.ops.up.EmbeddedPostgres.socket_dir", tmp_path)
    arena = Arena(DataDirectory.open(tmp_path / "data"), port=1, agent_host=True)
    names = {"POKERARENA_SERVICE_KEY_FILE", "POKERARENA_AGENT_HOSTS"}
    assert names <= arena.environment("worker").keys()
    # Also where it comes from whoever starts the arena.
    monkeypatch.setenv("POKERARENA_SERVICE_KEY_FILE", "/somewhere")
    monkeypatch.setenv("POKERARENA_SERVICE_KEY", "a key")
    assert arena.environment("api")["POKERARENA_SANDBOX_RUNTIMES"] == "runc"
    for process in ("api", "backup"):
        given = arena.environment(process)
        assert not [name for name in given if "AGENT_HOST" in name or "SERVICE_KEY" in name], (
            process
        )
