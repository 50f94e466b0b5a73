"""Is this file a static Linux executable for this machine?

Owns the reading of an ELF header, so that an upload that cannot start is refused with a reason
instead of failing in its first hand. It never executes anything.
"""

from __future__ import annotations

import platform
import struct
from typing import Final

_MACHINES: Final = {"x86_64": 62, "aarch64": 183}
_NAMES: Final = {62: "x86-64", 183: "AArch64", 3: "32-bit x86", 40: "32-bit ARM", 243: "RISC-V"}
_EXECUTABLE, _SHARED = 2, 3
_PT_INTERP: Final = 3
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_MAX_PROGRAM_HEADERS: Final = 64


def problem(data: bytes, machine: str | None = None) -> str | None:
    """Why this is not a static executable, in a sentence; None when it is one."""
    if data[:4] != b"\x7fELF":
        return "is not an ELF executable; the runtime 'binary' takes a static Linux binary"
    if len(data) < _HEADER.size or data[4] != 2 or data[5] != 1:
        return "is not a 64-bit little-endian ELF file"
    fields = _HEADER.unpack_from(data)
    kind, built_for, table, entry_size, count = (
        fields[1],
        fields[2],
        fields[5],
        fields[9],
        fields[10],
    )
    if kind not in (_EXECUTABLE, _SHARED):
        return "is an ELF file but not an executable"
    wanted = _MACHINES.get(machine or platform.machine())
    if built_for != wanted:
        return (
            f"is built for {_NAMES.get(built_for, 'another machine')}; this arena runs "
            f"{_NAMES.get(wanted or 0, 'other machines')}"
        )
    if entry_size < 4 or count > _MAX_PROGRAM_HEADERS or table + entry_size * count > len(data):
        return "has a broken ELF program header"
    for number in range(count):
        if struct.unpack_from("<I", data, table + number * entry_size)[0] == _PT_INTERP:
            return "is dynamically linked; link it with -static"
    return None
