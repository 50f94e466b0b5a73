"""Intake: what may be uploaded, and every hostile archive refused with a reason."""

import gzip
import io
import json
import os
import stat
import struct
import subprocess
import tarfile
import unicodedata
import zipfile
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokerarena.errors import Invalid, NotFound
from pokerarena.sandbox.archive import ArchiveLimits, Package, pack, read_upload
from pokerarena.sandbox.store import AgentStore
from pokerarena_sdk import project

MANIFEST = json.dumps({"runtime": "python3", "entry_point": "bot.py"}).encode()
GOOD = {"agent.json": MANIFEST, "bot.py": b"def act(view): return 'fold'\n", "lib/data.txt": b"1"}
SMALL = ArchiveLimits(
    max_packed_bytes=200_000, max_unpacked_bytes=1_000_000, max_file_bytes=400_000, max_files=20,
    ratio_free_bytes=100_000,
)  # fmt: skip


def zipped(files, **changes):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in changes.get(name, {}).items():
                setattr(info, key, value)
            archive.writestr(info, data)
    return raw.getvalue()


def tarred(files, extra=(), compress=True):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return gzip.compress(raw.getvalue(), mtime=0) if compress else raw.getvalue()


def member(name, kind, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def refused(data, name="", limits=SMALL):
    with pytest.raises(Invalid) as caught:
        read_upload(data, name, limits)
    assert caught.value.message.endswith((".", "…"))
    return caught.value.code


def test_all_forms_of_the_same_files_are_the_same_version():
    packages = [read_upload(zipped(GOOD)), read_upload(tarred(GOOD))]
    packages.append(read_upload(tarred({f"./{name}": data for name, data in GOOD.items()})))
    packages.append(read_upload(zipped({f"mybot/{name}": data for name, data in GOOD.items()})))
    assert len({package.digest for package in packages}) == 1
    assert {path: file.data for path, file in packages[0].files.items()} == GOOD


def test_a_single_file_is_its_own_entry_point():
    package = read_upload(b"def act(view): return 'fold'", "my bot/strategy.py")
    assert package.manifest.entry_point == "strategy.py"
    assert package.manifest.runtime == "python3"


def test_what_the_sdk_packs_is_accepted(tmp_path):
    project.init(str(tmp_path / "mybot"))
    package = read_upload(project.pack(str(tmp_path / "mybot")))
    assert package.manifest.max_in_flight == 16


def test_another_content_path_or_mode_is_another_version():
    digests = {read_upload(zipped(GOOD | change)).digest for change in (
        {}, {"lib/data.txt": b"2"}, {"lib/data2.txt": b"1"}, {"lib/data.txtx": b""},
    )}  # fmt: skip
    assert len(digests) == 4


HOSTILE_PATHS = [
    "../x", "lib/../../x", "/etc/passwd", "lib//x", "./../x", "C:/x", "lib\\..\\x", "..", "lib/./x",
    "x\n", "x\x1b[2J", "x\u202ey", " x", "x ", "x.", "lib /x", "a" * 201, "a/" * 11 + "x",
    unicodedata.normalize("NFD", "é"), "é" * 70,
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE_PATHS)
@pytest.mark.parametrize("form", [zipped, tarred])
def test_a_path_that_is_not_plainly_inside_is_refused(form, path):
    assert refused(form(GOOD | {path: b"evil"})) == "archive_bad_path"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lib.py", "lib.py"), ("straße", "STRASSE"), ("lib", "lib/data.txt"), ("LIB/x", "lib/y"),
        ("ﬁle", "file"), ("x/y", "X"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [zipped, tarred])
def test_two_names_for_one_file_are_refused(form, one, other):
    code = refused(
        form([*((k, v) for k, v in GOOD.items() if k != other), (one, b""), (other, b"")])
    )
    assert code == "archive_bad_path"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("form", [zipped, tarred])
def test_a_file_twice_is_refused(form):
    assert refused(form([*GOOD.items(), ("bot.py", b"other")])) == "archive_bad_path"


@pytest.mark.parametrize(
    "extra",
    [
        member("x", tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("x", tarfile.LNKTYPE, linkname="bot.py"),
        member("x", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("x", tarfile.BLKTYPE),
        member("x", tarfile.FIFOTYPE),
        member("x", tarfile.CONTTYPE),
        member("x", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda info: info.type.decode(),
)
def test_links_devices_and_special_files_in_a_tar_are_refused(extra):
    assert refused(tarred(GOOD, [extra])) in ("archive_special_file", "archive_corrupt")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_special_files_in_a_zip_are_refused(kind):
    data = zipped(GOOD | {"x": b"/etc/passwd"}, x={"external_attr": (kind | 0o777) << 16})
    assert refused(data) == "archive_special_file"


def test_a_link_then_a_file_through_it_is_refused():
    link = member("lib2", tarfile.SYMTYPE, linkname="/tmp")
    raw = tarred(GOOD | {"lib2/x": b""}, [link])
    assert refused(raw) in ("archive_special_file", "archive_bad_path")


def test_bombs_are_refused_before_they_unfold():
    zeros = b"\0" * 390_000
    assert refused(zipped(GOOD | {"x": zeros})) == "archive_bomb"
    assert refused(tarred(GOOD | {"x": zeros})) == "archive_bomb"
    noisy = replace(SMALL, max_ratio=10**9)
    many = {f"x{number}": zeros for number in range(4)}
    assert refused(zipped(GOOD | many), limits=noisy) == "archive_too_large"
    assert refused(tarred(GOOD | many), limits=noisy) == "archive_too_large"
    assert refused(zipped(GOOD | {"x": b"\0" * 500_000}), limits=noisy) == "archive_file_too_large"
    crowd = {f"f{number}": b"" for number in range(200)}
    assert refused(zipped(GOOD | crowd)) == "archive_too_many_files"
    assert refused(tarred(GOOD | crowd)) == "archive_too_many_files"
    folders = [member(f"d{number}", tarfile.DIRTYPE) for number in range(30)]
    assert refused(tarred(GOOD, folders)) == "archive_too_many_files"
    assert refused(os.urandom(SMALL.max_packed_bytes + 1)) == "archive_too_large"


def test_a_gzip_in_many_members_is_counted_as_a_whole():
    members = gzip.compress(b"\0" * 90_000) * 40
    assert refused(members) in ("archive_bomb", "archive_too_large")


def test_a_zip_that_lies_about_sizes_is_refused():
    data = bytearray(zipped(GOOD))
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 7)
    assert refused(bytes(data)) == "archive_corrupt"


def test_encrypted_and_oddly_packed_zips_are_refused():
    data = bytearray(zipped(GOOD))
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(magic)
        data[at + flags] |= 1
    assert refused(bytes(data)) == "archive_encrypted"
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
    assert refused(raw.getvalue()) == "archive_compression"


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"", "x.py", "archive_empty"),
        (b"hello", "x.txt", "archive_unknown_form"),
        (b"\x1f\x8bjunk", "", "archive_corrupt"),
        (b"PK\x03\x04junk", "", "archive_corrupt"),
        (gzip.compress(b"not a tar" * 100), "", "archive_corrupt"),
        (zipped({"bot.py": b""}), "", "manifest_invalid"),
        (zipped(GOOD | {"agent.toml": b""}), "", "manifest_invalid"),
        (zipped({"agent.json": MANIFEST}), "", "manifest_invalid"),
        (b"\x7fELF", "x", "manifest_invalid"),
    ],
    ids=range(9),
)
def test_what_is_no_agent_is_refused_with_a_code(data, name, code):
    assert refused(data, name) == code


@pytest.mark.parametrize("options", [[], ["-static", "-m32"]])
def test_a_binary_must_be_static_and_for_this_machine(tmp_path, options):
    source = tmp_path / "a.c"
    source.write_text("int main(void) { return 0; }")
    out = tmp_path / "a"
    done = subprocess.run(["gcc", *options, "-nostdlib" if "-m32" in options else "-O1", "-o", out, source],
                          capture_output=True, check=False)  # fmt: skip
    if done.returncode == 0:
        assert refused(out.read_bytes(), "a", ArchiveLimits()) == "manifest_invalid"
    static = tmp_path / "s"
    subprocess.run(["gcc", "-static", "-o", static, source], check=True)
    assert read_upload(static.read_bytes(), "s").files["s"].executable


@settings(max_examples=300, deadline=None)
@given(
    base=st.sampled_from([zipped(GOOD), tarred(GOOD)]),
    cuts=st.lists(st.tuples(st.integers(0, 2_000), st.binary(min_size=1, max_size=8)), max_size=6),
    length=st.integers(1, 2_000),
)
def test_a_damaged_archive_is_refused_or_whole_and_never_an_accident(base, cuts, length):
    data = bytearray(base[:length])
    for at, junk in cuts:
        data[at : at + len(junk)] = junk
    try:
        package = read_upload(bytes(data), "", SMALL)
    except Invalid:
        return
    assert isinstance(package, Package)
    assert package.manifest.entry_point in package.files


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text("abc/.~é", min_size=1, max_size=12), st.binary(max_size=50), max_size=6)
)
def test_whatever_is_accepted_stays_inside_its_folder_and_comes_back_the_same(
    tmp_path_factory, extra
):
    try:
        package = read_upload(zipped(GOOD | extra))
    except Invalid:
        return
    root = tmp_path_factory.mktemp("store")
    stored = AgentStore(root).put(package)
    inside = {
        path.relative_to(stored.folder).as_posix(): path.read_bytes()
        for path in stored.folder.rglob("*")
        if path.is_file()
    }
    assert inside == {path: file.data for path, file in package.files.items()}
    assert {path.name for path in root.iterdir()} == {package.digest}
    assert AgentStore(root).is_intact(package.digest)
    assert read_upload(gzip.compress(pack(package))).digest == package.digest


def test_a_stored_package_is_read_only_and_a_change_is_noticed(tmp_path):
    store = AgentStore(tmp_path)
    package = read_upload(zipped(GOOD))
    stored = store.put(package)
    assert store.put(package) == stored
    bot = stored.folder / "bot.py"
    assert stat.S_IMODE(bot.stat().st_mode) == 0o444
    bot.chmod(0o644)
    bot.write_text("changed")
    assert not store.is_intact(package.digest)
    store.remove(package.digest)
    assert not store.has(package.digest)


@pytest.mark.parametrize("digest", ["", "..", "../x", "a" * 63, "A" * 64, "a" * 65])
def test_only_a_digest_names_a_package(tmp_path, digest):
    with pytest.raises(NotFound):
        AgentStore(tmp_path).get(digest)
