"""Red team: agents that go for the kernel, for namespaces, and for the host behind them."""

import subprocess

import pytest

from tests.sandbox.conftest import TIGHT, reporting

CALLS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments))
    return "refused " + str(ctypes.get_errno()) if result == -1 else "DONE " + str(result)
"""
# Number on x86-64 and arguments that would work for a program with the rights.
SYSCALLS = {
    "unshare user": (272, 0x10000000),
    "unshare net": (272, 0x40000000),
    "unshare mount": (272, 0x00020000),
    "setns": (308, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "move_mount": (429, 0, 0, 0, 0, 0),
    "fsopen": (430, 0, 0),
    "open_tree": (428, 0, 0, 0),
    "pivot_root": (155, 0, 0),
    "chroot": (161, 0),
    "ptrace": (101, 0, 0, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "keyctl": (250, 0, -3, 0),
    "add_key": (248, 0, 0, 0, 0, -3),
    "request_key": (249, 0, 0, 0, -3),
    "io_uring_setup": (425, 8, 0),
    "io_uring_enter": (426, 0, 0, 0, 0, 0, 0),
    "clone new user": (56, 0x10000000 | 17, 0, 0, 0, 0),
    "clone new net": (56, 0x40000000 | 17, 0, 0, 0, 0),
    "clone new time": (56, 0x00000080, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0, 0),
    "syslog": (103, 3, 0, 0),
    "open_by_handle_at": (304, -100, 0, 0),
    "name_to_handle_at": (303, -100, 0, 0, 0, 0),
    "fanotify_init": (300, 0, 0),
    "mknod": (133, 0, 0o020666, 0x101),
    "settimeofday": (164, 0, 0),
    "personality": (135, 0x0040000),
    "pidfd_getfd": (438, 0, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "iopl": (172, 3),
    "quotactl": (179, 0, 0, 0, 0),
    "memfd_secret": (447, 0),
    "shmget": (29, 0, 4096, 0o1666),
    "mq_open": (240, 0, 0, 0, 0),
}


def attack(calls):
    return CALLS + "".join(
        f"findings[{name!r}] = call{tuple(arguments)}\n" for name, arguments in calls.items()
    )


def chunks(calls, size=12):
    """The note holds 1,024 bytes."""
    names = list(calls)
    return [
        {name: calls[name] for name in names[at : at + size]} for at in range(0, len(names), size)
    ]


@pytest.mark.parametrize("calls", chunks(SYSCALLS), ids=lambda calls: next(iter(calls)))
async def test_the_kernels_dangerous_calls_are_refused(home, hosted, calls):
    async with hosted(home, reporting(attack(calls))) as agent:
        findings = await agent.note()
    assert set(findings) == set(calls)
    # By the filter, not by luck with an argument: the number is EPERM.
    assert set(findings.values()) == {"refused 1"}, findings


async def test_clone3_is_absent_so_that_the_c_library_falls_back(home, hosted):
    async with hosted(home, reporting(attack({"clone3": (435, 0, 0)}))) as agent:
        assert (await agent.note()) == {"clone3": "refused 38"}


async def test_the_32_bit_system_call_table_ends_the_process(home, hosted, open_folder):
    source = open_folder / "old.c"
    source.write_text(
        "#include <stdio.h>\nint main(void) { char line[65536]; setvbuf(stdout, 0, _IONBF, 0);\n"
        " while (fgets(line, sizeof line, stdin)) {\n"
        '  int got; __asm__ volatile("int $0x80" : "=a"(got) : "a"(20));\n'
        '  printf("{\\"action\\": \\"fold\\"}\\n"); } }\n'
    )
    binary = open_folder / "old"
    subprocess.run(["gcc", "-static", "-O1", "-o", str(binary), str(source)], check=True)
    async with hosted(home, binary.read_bytes()) as agent:
        reply = await agent.ask()
        assert reply.reason == "sandbox_exit", reply
        assert "SIGSYS" in reply.detail or "SIGSEGV" in reply.detail


PRIVILEGES = """
status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)
for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Groups'):
    findings[name] = status.get(name, '0').strip()
