"""Where checked packages lie on disk: one immutable folder per content digest.

Owns writing and removing them. Folders are made beside their place and moved into it, so that a
half-written package is never seen; nothing in here follows a link.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from pokerarena.errors import NotFound, Unavailable
from pokerarena.sandbox.archive import Package, PackedFile, content_digest
from pokerarena_sdk import manifest as manifests
from pokerarena_sdk.manifest import Manifest

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MANIFEST: Final = "manifest.json"
_FILES: Final = "files"
_STAGED_PREFIX: Final = ".incoming-"


class StoredAgent(NamedTuple):
    """A package on disk: `folder` is what a sandbox gets to see, read-only."""

    digest: str
    manifest: Manifest
    folder: Path


class AgentStore:
    """A folder of packages, by digest."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, package: Package) -> StoredAgent:
        """Store a package; one that is there already is left as it is.

        Raises `Unavailable` where the disk does not take it, and leaves nothing of it.
        """
        try:
            self._put(package)
        except OSError as error:
            raise Unavailable(
                "package_not_stored", f"The package cannot be stored: {error.strerror}."
            ) from error
        return self.get(package.digest)

    def _put(self, package: Package) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        final = self.root / package.digest
        if final.exists():
            return
        staged = Path(tempfile.mkdtemp(prefix=_STAGED_PREFIX, dir=self.root))
        try:
            self._write(staged, package)
            try:
                staged.rename(final)
            except OSError:
                # Somebody else stored the same content first.
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def get(self, digest: str) -> StoredAgent:
        """A stored package. Raises `NotFound`."""
        folder = self._folder(digest)
        try:
            fields = json.loads((folder / _MANIFEST).read_bytes())
        except FileNotFoundError:
            raise NotFound("package") from None
        return StoredAgent(digest, manifests.parse(fields), folder / _FILES)

    def has(self, digest: str) -> bool:
        return (self._folder(digest) / _MANIFEST).is_file()

    def remove(self, digest: str) -> None:
        shutil.rmtree(self._folder(digest), ignore_errors=True)

    def is_intact(self, digest: str) -> bool:
        """Whether the files are still those that the digest names."""
        folder = self.get(digest).folder
        files = {}
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                return False
            if path.is_file():
                executable = bool(path.stat().st_mode & 0o100)
                files[path.relative_to(folder).as_posix()] = PackedFile(
                    path.read_bytes(), executable
                )
        return content_digest(files) == digest

    def _folder(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise NotFound("package")
        return self.root / digest

    @staticmethod
    def _write(staged: Path, package: Package) -> None:
        files = staged / _FILES
        files.mkdir()
        for path, file in package.files.items():
            target = files / path
            target.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(target, flags, 0o700)
            with os.fdopen(fd, "wb") as out:
                out.write(file.data)
                # Explicit, whatever the umask: the sandbox reads these as another user.
                os.fchmod(fd, 0o555 if file.executable else 0o444)
        for folder in (files, *(path for path in files.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        (staged / _MANIFEST).write_text(json.dumps(package.manifest.as_dict()), encoding="utf-8")
        staged.chmod(0o755)
