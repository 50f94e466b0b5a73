"""The shared root file system: what is in it, and that a change to it is noticed."""

import json
import shutil
import stat

import pytest

from pokerarena.sandbox import rootfs


def test_it_is_as_recorded_and_small(root_tree):
    assert rootfs.verify(root_tree.parent) is None
    record = json.loads((root_tree.parent / rootfs.RECORD).read_text())
    assert record["size_bytes"] < 120_000_000
    assert all(len(digest) == 64 for digest in record["packages"].values())


def test_it_holds_no_shell_no_setuid_program_and_nobody_elses_files(root_tree):
    programs = {path.name for path in (root_tree / "usr/bin").iterdir()}
    assert not programs & {
        "sh",
        "bash",
        "dash",
        "perl",
        "apt",
        "dpkg",
        "mount",
        "su",
        "curl",
        "wget",
    }
    for path in root_tree.rglob("*"):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            assert not mode & (stat.S_ISUID | stat.S_ISGID), path
            assert path == root_tree / "tmp" or not mode & 0o022, path
        assert path.lstat().st_uid == 0


def test_a_changed_file_is_noticed(root_tree, open_folder):
    copy = open_folder / "rootfs"
    (copy / rootfs.ROOT).mkdir(parents=True)
    shutil.copy(root_tree.parent / rootfs.RECORD, copy)
    assert "is not as it was built" in rootfs.verify(copy)
    assert "no root file system" in rootfs.verify(open_folder / "nowhere")


def test_a_folder_of_somebody_else_is_never_replaced(open_folder):
    target = open_folder / "precious"
    target.mkdir()
    staged = open_folder / "staged"
    staged.mkdir()
    with pytest.raises(Exception, match="no root file system of ours"):
        rootfs._swap(staged, target)
    assert target.is_dir()


async def test_numpy_the_sdk_and_tls_are_there_and_pytest_is_not(home, hosted):
    from tests.sandbox.conftest import reporting

    source = reporting(
        "import numpy, ssl, decimal, ctypes, hashlib, concurrent.futures\n"
        "findings['numpy'] = float(numpy.linalg.inv(numpy.eye(3)).sum())\n"
        "findings['sdk'] = __import__('pokerarena_sdk').__version__\n"
        "findings['certificates'] = len(ssl.create_default_context().get_ca_certs()) > 50\n"
        "found('arena', __import__, 'pokerarena')\n"
    )
    async with hosted(home, source) as agent:
        findings = await agent.note()
    assert findings["numpy"] == 3.0
    assert findings["certificates"] is True
    assert findings["arena"].startswith("refused")
