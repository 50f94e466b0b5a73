"""An agent's folder on its author's machine: start one, pack it, send it.

Owns `init`, `check`, `pack` and `push`. It must never follow a link out of the folder, and never
prints or stores the token.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from pokerarena_sdk.manifest import FILE_NAMES, BadManifest, Manifest, of_single_file, read
from pokerarena_sdk.practice import positions
from pokerarena_sdk.view import View, mistakes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FILES = 2_000
MAX_PACKED_BYTES = 32 * 1024 * 1024
ARCHIVE_TYPE = "application/gzip"
_SKIPPED_NAMES = frozenset({"__pycache__", ".git", ".venv", ".DS_Store", ".mypy_cache"})
_CHECK_TIMEOUT_S = 60
_SHOWN_STDERR_CHARS = 2_000


class ProjectError(Exception):
    """Something about the folder or the server that its author can put right."""


def init(folder: str, name: str = "") -> list[str]:
    """Make a new agent folder; returns the files written. An existing folder must be empty."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ProjectError(f"{folder} exists and is not empty; choose a new name")
    path.mkdir(parents=True, exist_ok=True)
    manifest = {
        "name": (name or path.resolve().name)[:64],
        "runtime": "python3",
        "entry_point": "bot.py",
        "max_in_flight": 16,
        "egress": [],
    }
    template = Path(__file__).parent / "template"
    (path / "agent.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    (path / "bot.py").write_bytes((template / "bot.py.txt").read_bytes())
    (path / "README.md").write_bytes((template / "README.md.txt").read_bytes())
    return ["agent.json", "bot.py", "README.md"]


def load(target: str) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the files of an agent: a folder with a manifest, or one file."""
    path = Path(target)
    if path.is_file():
        return of_single_file(path.name), {path.name: path.read_bytes()}
    if not path.is_dir():
        raise ProjectError(f"{target} is neither a file nor a folder")
    files = _files(path)
    found = [name for name in FILE_NAMES if name in files]
    if len(found) != 1:
        raise ProjectError(
            f"{target} needs exactly one of {' and '.join(FILE_NAMES)}; it has {len(found)}"
        )
    try:
        manifest = read(found[0], files[found[0]])
    except BadManifest as error:
        raise ProjectError(f"{found[0]}: {error}") from None
    if manifest.entry_point not in files:
        raise ProjectError(f"the entry point {manifest.entry_point} is not in {target}")
    return manifest, files


def pack(target: str) -> bytes:
    """A tar.gz of the agent, byte for byte the same for the same files."""
    manifest, files = load(target)
    if not any(name in files for name in FILE_NAMES):
        fields = {
            key: value for key, value in manifest.as_dict().items() if value or key == "egress"
        }
        files["agent.json"] = json.dumps(fields).encode()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            runs = manifest.runtime == "binary" and name == manifest.entry_point
            info.mode = 0o755 if runs else 0o644
            archive.addfile(info, io.BytesIO(files[name]))
    packed = gzip.compress(raw.getvalue(), 9, mtime=0)
    if len(packed) > MAX_PACKED_BYTES:
        raise ProjectError(
            f"the packed agent has {len(packed)} bytes; at most {MAX_PACKED_BYTES} are allowed"
        )
    return packed


def check(target: str, out: Any = None) -> int:
    """Run the agent on the practice positions as a plain process; returns the mistakes.

    This executes the agent with your rights: it is for your own code.
    """
    out = out or sys.stdout
    manifest, _ = load(target)
    path = Path(target).resolve()
    entry = path if path.is_file() else path / manifest.entry_point
    command = [str(entry)]
    environment = dict(os.environ)
    if manifest.runtime == "python3":
        command = [sys.executable, "-m", "pokerarena_sdk", "run", str(entry)]
        source = str(Path(__file__).resolve().parent.parent)
        old = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{source}{os.pathsep}{old}" if old else source
    elif not os.access(entry, os.X_OK):
        raise ProjectError(f"{entry.name} is not executable; chmod +x it")
    asked = list(positions())
    lines = "".join(json.dumps(callback) + "\n" for _, callback in asked)
    try:
        done = subprocess.run(
            command,
            input=lines.encode(),
            capture_output=True,
            timeout=_CHECK_TIMEOUT_S,
            cwd=entry.parent,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"no end after {_CHECK_TIMEOUT_S} s: leave the loop when stdin ends", file=out)
        return 1
    except OSError as error:
        raise ProjectError(f"{entry.name} cannot be started: {error.strerror}") from None
    wrong = _judge(asked, done.stdout, out)
    if done.returncode:
        wrong += 1
        print(f"the agent ended with exit code {done.returncode}; 0 is right", file=out)
    if wrong and done.stderr:
        print("its stderr ends with:", file=out)
        print(done.stderr.decode("utf-8", "replace")[-_SHOWN_STDERR_CHARS:], file=out)
    print(f"{wrong} mistakes" if wrong else "no mistakes", file=out)
    return wrong


def push(target: str, server: str, agent_id: str, token: str, opener: Any = None) -> dict[str, Any]:
    """Upload the agent as a new version; returns the server's description of it."""
    import urllib.error
    import urllib.request

    if not server.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise ProjectError("push sends your token: the server must be https://, or this machine")
    packed = pack(target)
    digest = hashlib.sha256(packed).hexdigest()
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked above
        f"{server.rstrip('/')}/v1/agents/{agent_id}/versions",
        data=packed,
        method="POST",
        headers={
            "authorization": f"Bearer {token}",
            "content-type": ARCHIVE_TYPE,
            # The same files are the same version, however often they are sent.
            "idempotency-key": f"sha256-{digest}",
        },
    )
    opened = opener or urllib.request.build_opener(_no_redirect())
    try:
        with opened.open(request, timeout=120) as response:
            described: dict[str, Any] = json.loads(response.read(1 << 20))
            return described
    except urllib.error.HTTPError as error:
        raise ProjectError(_problem(error.code, error.read(1 << 16))) from None
    except urllib.error.URLError as error:
        raise ProjectError(f"{server} cannot be reached: {error.reason}") from None


