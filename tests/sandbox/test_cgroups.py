"""Cgroups of both versions: version 1 as mounted here, version 2 as files of the same shape."""

import pytest

from pokerarena.errors import Unavailable
from pokerarena.sandbox.cgroups import Layout, detect, leftovers, open_cgroup, remove_empty

V1 = """30 25 0:26 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/freezer rw shared:6 - cgroup cgroup rw,freezer
33 30 0:29 / /sys/fs/cgroup/memory rw shared:7 - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/pids rw shared:8 - cgroup cgroup rw,pids
35 30 0:31 / /sys/fs/cgroup/devices rw shared:9 - cgroup cgroup rw,devices
36 30 0:32 / {unified} rw shared:10 - cgroup2 cgroup2 rw
"""


@pytest.fixture
def unified(tmp_path):
    root = tmp_path / "unified"
    folder = root / "pokerarena" / "one"
    folder.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    for name, text in {
        "cgroup.freeze": "0",
        "cpu.stat": "usage_usec 123456\nuser_usec 1\nsystem_usec 2\n",
        "memory.peak": "7000\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n",
        "cgroup.procs": "11\n12\n",
        "cgroup.kill": "",
    }.items():
        (folder / name).write_text(text)
    return root


def test_the_hybrid_layout_is_version_1(tmp_path):
    info = tmp_path / "mountinfo"
    info.write_text(V1.format(unified="/sys/fs/cgroup/unified"))
    layout = detect(info)
    assert layout.version == 1
    assert str(layout.controllers["cpuacct"]) == "/sys/fs/cgroup/cpu,cpuacct"


def test_a_pure_layout_is_version_2(tmp_path, unified):
    info = tmp_path / "mountinfo"
    info.write_text(f"36 30 0:32 / {unified} rw - cgroup2 cgroup2 rw\n")
    assert detect(info) == Layout(2, unified, {})


def test_what_is_missing_is_named(tmp_path, unified):
    info = tmp_path / "mountinfo"
    info.write_text("")
    with pytest.raises(Unavailable, match="No cgroups"):
        detect(info)
    (unified / "cgroup.controllers").write_text("cpu pids\n")
    info.write_text(f"36 30 0:32 / {unified} rw - cgroup2 cgroup2 rw\n")
    with pytest.raises(Unavailable, match="memory"):
        detect(info)


def test_version_2_is_read_and_frozen_by_its_files(unified):
    cgroup = open_cgroup(Layout(2, unified, {}), "/pokerarena/one")
    folder = unified / "pokerarena" / "one"
    assert cgroup.cpu_ns() == 123_456_000
    assert cgroup.memory_peak_bytes() == 7000
    assert cgroup.oom_kills() == 2
    assert cgroup.pids() == [11, 12]
    cgroup.freeze()
    assert (folder / "cgroup.freeze").read_text() == "1"
    cgroup.thaw()
    assert (folder / "cgroup.freeze").read_text() == "0"
    (folder / "cpu.stat").write_text("usage_usec 123457\n")
    assert cgroup.cpu_ns() == 123_457_000
    cgroup.kill()
    assert (folder / "cgroup.kill").read_text() == "1"
    cgroup.close()


def test_empty_cgroups_are_found_and_removed_deepest_first(tmp_path):
    (tmp_path / "pokerarena" / "a" / "b").mkdir(parents=True)
    layout = Layout(2, tmp_path, {})
    assert leftovers(layout, "/pokerarena/a") == ["/pokerarena/a/b"]
    for path in ("/pokerarena/a/b", "/pokerarena/a", "/pokerarena"):
        remove_empty(layout, path)
    assert list(tmp_path.iterdir()) == []
