"""An agent's folder: init, check, pack, push."""

import gzip
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tarfile
import threading
from io import BytesIO
from pathlib import Path

import pytest

import pokerarena_sdk
from pokerarena_sdk import project
from pokerarena_sdk.project import ProjectError

SDK_SOURCE = Path(pokerarena_sdk.__file__).parent


@pytest.fixture
def folder(tmp_path):
    target = str(tmp_path / "mybot")
    project.init(target)
    return target


def test_a_new_agent_makes_no_mistakes(folder, capsys):
    assert project.check(folder) == 0
    assert "no mistakes" in capsys.readouterr().out


def test_init_never_overwrites(folder):
    with pytest.raises(ProjectError, match="not empty"):
        project.init(folder)


def test_check_names_an_illegal_answer_and_shows_stderr(folder, capsys):
    Path(folder, "bot.py").write_text(
        "import sys\nprint('look here', file=sys.stderr)\ndef act(view): return ('raise', 1)"
    )
    assert project.check(folder) > 0
    out = capsys.readouterr().out
    assert "raise to 1 is outside" in out
    assert "look here" in out


def test_the_same_files_pack_to_the_same_bytes(folder):
    first = project.pack(folder)
    os.utime(Path(folder, "bot.py"), (1, 1))
    Path(folder, "__pycache__").mkdir()
    Path(folder, "__pycache__", "bot.pyc").write_bytes(b"junk")
    assert project.pack(folder) == first
    with tarfile.open(fileobj=BytesIO(gzip.decompress(first))) as archive:
        names = archive.getnames()
    assert names == ["README.md", "agent.json", "bot.py"]


def test_a_link_is_refused(folder):
    Path(folder, "data").symlink_to("/etc/passwd")
    with pytest.raises(ProjectError, match="link"):
        project.pack(folder)


def test_a_missing_entry_point_is_named(folder):
    Path(folder, "bot.py").unlink()
    with pytest.raises(ProjectError, match=r"bot\.py"):
        project.pack(folder)


class _Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, self.headers, body))
        status, content, headers = self.server.reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def arena():
    bound = http.server.HTTPServer(("127.0.0.1", 0), _Server)
    bound.seen, bound.reply = [], (201, {"id": "ver_1"}, {})
    threading.Thread(target=bound.serve_forever, args=(0.01,), daemon=True).start()
    yield bound
    bound.shutdown()
    bound.server_close()


def url(arena):
    return f"http://127.0.0.1:{arena.server_address[1]}"


def test_push_sends_the_packed_agent_once_per_content(folder, arena):
    assert project.push(folder, url(arena), "agent_1", "secret-token") == {"id": "ver_1"}
    path, headers, body = arena.seen[0]
    assert path == "/v1/agents/agent_1/versions"
    assert body == project.pack(folder)
    assert headers["idempotency-key"] == "sha256-" + hashlib.sha256(body).hexdigest()


def test_push_shows_the_servers_problem(folder, arena):
    arena.reply = (422, {"code": "too_large", "detail": "at most 8 MB"}, {})
    with pytest.raises(ProjectError, match="too_large: at most 8 MB"):
        project.push(folder, url(arena), "agent_1", "secret-token")


def test_the_token_never_follows_a_redirect_nor_leaves_in_the_clear(folder, arena):
    arena.reply = (302, {}, {"location": url(arena) + "/elsewhere"})
    with pytest.raises(ProjectError):
        project.push(folder, url(arena), "agent_1", "secret-token")
    assert len(arena.seen) == 1
    with pytest.raises(ProjectError, match="https"):
        project.push(folder, "http://arena.example", "agent_1", "secret-token")


def test_the_sdk_imports_nothing_but_the_standard_library_and_little_of_it():
    script = (
        "import sys; before = set(sys.modules); import pokerarena_sdk; "
        "print('\\n'.join(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": str(SDK_SOURCE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()} - {"pokerarena_sdk"}
    assert loaded <= set(sys.stdlib_module_names)
    assert not loaded & {"typing", "dataclasses", "inspect", "http", "socket", "argparse"}


def test_the_sources_are_valid_for_python_3_9():
    import ast

    for path in SDK_SOURCE.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))
