"""The root file system that all sandboxes share: Python, NumPy and the SDK, read-only, no shell.

Owns its contents and how it is built from Debian's packages: fetched by apt (which checks them
against the signed index), unpacked without running a single script of theirs, cut down, recorded.
Nothing of the host gets in but the SDK's own sources.

    python -m pokerarena.sandbox.rootfs build DIR
    python -m pokerarena.sandbox.rootfs verify DIR
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pokerarena_sdk
from pokerarena.errors import Unavailable
from pokerarena.sandbox.rootfs_files import (
    ALWAYS,
    PRUNED,
    PRUNED_FROM_PYTHON,
    STATIC_FILES,
    WITH_NUMPY,
)

RECORD: Final = "rootfs.json"
ROOT: Final = "root"
FORMAT: Final = 1
_COMMAND_TIMEOUT_S: Final = 600
_EMPTY_FOLDERS: Final = ("proc", "dev", "tmp", "agent", "run", "etc")


def build(target: Path, *, with_numpy: bool = True) -> dict[str, Any]:
    """Build `target`: the tree in `root/` and its record. Replaces an older one as a whole."""
    _need_tools()
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".rootfs-", dir=target.parent))
    try:
        staged.chmod(0o755)
        debs = staged / "debs"
        debs.mkdir()
        python = _python_package()
        names = [
            _first_known(choice, python) for choice in ALWAYS + (WITH_NUMPY if with_numpy else ())
        ]
        _run(["apt-get", "download", *names], cwd=debs)
        root = staged / ROOT
        root.mkdir()
        packages = {}
        for deb in sorted(debs.iterdir()):
            packages[deb.name.replace("%3a", ":")] = hashlib.sha256(deb.read_bytes()).hexdigest()
            _run(["dpkg-deb", "-x", str(deb), str(root)])
        shutil.rmtree(debs)
        _arrange(root, python)
        _precompile(root, python)
        _normalize(root)
        record = {
            "format": FORMAT,
            "machine": platform.machine(),
            "python": python,
            "numpy": with_numpy,
            "sdk": pokerarena_sdk.__version__,
            "packages": packages,
            "tree_sha256": tree_digest(root),
            "size_bytes": sum(path.lstat().st_size for path in _walk(root)),
        }
        (staged / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _swap(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return record


def check_record(target: Path) -> str | None:
    """Whether a root file system of this release and machine is there: quick, at each start."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"no root file system in {target}; build one: {build_command(target)}"
    except (OSError, ValueError):
        return f"the record of {target} is not readable; build it anew: {build_command(target)}"
    if record.get("format") != FORMAT or record.get("sdk") != pokerarena_sdk.__version__:
        return f"{target} was built by another release; build it anew: {build_command(target)}"
    if record.get("machine") != platform.machine():
        return f"{target} was built for {record.get('machine')}; build it on this machine"
    return None


def verify(target: Path) -> str | None:
    """What is wrong with a built root file system, in a sentence; None when it is as recorded."""
    if wrong := check_record(target):
        return wrong
    record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    if tree_digest(target / ROOT) != record.get("tree_sha256"):
        return f"{target} is not as it was built; build it anew: {build_command(target)}"
    return None


def build_command(target: Path) -> str:
    """What to type to build it."""
    return f"python -m pokerarena.sandbox.rootfs build {target}"


