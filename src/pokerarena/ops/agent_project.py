"""An agent on its author's machine: made, packed, and sent to an arena.

Owns: what is said about it. The folder and the upload are the SDK's.
Must never: print a token, or follow a redirect with one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pokerarena.errors import Invalid, Unavailable
from pokerarena.ops.api_client import ApiClient
from pokerarena.sandbox.local import read_agent
from pokerarena_sdk import project
from pokerarena_sdk.project import ProjectError

CHECK_WITHIN_S: Final = 300.0
LOOK_EVERY_S: Final = 0.5

Write = Callable[[str], None]


def make(folder: Path, *, write: Write) -> None:
    """Makes the folder of a new agent."""
    try:
        written = project.init(str(folder))
    except (ProjectError, OSError) as error:
        raise _refused(error) from None
    for name in written:
        write(f"wrote {folder / name}")
    write(f"next: edit {folder / 'bot.py'}, then pokerarena agent check {folder}")


def pack(target: Path, out: Path | None, *, write: Write) -> None:
    """Writes the upload, after the checks that the arena would make."""
    package = read_agent(target)
    out = out or Path(f"{target.resolve().stem}.tar.gz")
    try:
        packed = project.pack(str(target))
        out.write_bytes(packed)
    except (ProjectError, OSError) as error:
        raise _refused(error) from None
    write(f"wrote {out}: {len(packed):,} bytes, {len(package.files)} files, {package.digest}")


def push(target: Path, *, agent: str, token: str, server: str, wait: bool, write: Write) -> bool:
    """Uploads a version; whether it may play, as far as that is known."""
    read_agent(target)
    try:
        version = project.push(str(target), server, agent, token)
    except (ProjectError, OSError) as error:
        raise _refused(error) from None
    write(f"version {version['number']} of {agent}: {version['id']}")
    for host in version["manifest"]["egress"]:
        write(f"{host} waits for an operator's approval; until then it cannot be reached")
    if not wait:
        return True
    client = ApiClient(server, token=token)
    give_up_s = time.monotonic() + CHECK_WITHIN_S
    while version["check_status"] == "pending":
        if time.monotonic() > give_up_s:
            raise Unavailable(
                "check_not_done",
                "The arena has not checked the version yet: does a worker with an agent-host run? "
                f"Look again at /v1/agents/{agent}/versions/{version['id']}.",
            )
        time.sleep(LOOK_EVERY_S)
        version = client.get(f"/v1/agents/{agent}/versions/{version['id']}")
    return _tell(version, write)


def _tell(version: dict[str, Any], write: Write) -> bool:
    report = version["check_report"] or {}
    for finding in report.get("findings", []):
        write(f"{finding['severity']} {finding['code']}, in {finding['where']}:")
        write(f"        {finding['sentence']}")
    if report.get("stderr"):
        write("its stderr ends with:")
        for line in report["stderr"].splitlines()[-10:]:
            write(f"        {_printable(line)}")
    passed: bool = version["check_status"] == "passed"
    write("passed: it can take a seat" if passed else "failed: it cannot take a seat")
    return passed


def _printable(line: str) -> str:
    """An agent's words must not write to the author's terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in line[:500])


def _refused(error: Exception) -> Invalid:
    text = str(error)
    return Invalid("agent_unreadable", f"{text[:1].upper()}{text[1:]}.")
