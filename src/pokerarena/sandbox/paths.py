"""The names of uploaded files: which are acceptable, and which two are the same to somebody.

Owns the judgement over one path. It knows no archive format and touches no file.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_PATH_CHARS: Final = 200
MAX_PART_BYTES: Final = 120
MAX_DEPTH: Final = 10


class BadPath(Exception):
    """A path that is not plainly the path of a file inside the agent's folder."""


def clean(path: str) -> str:
    """The path as it will be stored. Raises `BadPath` with a sentence.

    Only the leading ``./`` that tar writes is taken off; nothing else is repaired, since a path
    that needs repair means different things to different programs.
    """
    if len(path) > MAX_PATH_CHARS:
        raise BadPath(f"a path is longer than {MAX_PATH_CHARS} characters: {path[:40]}…")
    path = path.removeprefix("./")
    shown = repr(path)
    if path.startswith("/") or path[1:2] == ":":
        raise BadPath(f"the path {shown} is absolute")
    if "\\" in path or not path.isprintable():
        raise BadPath(f"the path {shown} has a backslash or a control character")
    try:
        encoded = [len(part.encode()) for part in path.split("/")]
    except UnicodeEncodeError:
        raise BadPath(f"the path {shown} is not UTF-8") from None
    if unicodedata.normalize("NFC", path) != path:
        raise BadPath(f"the path {shown} is not in normal form NFC")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise BadPath(f"the path {shown} has an empty part, '.' or '..'")
    if any(part != part.strip() or part.endswith(".") for part in parts):
        raise BadPath(f"a part of the path {shown} begins or ends with a blank, or ends with a dot")
    if len(parts) > MAX_DEPTH or max(encoded) > MAX_PART_BYTES:
        raise BadPath(
            f"the path {shown} is too deep or has too long a name: at most {MAX_DEPTH} parts of "
            f"{MAX_PART_BYTES} bytes"
        )
    return path


def check_set(paths: list[str]) -> None:
    """Refuse paths of which two are the same file to a system that ignores case or form, and
    paths of which one is a folder of another."""
    seen: dict[str, str] = {}
    for path in paths:
        key = _key(path)
        if key in seen:
            raise BadPath(f"{path!r} and {seen[key]!r} are the same file, or differ in case only")
        seen[key] = path
    for path in paths:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if _key(parent) in seen:
                raise BadPath(f"{parent!r} is both a file and a folder")
    folders: dict[str, str] = {}
    for path in paths:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if folders.setdefault(_key(parent), parent) != parent:
                raise BadPath(
                    f"the folders {parent!r} and {folders[_key(parent)]!r} differ in case only"
                )


def _key(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()
