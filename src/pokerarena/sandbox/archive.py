"""Intake of an upload: one file, a zip or a tar.gz becomes a checked, content-addressed package.

Owns every bound on what an upload may be. It works in memory on bytes: nothing of an upload reaches
a file system before all of it was checked, and no link, device or special file ever does.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple

from pokerarena.errors import Invalid
from pokerarena.sandbox import elf
from pokerarena.sandbox.paths import BadPath, check_set, clean
from pokerarena_sdk import manifest as manifests
from pokerarena_sdk.manifest import BadManifest, Manifest

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZIP_MAGICS: Final = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_ENTRY: Final = b"PK\x01\x02"
_CHUNK_BYTES: Final = 1 << 20
_TAR_BLOCK_BYTES: Final = 512
# Read while unpacking: what the standard library raises on archives made to break it.
_BROKEN: Final = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError, KeyError,
    IndexError, NotImplementedError, RuntimeError, OSError, UnicodeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How large an upload may be, packed and unpacked."""

    max_packed_bytes: int = 16 * 1024 * 1024
    max_unpacked_bytes: int = 64 * 1024 * 1024
    max_file_bytes: int = 32 * 1024 * 1024
    max_files: int = 2_000
    # Honest code and data stay far below; what is above is made to fill a disk.
    max_ratio: int = 100
    ratio_free_bytes: int = 1024 * 1024


class PackedFile(NamedTuple):
    """One file of a package."""

    data: bytes
    executable: bool


class Package(NamedTuple):
    """A checked upload. `digest` names its content, whatever archive it came in."""

    digest: str
    manifest: Manifest
    files: dict[str, PackedFile]

    @property
    def size_bytes(self) -> int:
        return sum(len(file.data) for file in self.files.values())


DEFAULT_LIMITS: Final = ArchiveLimits()


def read_upload(
    data: bytes, file_name: str = "", limits: ArchiveLimits = DEFAULT_LIMITS
) -> Package:
    """Check an upload of any of the three forms. Raises `Invalid` with a stable code.

    `file_name` matters for a single file only: it becomes the entry point.
    """
    if len(data) > limits.max_packed_bytes:
        raise Invalid(
            "archive_too_large",
            f"The upload has {len(data)} bytes; at most {limits.max_packed_bytes} are allowed.",
        )
    if not data:
        raise Invalid("archive_empty", "The upload is empty.")
    try:
        if data.startswith(_ZIP_MAGICS):
            files = _unzip(data, limits)
        elif data.startswith(_GZIP_MAGIC):
            files = _untar(_gunzip(data, limits), limits)
        else:
            return _single_file(data, file_name)
        return _package(_without_common_folder(files))
    except BadPath as error:
        raise Invalid("archive_bad_path", f"{_sentence(str(error))}") from None
    except BadManifest as error:
        raise Invalid("manifest_invalid", _sentence(str(error))) from None
    except Invalid:
        raise
    except _BROKEN as error:
        raise Invalid(
            "archive_corrupt", f"The archive cannot be read ({type(error).__name__}); pack it anew."
        ) from None


def read_tar(data: bytes, limits: ArchiveLimits = DEFAULT_LIMITS) -> Package:
    """Check a package in the form that `pack` gives it, between our own processes."""
    try:
        return _package(_untar(data, limits))
    except BadPath as error:
        raise Invalid("archive_bad_path", _sentence(str(error))) from None
    except BadManifest as error:
        raise Invalid("manifest_invalid", _sentence(str(error))) from None
    except _BROKEN as error:
        raise Invalid(
            "archive_corrupt", f"The package is broken ({type(error).__name__})."
        ) from None


