"""A pytest plugin for the release before: its tests get databases that this release has migrated.

It is loaded beside the old code, and knows of it only that everybody migrates by calling
``pokerarena.ops.migrate.upgrade(url)``. It must never import this release's code into that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from pokerarena.ops import migrate

MIGRATE = "import sys; from pokerarena.ops import migrate; migrate.upgrade(sys.argv[1])"


def upgrade(url: str, *_: Any, **__: Any) -> Any:
    """Migrate by the newer program, in a process of its own."""
    newer = {**os.environ, "PYTHONPATH": os.environ["COMPAT_NEWER_PATH"]}
    subprocess.run([sys.executable, "-c", MIGRATE, url], env=newer, check=True)
    return migrate.check(url)


def pytest_configure() -> None:
    """Before any database is made."""
    migrate.upgrade = upgrade
