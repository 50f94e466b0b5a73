"""System users for what root starts and what must not be root: the database, and the agent-host.

Owns: making such a user, and telling whether it can reach a directory.
Must never: open up a directory for it. Root's home stays closed; data goes elsewhere.
"""

from __future__ import annotations

import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Final

from pokerarena.ops.embedded_errors import EmbeddedPostgresError

NAME: Final = "pgserver"


def obstacle_for(user: str, directory: Path) -> Path | None:
    """The first directory on the way to `directory` that `user` may not enter, or None."""
    record = pwd.getpwnam(user)
    path = directory.resolve()
    for step in [*reversed(path.parents), path]:
        try:
            status = step.stat()
        except FileNotFoundError:
            return None  # not made yet: whoever makes it decides
        if status.st_uid == record.pw_uid:
            allowed = status.st_mode & stat.S_IXUSR
        elif status.st_gid == record.pw_gid:
            allowed = status.st_mode & stat.S_IXGRP
        else:
            allowed = status.st_mode & stat.S_IXOTH
        if not allowed:
            return step
    return None


def ensure(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        pass
    else:
        return
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise EmbeddedPostgresError(
            f"A system user {name} is needed, since not everything may run as root, and useradd is "
            f"missing: create it, or run this as a normal user."
        )
    done = subprocess.run(
        [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
         "--shell", "/usr/sbin/nologin", name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 9):  # 9: somebody else made it at this very moment
        raise EmbeddedPostgresError(
            f"The system user {name} could not be made: {done.stderr.strip()}"
        )