def pack(package: Package) -> bytes:
    """The package as one uncompressed tar, the same bytes for the same content."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(package.files):
            info = tarfile.TarInfo(path)
            info.size = len(package.files[path].data)
            info.mode = 0o755 if package.files[path].executable else 0o644
            archive.addfile(info, io.BytesIO(package.files[path].data))
    return raw.getvalue()


def content_digest(files: dict[str, PackedFile]) -> str:
    """SHA-256 over paths, modes and contents, in a form that no two packages share."""
    digest = hashlib.sha256(b"pokerarena-package-1\n")
    for path in sorted(files):
        name = path.encode()
        digest.update(
            b"%d:%s:%d:%d\n" % (len(name), name, files[path].executable, len(files[path].data))
        )
        digest.update(hashlib.sha256(files[path].data).digest())
    return digest.hexdigest()


def _single_file(data: bytes, file_name: str) -> Package:
    name = file_name.replace("\\", "/").rpartition("/")[2] or (
        "agent" if data.startswith(b"\x7fELF") else "bot.py"
    )
    if data.startswith(b"\x7fELF"):
        name = name.removesuffix(".py")
    elif not name.endswith(".py"):
        raise Invalid(
            "archive_unknown_form",
            "The upload is neither a zip, a tar.gz, a Python file nor a Linux executable.",
        )
    path = clean(name)
    manifest = manifests.of_single_file(path)
    # Written out, so that the package is complete wherever it goes.
    described = {"runtime": manifest.runtime, "entry_point": path}
    return _package({path: data, "agent.json": json.dumps(described).encode()})


def _package(contents: dict[str, bytes]) -> Package:
    check_set(list(contents))
    found = [name for name in manifests.FILE_NAMES if name in contents]
    if len(found) != 1:
        raise BadManifest(
            f"the archive needs exactly one of {' and '.join(manifests.FILE_NAMES)} at its top; "
            f"it has {len(found)}"
        )
    manifest = manifests.read(found[0], contents[found[0]])
    entry = manifest.entry_point
    if entry not in contents:
        raise BadManifest(f"the entry point {entry!r} is not in the archive")
    if manifest.runtime == "binary" and (wrong := elf.problem(contents[entry])):
        raise BadManifest(f"the entry point {entry!r} {wrong}")
    if manifest.runtime == "python3" and not entry.endswith(".py"):
        raise BadManifest(f"the entry point {entry!r} of a python3 agent must end with .py")
    runs = {entry} if manifest.runtime == "binary" else set()
    files = {path: PackedFile(data, path in runs) for path, data in contents.items()}
    return Package(content_digest(files), manifest, files)


def _without_common_folder(files: dict[str, bytes]) -> dict[str, bytes]:
    """Packing the folder instead of its content is the commonest slip; its meaning is plain."""
    tops = {path.partition("/")[0] for path in files}
    if len(tops) != 1:
        return files
    top = tops.pop() + "/"
    if not any(top + name in files for name in manifests.FILE_NAMES):
        return files
    return {path.removeprefix(top): data for path, data in files.items()}


class _Intake:
    """Counts what has been unpacked and refuses the byte or file too many."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._entries = 0
        self.files: dict[str, bytes] = {}
        self.total_bytes = 0

    def count_entry(self) -> None:
        self._entries += 1
        if self._entries > self._limits.max_files:
            raise Invalid(
                "archive_too_many_files",
                f"The archive has more than {self._limits.max_files} entries.",
            )

    def check_size(self, path: str, size_bytes: int) -> None:
        if size_bytes > self._limits.max_file_bytes:
            raise Invalid(
                "archive_file_too_large",
                f"{path!r} is larger than {self._limits.max_file_bytes} bytes.",
            )
        if self.total_bytes + size_bytes > self._limits.max_unpacked_bytes:
            raise Invalid(
                "archive_too_large",
                f"The archive unpacks to more than {self._limits.max_unpacked_bytes} bytes.",
            )

    def add(self, path: str, data: bytes) -> None:
        self.check_size(path, len(data))
        if path in self.files:
            raise BadPath(f"{path!r} is in the archive twice")
        self.total_bytes += len(data)
        self.files[path] = data


def _unzip(data: bytes, limits: ArchiveLimits) -> dict[str, bytes]:
    # The directory is read into memory as a whole: its size is judged before that.
    if data.count(_ZIP_ENTRY) > 4 * limits.max_files:
        raise Invalid(
            "archive_too_many_files", f"The archive has more than {limits.max_files} entries."
        )
    intake = _Intake(limits)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            intake.count_entry()
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if "\0" in info.orig_filename:
                raise BadPath("a path contains a NUL character")
            if info.is_dir():
                clean(info.filename.rstrip("/") or "/")
                continue
            path = clean(info.filename)
            if kind not in (0, stat.S_IFREG):
                raise Invalid("archive_special_file", f"{path!r} is a link or a special file.")
            if info.flag_bits & 0x1:
                raise Invalid("archive_encrypted", f"{path!r} is encrypted.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Invalid(
                    "archive_compression", f"{path!r} is packed in a way other than deflate."
                )
            intake.check_size(path, info.file_size)
            _check_ratio(path, info.file_size, info.compress_size, limits)
            with archive.open(info) as source:
                # One byte more than declared: a file that is longer than it says is a trick.
                content = source.read(info.file_size + 1)
            if len(content) != info.file_size:
                raise zipfile.BadZipFile("size differs")
            intake.add(path, content)
    return intake.files


def _gunzip(data: bytes, limits: ArchiveLimits) -> bytes:
    cap = limits.max_unpacked_bytes + 2 * _TAR_BLOCK_BYTES * (limits.max_files + 20)
    out = bytearray()
    rest = data
    while rest.startswith(_GZIP_MAGIC):
        unpacker = zlib.decompressobj(wbits=31)
        while not unpacker.eof:
            chunk = unpacker.decompress(rest, _CHUNK_BYTES)
            rest = unpacker.unconsumed_tail
            if not chunk and not rest and not unpacker.eof:
                raise EOFError("cut short")
            out += chunk
            if len(out) > cap:
                raise Invalid(
                    "archive_too_large",
                    f"The archive unpacks to more than {limits.max_unpacked_bytes} bytes.",
                )
            _check_ratio("the archive", len(out), len(data), limits)
        rest = unpacker.unused_data
    return bytes(out)


def _untar(data: bytes, limits: ArchiveLimits) -> dict[str, bytes]:
    intake = _Intake(limits)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        while (info := archive.next()) is not None:
            intake.count_entry()
            if info.isdir():
                if info.name.strip("/") not in ("", "."):
                    clean(info.name.rstrip("/"))
                continue
            path = clean(info.name)
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
                raise Invalid("archive_special_file", f"{path!r} is a link or a special file.")
            intake.check_size(path, info.size)
            source = archive.extractfile(info)
            content = source.read() if source else b""
            if len(content) != info.size:
                raise tarfile.ReadError("cut short")
            intake.add(path, content)
            # tarfile remembers every member for ever.
            archive.members = []  # type: ignore[attr-defined]
    return intake.files


def _check_ratio(what: str, unpacked: int, packed: int, limits: ArchiveLimits) -> None:
    if unpacked > limits.ratio_free_bytes and unpacked > limits.max_ratio * max(packed, 1):
        raise Invalid(
            "archive_bomb", f"{what} unpacks to more than {limits.max_ratio} times its packed size."
        )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "…")) else ".")
