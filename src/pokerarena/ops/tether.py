"""Starts a program that cannot outlive the process that asked for it.

Owns: the last steps between fork and exec of a child: dropping to another user, and asking the
kernel to signal the child when its parent dies, so that ``kill -9`` of ``pokerarena up`` leaves no
orphans. It runs as a script of its own (before exec, in the child) because code between fork and
exec of a threaded process must not run Python in the parent's image.
Must never: import anything of ours, or anything outside the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
EXIT_PARENT_GONE = 70
EXIT_CANNOT_EXEC = 71


def command(
    argv: Sequence[str], *, death_signal: signal.Signals, user: str | None = None
) -> list[str]:
    """The command line that runs `argv` tethered to the calling process."""
    return [
        sys.executable,
        "-I",  # no environment, no current directory: this step may run with root's rights
        "-S",
        __file__,
        str(os.getpid()),
        str(int(death_signal)),
        user or "",
        *argv,
    ]


def _drop_to(user: str) -> None:
    import pwd

    record = pwd.getpwnam(user)
    os.initgroups(user, record.pw_gid)
    os.setgid(record.pw_gid)
    os.setuid(record.pw_uid)
    os.environ["HOME"] = "/"
    os.environ["USER"] = os.environ["LOGNAME"] = user


def main(arguments: list[str]) -> int:
    parent, death_signal, user, *argv = arguments
    if user:
        _drop_to(user)
    if sys.platform == "linux":
        # After the change of user: changing credentials clears the setting.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        return EXIT_PARENT_GONE  # the parent died before the kernel knew of the tether
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"cannot start {argv[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_CANNOT_EXEC


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
