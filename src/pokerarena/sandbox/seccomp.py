"""Which system calls a sandboxed agent may make: an allow-list, since runc applies none by itself.

Owns the list and its reasons. It follows the reach of the common container default, less everything
that a program without privileges, network or devices has no use for. What is not named is refused.
"""

from __future__ import annotations

import errno
import platform
import socket
from typing import Any, Final

_ALLOW: Final = "SCMP_ACT_ALLOW"
_REFUSE: Final = "SCMP_ACT_ERRNO"
_ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

# Every flag of clone() that makes a namespace.
_CLONE_NAMESPACES: Final = 0x7E02_0080

_GROUPS: Final = (
    # Its own memory. Not: userfaultfd, process_madvise, memfd_secret, remap_file_pages.
    "brk madvise membarrier mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock"
    " munlockall munmap memfd_create pkey_alloc pkey_free pkey_mprotect"
    # Files. Not: mknod, name_to_handle_at, open_by_handle_at, fanotify, quotactl, and nothing that
    # mounts.
    " access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat"
    " faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl"
    " fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate"
    " futimesat getcwd getdents getdents64 getxattr lchown lgetxattr link linkat listxattr"
    " llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat newfstatat open openat openat2"
    " pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv"
    " removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs statx symlink"
    " symlinkat sync_file_range tee truncate umask unlink unlinkat utime utimensat utimes vmsplice"
    " write writev inotify_add_watch inotify_init inotify_init1 inotify_rm_watch"
    # There is no terminal and no device beyond null, zero, full and random to control.
    " ioctl"
    # Waiting. Not: io_uring, and neither the older io_submit family.
    " epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2"
    " pipe pipe2 poll ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime"
    " timerfd_settime"
    # Processes and threads. clone is below; not: ptrace, process_vm_readv, kcmp, pidfd_getfd, setns,
    # unshare, personality, acct, chroot, pivot_root.
    " arch_prctl execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv"
    " futex_wake get_robust_list get_thread_area getcpu kill pidfd_open pidfd_send_signal prctl"
    " prlimit64 restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo"
    " rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo set_robust_list set_thread_area"
    " set_tid_address sigaltstack tgkill time times tkill vfork wait4 waitid"
    # Who and where it is, and what it may use.
    " capget capset getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority"
    " getresgid getresuid getrlimit getrusage getsid gettid getuid setfsgid setfsuid setgid"
    " setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid"
    " setuid sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr"
    " sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr"
    " sched_setparam sched_setscheduler sched_yield sysinfo uname seccomp landlock_add_rule"
    " landlock_create_ruleset landlock_restrict_self"
    # Time. Not: setting it.
    " alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep pause"
    " timer_create timer_delete timer_getoverrun timer_gettime timer_settime"
    # Talking to itself, and to its proxy: the one family that socket() may open is below.
    " accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg"
    " recvmsg sendmmsg sendmsg sendto setsockopt shutdown getrandom"
)
ALLOWED: Final = frozenset(_GROUPS.split())

# Named in the red-team list or known to widen the kernel's attack surface: tests assert that none
# of these ever enters the list above.
_DANGEROUS: Final = (
    "unshare setns mount umount2 move_mount open_tree fsopen fsmount fsconfig fspick"
    " mount_setattr pivot_root chroot ptrace process_vm_readv process_vm_writev process_madvise"
    " kcmp pidfd_getfd bpf perf_event_open userfaultfd keyctl add_key request_key io_uring_setup"
    " io_uring_enter io_uring_register io_setup io_submit clone3 open_by_handle_at"
    " name_to_handle_at fanotify_init init_module finit_module delete_module kexec_load"
    " kexec_file_load reboot swapon swapoff acct syslog quotactl nfsservctl settimeofday"
    " clock_settime clock_adjtime adjtimex iopl ioperm personality modify_ldt lookup_dcookie"
    " mbind set_mempolicy migrate_pages move_pages mknod mknodat vhangup sethostname"
    " setdomainname memfd_secret msgget semget shmget mq_open socketcall ipc"
)
NEVER: Final = frozenset(_DANGEROUS.split())


def profile(
    machine: str | None = None,
    *,
    own_kernel: bool = False,
) -> dict[str, Any]:
    """The profile as the OCI runtime specification writes it.

    A socket can only be of the UNIX family, also where a sandbox has a way out: its proxy listens on
    one. `own_kernel` is for gVisor, which answers system calls itself: it
    does not know the error number of a rule, without which the C library starts no thread, and
    namespaces made there are nobody else's.
    """
    architecture = _ARCHITECTURES[machine or platform.machine()]
    rules: list[dict[str, Any]] = [
        {"names": sorted(ALLOWED), "action": _ALLOW},
        # The C library then uses clone, whose flags a filter can read; clone3 hides them in memory.
        {"names": ["clone3"], "action": _ALLOW}
        if own_kernel
        else {"names": ["clone3"], "action": _REFUSE, "errnoRet": errno.ENOSYS},
        {
            "names": ["clone"],
            "action": _ALLOW,
            "args": [_argument(0, _CLONE_NAMESPACES, "SCMP_CMP_MASKED_EQ", 0)],
        },
    ]
    for name in ("socket", "socketpair"):
        only_unix = _argument(0, socket.AF_UNIX, "SCMP_CMP_EQ")
        rules.append({"names": [name], "action": _ALLOW, "args": [only_unix]})
    return {
        "defaultAction": _REFUSE,
        "defaultErrnoRet": errno.EPERM,
        # One architecture only: calls of the 32-bit and x32 tables end the process.
        "architectures": [architecture],
        "syscalls": rules,
    }


def _argument(
    index: int, value: int, comparison: str, value_two: int | None = None
) -> dict[str, Any]:
    argument: dict[str, Any] = {"index": index, "value": value, "op": comparison}
    if value_two is not None:
        argument["valueTwo"] = value_two
    return argument
