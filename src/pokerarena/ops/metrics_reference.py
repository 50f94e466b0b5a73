"""The catalogue of metrics in docs/metrics.md, made from the metrics themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pokerarena.metrics import CATALOGUE
from pokerarena.ops.marked_text import replaced

BEGIN: Final = "<!-- metrics: begin; made by `make docs` -->"
END: Final = "<!-- metrics: end -->"
DOCUMENT: Final = Path("docs/metrics.md")


def reference() -> str:
    """One row a metric, in the order of metrics.py."""
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in CATALOGUE.values():
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
        rows.append(f"| `{name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(rows)


def renewed(document: str) -> str:
    """The document with the catalogue as it is now."""
    return replaced(document, BEGIN, END, reference())


def main() -> None:
    DOCUMENT.write_text(renewed(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
