"""The manifest: what an agent's folder says about itself.

Owns the one definition of a valid manifest, for authors and for the arena alike. Unknown keys are
refused: a misspelt limit must not be silently ignored.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE_NAMES = ("agent.json", "agent.toml")
RUNTIMES = ("python3", "binary")
MAX_MANIFEST_BYTES = 16 * 1024
MAX_IN_FLIGHT = 256
MAX_EGRESS_HOSTS = 16
MAX_NAME_CHARS = 64
MAX_PATH_CHARS = 200
_HOST = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
)
_KEYS = ("runtime", "entry_point", "max_in_flight", "egress", "events", "name")


class BadManifest(Exception):
    """A manifest that cannot be used; the message names the key and what is allowed."""


class Manifest:
    """A valid manifest; immutable by contract."""

    __slots__ = ("egress", "entry_point", "events", "max_in_flight", "name", "runtime")

    def __init__(
        self,
        runtime: str,
        entry_point: str,
        max_in_flight: int = 1,
        egress: tuple[str, ...] = (),
        events: bool = False,
        name: str = "",
    ) -> None:
        self.runtime = runtime
        self.entry_point = entry_point
        self.max_in_flight = max_in_flight
        self.egress = egress
        self.events = events
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().values()))

    def __repr__(self) -> str:
        return f"Manifest({self.as_dict()})"

    def as_dict(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime,
            "entry_point": self.entry_point,
            "max_in_flight": self.max_in_flight,
            "egress": self.egress,
            "events": self.events,
            "name": self.name,
        }


def of_single_file(name: str) -> Manifest:
    """The manifest of a lone file: Python by its suffix, anything else a binary."""
    return parse({"runtime": "python3" if name.endswith(".py") else "binary", "entry_point": name})


def read(name: str, data: bytes) -> Manifest:
    """The manifest in a file called `agent.json` or `agent.toml`."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise BadManifest(f"{name} has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are allowed")
    try:
        text = data.decode("utf-8")
        if name.endswith(".toml"):
            try:
                import tomllib
            except ImportError:
                raise BadManifest(
                    "agent.toml needs Python 3.11; write agent.json instead"
                ) from None
            fields: Any = tomllib.loads(text)
        else:
            fields = json.loads(text, object_pairs_hook=_no_repetition)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{name} is not readable: {str(error)[:200]}") from None
    return parse(fields)


def parse(fields: Any) -> Manifest:
    """Validate the fields of a manifest."""
    if not isinstance(fields, dict):
        raise BadManifest("the manifest must be an object with runtime and entry_point")
    for key in fields:
        if key not in _KEYS:
            raise BadManifest(f"unknown key {str(key)[:40]!r}; the keys are {', '.join(_KEYS)}")
    for key in ("runtime", "entry_point"):
        if not isinstance(fields.get(key), str):
            raise BadManifest(f"{key} is missing or not a string")
    if fields["runtime"] not in RUNTIMES:
        raise BadManifest(
            f"runtime is {fields['runtime'][:40]!r}; it must be one of {', '.join(RUNTIMES)}"
        )
    check_path(fields["entry_point"], "entry_point")
    in_flight = fields.get("max_in_flight", 1)
    if isinstance(in_flight, bool) or not isinstance(in_flight, int):
        raise BadManifest("max_in_flight must be a whole number")
    if not 1 <= in_flight <= MAX_IN_FLIGHT:
        raise BadManifest(f"max_in_flight is {in_flight}; it must be 1 to {MAX_IN_FLIGHT}")
    events = fields.get("events", False)
    if not isinstance(events, bool):
        raise BadManifest("events must be true or false")
    name = fields.get("name", "")
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise BadManifest(f"name must be printable text of at most {MAX_NAME_CHARS} characters")
    return Manifest(
        runtime=fields["runtime"],
        entry_point=fields["entry_point"],
        max_in_flight=in_flight,
        egress=_egress(fields.get("egress", [])),
        events=events,
        name=name,
    )


def check_path(path: str, what: str) -> None:
    """Refuse a path that is not plainly inside the agent's folder."""
    parts = path.split("/")
    if (
        not path
        or len(path) > MAX_PATH_CHARS
        or not path.isprintable()
        or "\\" in path
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise BadManifest(
            f"{what} must be a relative path inside the agent's folder, such as 'bot.py'"
        )


def _egress(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > MAX_EGRESS_HOSTS:
        raise BadManifest(f"egress must be a list of at most {MAX_EGRESS_HOSTS} 'host:port'")
    for one in value:
        host, _, port = one.rpartition(":") if isinstance(one, str) else ("", "", "")
        if not _HOST.fullmatch(host) or not (port.isascii() and port.isdigit()):
            raise BadManifest(
                f"egress {str(one)[:80]!r} is not 'host:port' with a lower-case host name"
            )
        if not 1 <= int(port[:6]) <= 65535:
            raise BadManifest(f"egress {one[:80]!r} has no valid port")
    return tuple(value)


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields
