"""Which runtimes there are, and what is said of those that cannot work here."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokerarena.errors import Unavailable
from pokerarena.sandbox.cgroups import Layout
from pokerarena.sandbox.runtime import RuntimeName, find_runtime, runtimes_here


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pokerarena.sandbox.runtime._SYSTEM_FOLDERS", str(tmp_path))
    for name in RuntimeName:
        (tmp_path / name.value).touch(mode=0o755)
    return tmp_path


def layout(unified: Path, version: int, controllers: str) -> Layout:
    unified.mkdir(exist_ok=True)
    (unified / "cgroup.controllers").write_text(controllers)
    return Layout(version, unified, {"memory": Path("/sys/fs/cgroup/memory")})


@pytest.mark.parametrize(("version", "controllers"), [(2, "cpu memory pids\n"), (1, "\n")])
def test_crun_is_taken_where_all_controllers_are_of_one_version(
    programs: Path, version: int, controllers: str
) -> None:
    cgroups = layout(programs / "cgroup", version, controllers)
    found = find_runtime(RuntimeName.CRUN, layout=lambda: cgroups)
    assert found.program == str(programs / "crun")


def test_crun_is_refused_in_the_hybrid_layout_with_what_to_do(programs: Path) -> None:
    cgroups = layout(programs / "cgroup", 1, "hugetlb\n")
    with pytest.raises(Unavailable, match="refuses the hybrid cgroup layout") as refused:
        find_runtime(RuntimeName.CRUN, layout=lambda: cgroups)
    assert refused.value.code == "crun_refuses_hybrid_cgroups"
    assert "hugetlb" in refused.value.message
    assert "Use runc or runsc" in refused.value.message


def test_of_each_runtime_it_is_said_whether_it_is_here(programs: Path) -> None:
    (programs / "runsc").unlink()
    here = runtimes_here()
    missing = here[RuntimeName.RUNSC]
    assert isinstance(missing, Unavailable)
    assert "apt-get install runsc" in missing.message
    assert not isinstance(here[RuntimeName.RUNC], Unavailable)
