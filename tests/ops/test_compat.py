"""The release before runs on the schema of this one; `make compat` asks more of it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

from alembic.script import ScriptDirectory

from pokerarena import migrations

ROOT = Path(__file__).parents[2]
NOT_RUN = 3


def compat(*arguments: str, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, where / "scripts" / "compat", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_the_release_before_plays_and_stores_on_this_schema() -> None:
    done = compat("--short")
    if done.returncode == NOT_RUN:
        # A shallow clone has no release before; that is no reason to call it sound.
        warnings.warn(done.stdout.strip(), stacklevel=1)
        return
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_without_the_history_it_says_that_it_was_not_run(tmp_path: Path) -> None:
    for name in ("scripts/compat", "compat/previous", "compat/exceptions"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    done = compat("--short", where=tmp_path)
    assert done.returncode == NOT_RUN
    assert "NOT RUN" in done.stdout


def test_the_release_before_is_one_of_ours() -> None:
    line = (ROOT / "compat" / "previous").read_text().splitlines()[-1]
    _, revision = line.split()
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert revision in {one.revision for one in script.walk_revisions()}