def _no_redirect() -> Any:
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        """A redirect would carry the token to another address."""

        def redirect_request(self, *_: Any) -> None:
            return None

    return NoRedirect()


def _problem(status: int, body: bytes) -> str:
    try:
        problem = json.loads(body)
        return f"{problem.get('code', status)}: {problem.get('detail') or problem.get('title')}"
    except (ValueError, AttributeError):
        return f"the server answered {status}"


def _files(root: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    size = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED_NAMES)
        for name in sorted(names):
            path = Path(folder, name)
            if name in _SKIPPED_NAMES or name.endswith(".pyc"):
                continue
            inside = path.relative_to(root).as_posix()
            if path.is_symlink() or not path.is_file():
                raise ProjectError(f"{inside} is a link or a special file; replace it by a copy")
            size += path.stat().st_size
            if len(files) >= MAX_FILES or size > 4 * MAX_PACKED_BYTES:
                raise ProjectError(
                    f"{root} is too large: at most {MAX_FILES} files and "
                    f"{4 * MAX_PACKED_BYTES} bytes; move data and environments elsewhere"
                )
            files[inside] = path.read_bytes()
    return files


def _judge(asked: list[tuple[str, dict[str, Any]]], stdout: bytes, out: Any) -> int:
    answers: dict[Any, dict[str, Any]] = {}
    without_id = []
    wrong = 0
    for line in stdout.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "action" not in answer:
            error = answer.get("error") if isinstance(answer, dict) else None
            print(f"not an answer: {error or line[:120]!r}", file=out)
            wrong += 1
            continue
        if "decision_id" in answer:
            answers[answer["decision_id"]] = answer
        else:
            without_id.append(answer)
    for name, callback in asked:
        answer = answers.get(callback["decision_id"]) or (without_id and without_id.pop(0)) or {}
        problem = mistakes(View(callback), answer) if answer else "no answer"
        if problem:
            wrong += 1
            print(f"{name}: {problem}", file=out)
    return wrong
