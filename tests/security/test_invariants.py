"""What must hold for the arena to be safe, and no off-the-shelf scanner knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "pokerarena"

# Decoders that run what they read.
UNSAFE_DECODERS = {"pickle", "marshal", "shelve", "dill", "jsonpickle", "xml", "yaml"}
# Whoever opens a connection to somewhere is one of these, or asks agents.dial.
CALLERS_OUT = {
    "agents/dial.py", "agents/http.py",  # callbacks: resolved, checked and pinned
    "egress/policy.py",  # parses URLs as the client does, and connects to nothing
    "sealing/vault.py",  # the key service that the operator names
    "auth/federation/outgoing.py",  # identity providers that the operator names, by agents.dial
    "ops/api_client.py",  # the command line, to the arena that its user names
}  # fmt: skip
CLIENTS = {"pyreqwest", "aiohttp", "httpx", "requests", "urllib.request", "http.client"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_is_decoded_that_could_run() -> None:
    for name, tree in sources():
        assert not {one.split(".")[0] for one in imported(tree)} & UNSAFE_DECODERS, name
        assert not {called for called, _ in calls(tree)} & {"eval", "exec", "compile"}, name


def test_only_the_dialler_and_the_command_line_connect_to_others() -> None:
    for name, tree in sources():
        if name in CALLERS_OUT or name.startswith("ops/"):
            continue
        found = {one for one in imported(tree) if one in CLIENTS or one.split(".")[0] in CLIENTS}
        assert not found, f"{name} imports {found}: callbacks go through agents.dial"


def test_no_certificate_goes_unchecked() -> None:
    for name, tree in sources():
        for called, call in calls(tree):
            assert not called.endswith(("_create_unverified_context", "disable_warnings")), name
            for keyword in call.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                assert not (keyword.arg in ("verify", "check_hostname") and off), name


def test_no_shell_runs_what_somebody_wrote() -> None:
    for name, tree in sources():
        for called, call in calls(tree):
            assert called not in ("os.system", "os.popen", "subprocess.getoutput"), name
            assert not [k for k in call.keywords if k.arg == "shell"], name


def test_statements_are_made_of_constants() -> None:
    """An f-string in `text(…)` may hold only names in capitals: constants of ours."""
    for name, tree in sources():
        if name.startswith(("migrations/", "ops/")):
            continue
        for called, call in calls(tree):
            if called.split(".")[-1] not in ("text", "execute", "exec_driver_sql") or not call.args:
                continue
            first = call.args[0]
            if isinstance(first, ast.JoinedStr):
                for part in first.values:
                    if isinstance(part, ast.FormattedValue):
                        assert ast.unparse(part.value).isupper(), f"{name}:{first.lineno}"
            assert not isinstance(first, ast.BinOp), f"{name}:{call.lineno}"


def test_the_api_shows_cards_through_one_door() -> None:
    """Nothing of the API touches hidden cards but what `engine.view` has let through."""
    for name, tree in sources():
        if not name.startswith("api/"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("holes", "hole_cards", "deck"):
                assert ast.unparse(node.value) in ("view", "self.view"), f"{name}:{node.lineno}"


def test_chance_that_matters_comes_from_the_operating_system() -> None:
    """`random` is for jitter; tokens, seeds and keys never come from it."""
    for name, tree in sources():
        if name.startswith(("auth/", "sealing", "protocol/", "engine/")):
            assert "random" not in imported(tree), name
