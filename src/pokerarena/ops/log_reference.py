"""The catalogue of log events in docs/logs.md: found in the code, explained in the document.

Owns the table between two marks. Names, levels and fields come from the calls of `log.…` in the
source; what an event means is what the document says already, and a new event gets an empty
meaning that a test does not accept. It reads sources, so it is for a checkout and not for a wheel.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pokerarena.ops.marked_text import replaced

BEGIN: Final = "<!-- events: begin; made by `make docs` -->"
END: Final = "<!-- events: end -->"
DOCUMENT: Final = Path("docs/logs.md")
SOURCE: Final = Path(__file__).parents[1]
LEVELS: Final = {"debug": "debug", "info": "info", "warning": "warning", "error": "error",
                 "exception": "error", "critical": "critical"}  # fmt: skip


class Call(NamedTuple):
    """One place where an event is logged."""

    event: str
    level: str
    room: str
    fields: tuple[str, ...]


class Unreadable(ValueError):
    """An event whose name the catalogue cannot know, because it is made at run time."""


def calls(source: Path = SOURCE) -> Iterator[Call]:
    """Every call of `log.<level>` in the program."""
    for path in sorted(source.rglob("*.py")):
        room = ".".join(path.relative_to(source).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr in LEVELS
            ):
                continue
            name = node.args[0] if len(node.args) == 1 else None
            if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
                raise Unreadable(f"{path.name}:{node.lineno} logs an event without a fixed name")
            fields = [keyword.arg or "…" for keyword in node.keywords]
            yield Call(name.value, LEVELS[node.func.attr], room, tuple(fields))


def meanings(document: str) -> dict[str, str]:
    """What the document says of each event."""
    found = {}
    for line in document.partition(BEGIN)[2].partition(END)[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`"):
            found[cells[0].strip("`")] = cells[4]
    return found


def reference(document: str) -> str:
    """One row an event, by name."""
    said = meanings(document)
    rows = ["| event | level | room | fields | meaning |", "|---|---|---|---|---|"]
    found: dict[str, list[Call]] = {}
    for call in calls():
        found.setdefault(call.event, []).append(call)
    for event, places in sorted(found.items()):
        levels = ", ".join(sorted({call.level for call in places}))
        rooms = ", ".join(sorted({call.room for call in places}))
        fields = sorted({field for call in places for field in call.fields} - {"exc_info"})
        listed = ", ".join(f"`{field}`" for field in fields) or "–"
        rows.append(f"| `{event}` | {levels} | {rooms} | {listed} | {said.get(event, '')} |")
    return "\n".join(rows)


def renewed(document: str) -> str:
    """The document with the catalogue as it is now."""
    return replaced(document, BEGIN, END, reference(document))


def main() -> None:
    DOCUMENT.write_text(renewed(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
