"""The bundle as a pure function: what a sandbox is, whatever runtime carries it."""

import json

import pytest

from pokerarena.sandbox import seccomp
from pokerarena.sandbox.bundle import SandboxSpec, command, config
from pokerarena.sandbox.limits import MIB, SandboxLimits
from pokerarena_sdk.manifest import parse

PYTHON = parse({"runtime": "python3", "entry_point": "lib/bot.py"})
BINARY = parse({"runtime": "binary", "entry_point": "bot"})


def made(manifest=PYTHON, **changes):
    fields = {
        "rootfs": "/root-tree", "agent_folder": "/store/abc/files", "manifest": manifest,
        "limits": SandboxLimits(), "cgroup_path": "/pokerarena/a/b", "host_id_base": 0x40000000,
    } | changes  # fmt: skip
    return config(SandboxSpec(**fields))


def test_the_same_sandbox_is_the_same_bytes():
    assert json.dumps(made()) == json.dumps(made())


def test_it_has_every_namespace_and_no_capability():
    linux = made()["linux"]
    kinds = {space["type"] for space in linux["namespaces"]}
    assert kinds == {"user", "pid", "mount", "network", "ipc", "uts", "cgroup"}
    # A path would join a namespace that exists.
    assert all(set(space) == {"type"} for space in linux["namespaces"])
    process = made()["process"]
    assert not any(process["capabilities"].values())
    assert len(process["capabilities"]) == 5
    assert process["noNewPrivileges"] is True
    assert process["user"]["uid"] != 0


def test_two_host_ids_and_no_more_are_mapped():
    for name in ("uidMappings", "gidMappings"):
        mapping = made()["linux"][name]
        assert sum(entry["size"] for entry in mapping) == 2
        assert all(entry["hostID"] >= 0x40000000 for entry in mapping)


def test_nothing_is_writable_but_its_tmp():
    content = made()
    assert content["root"]["readonly"] is True
    writable = [
        mount["destination"]
        for mount in content["mounts"]
        if "ro" not in mount["options"] and mount["type"] != "proc"
    ]
    assert writable == ["/tmp"]
    for mount in content["mounts"]:
        assert "nosuid" in mount["options"]
        assert mount["destination"] == "/dev" or "nodev" in mount["options"]
    tmp = next(mount for mount in content["mounts"] if mount["destination"] == "/tmp")
    assert f"size={16 * MIB}" in tmp["options"]
    assert "nr_inodes=1024" in tmp["options"]


def test_memory_has_no_swap_and_what_the_runtime_needs_comes_on_top():
    resources = made(extra_pids=100, extra_memory_bytes=MIB)["linux"]["resources"]
    assert resources["memory"]["limit"] == resources["memory"]["swap"] == 257 * MIB
    assert resources["pids"]["limit"] == 132
    assert resources["cpu"] == {"quota": 100_000, "period": 100_000}


def test_no_variable_of_ours_is_inherited(monkeypatch):
    monkeypatch.setenv("POKERARENA_MASTER_KEY", "hunted")
    assert "hunted" not in json.dumps(made())


def test_a_binary_is_started_by_itself_and_python_without_its_environment():
    assert command(BINARY) == ["/agent/bot"]
    arguments = command(PYTHON)
    assert arguments[-1] == "/agent/lib/bot.py"
    assert "E" in arguments[1]
    assert "s" in arguments[1]


def test_the_allow_list_holds_none_of_the_dangerous_calls():
    assert not seccomp.ALLOWED & seccomp.NEVER
    rules = seccomp.profile(machine="x86_64")
    assert rules["defaultAction"] == "SCMP_ACT_ERRNO"
    assert rules["architectures"] == ["SCMP_ARCH_X86_64"]
    named = {
        name
        for rule in rules["syscalls"]
        for name in rule["names"]
        if rule["action"] == "SCMP_ACT_ALLOW"
    }
    assert not named & seccomp.NEVER
    assert {"clone", "socket"} <= named
    for rule in rules["syscalls"]:
        if {"clone", "socket", "socketpair"} & set(rule["names"]):
            assert rule["args"], "these are allowed by argument only"


def test_a_way_out_is_one_socket_more_and_nothing_else():
    plain, proxied = made(), made(egress_folder="/somewhere/out")
    (mount,) = (mount for mount in proxied["mounts"] if mount not in plain["mounts"])
    assert (mount["destination"], mount["source"]) == ("/run", "/somewhere/out")
    assert {"ro", "nodev", "nosuid", "noexec"} <= set(mount["options"])
    # The same system calls, the same empty network, the same user.
    for part in ("seccomp", "namespaces", "uidMappings", "maskedPaths"):
        assert proxied["linux"][part] == plain["linux"][part]
    assert proxied["process"] == plain["process"]


@pytest.mark.parametrize(
    "change",
    [
        {"memory_bytes": MIB}, {"cpu_cores": 0.0}, {"pids_max": 0}, {"open_files": 3},
        {"cpu_per_callback_ms": -1},
    ],
)  # fmt: skip
def test_quotas_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match="must"):
        SandboxLimits(**change)