def tree_digest(root: Path) -> str:
    """SHA-256 over every path, mode and content of the tree."""
    digest = hashlib.sha256()
    for path in _walk(root):
        status = path.lstat()
        mode = status.st_mode
        digest.update(
            f"{path.relative_to(root)}\0{mode:o}\0{status.st_uid}:{status.st_gid}\0".encode()
        )
        if stat.S_ISLNK(mode):
            digest.update(str(path.readlink()).encode())
        elif stat.S_ISREG(mode):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _walk(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _need_tools() -> None:
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(
                "rootfs_tools_missing",
                f"{tool} is missing: build the root file system on Debian or Ubuntu and copy it.",
            )


def _run(command: list[str], cwd: Path | None = None) -> str:
    # Where packages come from is the machine's business: a proxy, another apt configuration.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.lower().endswith("_proxy") or name == "APT_CONFIG"
    } | {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise Unavailable("rootfs_build_failed", f"{command[0]} failed: {reason[0][:300]}")
    return done.stdout


def _python_package() -> str:
    """The name of Debian's Python of this release, such as ``python3.11``."""
    found = re.search(
        r"Depends: (python3\.\d+)-minimal", _run(["apt-cache", "depends", "python3-minimal"])
    )
    if found is None:
        raise Unavailable(
            "rootfs_build_failed", "apt does not know python3-minimal; run apt-get update first."
        )
    return found[1]


def _first_known(choice: tuple[str, ...], python: str) -> str:
    """The first of several names of one library that this Debian release has."""
    names = [name.format(python=python) for name in choice]
    for name in names:
        if (
            "Candidate:" in (policy := _run(["apt-cache", "policy", name]))
            and "(none)" not in (policy.partition("Candidate:")[2].partition("\n")[0])
        ):
            return name
    raise Unavailable(
        "rootfs_build_failed", f"apt does not know {' or '.join(names)}; run apt-get update first."
    )


def _arrange(root: Path, python: str) -> None:
    _prune(root, PRUNED)
    _prune(root / "usr/lib" / python, PRUNED_FROM_PYTHON)
    for folder in _EMPTY_FOLDERS:
        (root / folder).mkdir(exist_ok=True)
    for link, goal in (("lib", "usr/lib"), ("lib64", "usr/lib64"), ("bin", "usr/bin")):
        if not (root / link).exists():
            (root / link).symlink_to(goal)
    (root / "usr/bin/python3").symlink_to(python)
    # Debian chooses among implementations of BLAS by a script; here there is one.
    for name in ("blas", "lapack"):
        for path in root.glob(f"usr/lib/*/{name}/lib{name}.so.3"):
            (path.parent.parent / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
    _bundle_certificates(root)
    packages = root / "usr/lib/python3/dist-packages"
    packages.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        Path(pokerarena_sdk.__file__).parent,
        packages / "pokerarena_sdk",
        ignore=shutil.ignore_patterns("__pycache__", "template", "project.py"),
    )
    for name, content in STATIC_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    # A device or a socket would have no use in there.
    for path in _walk(root):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            path.unlink()


def _prune(folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _bundle_certificates(root: Path) -> None:
    certificates = sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(path.read_bytes() for path in certificates))
    shutil.rmtree(root / "usr/share/ca-certificates", ignore_errors=True)
    # Where Debian's OpenSSL looks first.
    (root / "usr/lib/ssl").mkdir(exist_ok=True)
    (root / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")


def _precompile(root: Path, python: str) -> None:
    """Compile with the tree's own interpreter, started through its own loader.

    The files are marked as never to be checked against their sources: the tree is read-only, and
    an agent that starts should not stat hundreds of files.
    """
    loader = next(iter(sorted(root.glob("lib*/ld-linux-*"))), None)
    if loader is None:
        raise Unavailable("rootfs_build_failed", "the tree has no loader; libc6 was not unpacked.")
    libraries = ":".join(
        str(path) for path in (*root.glob("lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu"))
    )
    done = subprocess.run(
        [
            str(loader), "--library-path", libraries, str(root / "usr/bin" / python), "-I", "-S",
            "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
            "-s", str(root), str(root / "usr/lib" / python), str(root / "usr/lib/python3/dist-packages"),
        ],
        env={"PYTHONHOME": str(root / "usr"), "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Unavailable(
            "rootfs_build_failed", f"the tree's Python does not start: {done.stderr[-300:]}"
        )


def _normalize(root: Path) -> None:
    """Modes, owners and times that do not depend on who built it, and when."""
    for path in (root, *_walk(root)):
        if path.is_symlink():
            pass
        elif path.is_dir():
            path.chmod(0o755)
        else:
            path.chmod(0o755 if path.stat().st_mode & 0o111 else 0o644)
        if os.geteuid() == 0:
            os.chown(path, 0, 0, follow_symlinks=False)
        os.utime(path, (0, 0), follow_symlinks=False)
    # runc gives a tmpfs the mode of the folder it covers.
    (root / "tmp").chmod(0o1777)


def _swap(staged: Path, target: Path) -> None:
    if target.exists():
        if not (target / RECORD).is_file():
            raise Unavailable(
                "rootfs_target_taken", f"{target} exists and is no root file system of ours."
            )
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        target.rename(old)
        staged.rename(target)
        shutil.rmtree(old)
    else:
        staged.rename(target)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rootfs", description="The sandboxes' root file system.")
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="build or replace it")
    builder.add_argument("dir", type=Path)
    builder.add_argument("--without-numpy", action="store_true")
    commands.add_parser("verify", help="compare it with its record").add_argument("dir", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "verify":
            if wrong := verify(options.dir):
                print(wrong, file=sys.stderr)
                return 1
            print(f"{options.dir} is as it was built")
        else:
            record = build(options.dir.absolute(), with_numpy=not options.without_numpy)
            print(
                f"built {options.dir}: {record['size_bytes'] // 1_000_000} MB, "
                f"{len(record['packages'])} packages, tree {record['tree_sha256'][:16]}"
            )
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
