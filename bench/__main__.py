"""Runs every benchmark of this folder, one after the other, each in a process of its own.

`python -m bench` runs all, `python -m bench engine store` some. The exit code says whether each
reached what it promises.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def benchmarks() -> list[str]:
    """The modules that can be run."""
    return sorted(
        path.stem
        for path in FOLDER.glob("*.py")
        if not path.stem.startswith("_") and "def main()" in path.read_text(encoding="utf-8")
    )


def main() -> int:
    wanted = sys.argv[1:] or benchmarks()
    if unknown := set(wanted) - set(benchmarks()):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(benchmarks())}")
        return 2
    failed = []
    for name in wanted:
        print(f"── {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode != 0:
            failed.append(name)
        print(flush=True)
    if failed:
        print(f"not reached: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