findings['uid'] = [os.getuid(), os.geteuid(), os.getgid()]
findings['pids'] = [name for name in os.listdir('/proc') if name.isdigit()]
found('setuid', os.setuid, 0)
found('setgroups', os.setgroups, [0])
import resource
findings['core'] = resource.getrlimit(resource.RLIMIT_CORE)
found('nice', os.nice, -5)
"""


async def test_it_has_no_privilege_and_cannot_get_one(home, hosted):
    async with hosted(home, reporting(PRIVILEGES)) as agent:
        findings = await agent.note()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(findings[name], 16) == 0
    assert findings["NoNewPrivs"] == "1"
    assert findings["Seccomp"] == "2"
    assert findings["Groups"] == ""
    assert findings["uid"] == [1000, 1000, 1000]
    assert findings["pids"] == ["1"]
    assert findings["core"] == [0, 0]
    for name in ("setuid", "setgroups", "nice"):
        assert findings[name].startswith("refused")


HOST = """
def read(path): return open(path, 'rb').read(40).hex()
def write(path):
    with open(path, 'w') as out: out.write('|/tmp/x')
    return 'written'
for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/kernel/modprobe',
             '/proc/sys/vm/drop_caches', '/sys/kernel/uevent_helper', '/sys/fs/cgroup/release_agent',
             '/proc/1/oom_score_adj_x', '/proc/self/uid_map', '/proc/irq/default_smp_affinity'):
    found('w ' + path, write, path)
for path in ('/proc/kcore', '/proc/kmsg', '/dev/mem', '/dev/kmsg', '/dev/vda', '/dev/sda',
             '/dev/fuse', '/dev/kvm', '/dev/vsock', '/dev/net/tun', '/etc/shadow'):
    found('r ' + path, read, path)
findings = {
    "tried": len(findings),
    "open": {name: got for name, got in findings.items() if got and not got.startswith("refused")},
}
"""


async def test_the_kernels_switches_and_devices_are_out_of_reach(home, hosted):
    async with hosted(home, reporting(HOST)) as agent:
        findings = await agent.note()
    assert findings == {"tried": 20, "open": {}}


SURROUNDINGS = """
import re
findings['fds'] = []
for fd in range(256):
    try: findings['fds'].append(os.readlink(f'/proc/self/fd/{fd}').split(':')[0])
    except OSError: pass
findings['root'] = sorted(os.listdir('/proc/1/root/'))
findings['mounts'] = sorted({line.split()[1] for line in open('/proc/self/mounts')
                             if not line.split()[1].startswith(('/proc', '/dev'))})
findings['writable'] = sorted(line.split()[1] for line in open('/proc/self/mounts')
    if 'rw' in line.split()[3].split(',') and not line.split()[1].startswith(('/proc/', '/dev/')))
findings['cgroup'] = open('/proc/self/cgroup').read().count('pokerarena')
findings['cmdline'] = open('/proc/1/cmdline').read().split(chr(0))[:-1]
findings['masked'] = [os.path.exists(p) and len(open(p, 'rb').read(64)) for p in
                      ('/proc/kallsyms', '/proc/keys', '/proc/timer_list', '/proc/cmdline')]
findings['host'] = os.uname().nodename
"""


async def test_it_sees_its_own_files_and_pipes_and_nothing_else(home, hosted):
    async with hosted(home, reporting(SURROUNDINGS)) as agent:
        findings = await agent.note()
    assert findings["fds"] == ["pipe", "pipe", "pipe"]
    assert findings["root"] == [
        "agent",
        "bin",
        "dev",
        "etc",
        "lib",
        "lib64",
        "proc",
        "run",
        "tmp",
        "usr",
    ]
    assert findings["mounts"] == ["/", "/agent", "/tmp"]
    assert findings["writable"] == ["/proc", "/tmp"]
    assert findings["cgroup"] == 0
    assert findings["cmdline"][-1] == "/agent/bot.py"
    assert findings["masked"] == [0, 0, 0, 0]
    assert findings["host"] == "sandbox"


async def test_two_sandboxes_share_no_user_of_the_host(home, hosted):
    from pathlib import Path

    source = "def act(view): return 'fold'"
    async with hosted(home, source) as one, hosted(home, source, TIGHT) as other:
        users = {Path(f"/proc/{agent.process._pid}").stat().st_uid for agent in (one, other)}
        assert len(users) == 2
        assert min(users) >= 0x4000_0000
