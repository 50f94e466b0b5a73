"""The OCI bundle of a sandbox: a pure function from what it may do to `config.json`.

Owns the whole description of a sandbox for every runtime. It reads no file and no environment, so
nothing of ours can slip into what an agent sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pokerarena.sandbox import seccomp
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena_sdk.manifest import Manifest

OCI_VERSION: Final = "1.0.2"
AGENT_FOLDER: Final = "/agent"
AGENT_UID: Final = 1000
# Of a sandbox with a way out, with this one file in it; the SDK names both.
EGRESS_FOLDER: Final = "/run"
EGRESS_SOCKET: Final = "egress.sock"
CPU_PERIOD_US: Final = 100_000
# A sandbox owns two host ids: one for its root, who runs nothing, one for the agent.
IDS_PER_SANDBOX: Final = 2

_RLIMIT_STACK_BYTES: Final = 8 * 1024 * 1024
_MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/config.gz", "/proc/interrupts", "/proc/kcore",
    "/proc/keys", "/proc/key-users", "/proc/kallsyms", "/proc/kmsg", "/proc/latency_stats",
    "/proc/modules", "/proc/sched_debug", "/proc/scsi", "/proc/slabinfo", "/proc/softirqs",
    "/proc/stat", "/proc/sysvipc", "/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo",
    "/proc/zoneinfo", "/proc/mdstat", "/proc/diskstats", "/proc/partitions", "/proc/swaps",
    "/proc/locks", "/proc/pressure", "/proc/cmdline", "/proc/iomem", "/proc/ioports",
)  # fmt: skip
_READ_ONLY: Final = (
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/proc/driver",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything that distinguishes one sandbox from another."""

    rootfs: str
    agent_folder: str
    manifest: Manifest
    limits: SandboxLimits
    cgroup_path: str
    host_id_base: int
    # What the runtime itself needs inside the same cgroup.
    extra_pids: int = 0
    extra_memory_bytes: int = 0
    own_kernel: bool = False
    # Where the socket of its way out is; only for what an operator approved.
    egress_folder: str | None = None


def command(manifest: Manifest) -> list[str]:
    """How the agent is started inside."""
    entry = f"{AGENT_FOLDER}/{manifest.entry_point}"
    if manifest.runtime == "python3":
        # -s -E: no user site, no PYTHON variables; the SDK lies in the shared root.
        return ["/usr/bin/python3", "-sEB", "-m", "pokerarena_sdk", "run", entry]
    return [entry]


def config(spec: SandboxSpec) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "ociVersion": OCI_VERSION,
        "process": _process(spec),
        "root": {"path": spec.rootfs, "readonly": True},
        "hostname": "sandbox",
        "mounts": _mounts(spec),
        "linux": {
            "cgroupsPath": spec.cgroup_path,
            "namespaces": [
                {"type": kind}
                for kind in ("user", "pid", "mount", "network", "ipc", "uts", "cgroup")
            ],
            "uidMappings": _mapping(spec.host_id_base),
            "gidMappings": _mapping(spec.host_id_base),
            "resources": _resources(spec),
            "seccomp": seccomp.profile(own_kernel=spec.own_kernel),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "rootfsPropagation": "private",
        },
    }


def _process(spec: SandboxSpec) -> dict[str, Any]:
    limits = spec.limits
    hard = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": limits.tmp_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.pids_max + spec.extra_pids,
        "RLIMIT_STACK": _RLIMIT_STACK_BYTES,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_NICE": 0,
        "RLIMIT_SIGPENDING": 256,
    }
    return {
        "terminal": False,
        "user": {"uid": AGENT_UID, "gid": AGENT_UID, "umask": 0o077},
        "args": command(spec.manifest),
        # All of it is here: a sandbox inherits no variable.
        "env": [
            "PATH=/usr/bin",
            "HOME=/tmp",
            "TMPDIR=/tmp",
            "LANG=C.UTF-8",
            "PYTHONUNBUFFERED=1",
            # One core of quota: threads would only get in each other's way.
            "OMP_NUM_THREADS=1",
            "OPENBLAS_NUM_THREADS=1",
        ],
        "cwd": AGENT_FOLDER,
        "capabilities": {
            kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
        },
        "rlimits": [{"type": name, "hard": most, "soft": most} for name, most in hard.items()],
        "noNewPrivileges": True,
        "oomScoreAdj": 1000,
    }


def _mounts(spec: SandboxSpec) -> list[dict[str, Any]]:
    limits = spec.limits
    closed = ["nosuid", "nodev"]
    mounts = [
        _mount("/proc", "proc", "proc", [*closed, "noexec"]),
        _mount(
            "/dev", "tmpfs", "tmpfs",
            ["nosuid", "noexec", "strictatime", "mode=755", "size=64k", "nr_inodes=64", "ro"],
        ),
        _mount(
            "/tmp", "tmpfs", "tmpfs",  # noqa: S108 - the sandbox's own
            [
                *closed, "noexec", "mode=1777",
                f"size={limits.tmp_bytes}", f"nr_inodes={limits.tmp_inodes}",
            ],
        ),
        _mount(AGENT_FOLDER, "bind", spec.agent_folder, ["bind", "ro", *closed]),
    ]  # fmt: skip
    if spec.egress_folder is not None:
        # A folder with nothing in it but the socket: a file of its own would need a place to mount on.
        mounts.append(
            _mount(EGRESS_FOLDER, "bind", spec.egress_folder, ["bind", "ro", *closed, "noexec"])
        )
    return mounts


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _mapping(base: int) -> list[dict[str, int]]:
    return [
        {"containerID": 0, "hostID": base, "size": 1},
        {"containerID": AGENT_UID, "hostID": base + 1, "size": 1},
    ]


def _resources(spec: SandboxSpec) -> dict[str, Any]:
    limits = spec.limits
    memory_bytes = limits.memory_bytes + spec.extra_memory_bytes
    return {
        "devices": [{"allow": False, "access": "rwm"}],
        # Swap counts with memory: the same figure for both means none.
        "memory": {"limit": memory_bytes, "swap": memory_bytes, "swappiness": 0},
        "cpu": {
            "quota": int(limits.cpu_cores * CPU_PERIOD_US),
            "period": CPU_PERIOD_US,
        },
        "pids": {"limit": limits.pids_max + spec.extra_pids},
    }
