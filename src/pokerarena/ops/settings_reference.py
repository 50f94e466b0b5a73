"""The reference of all settings in docs/operations.md, made from the settings themselves.

Owns: the text between two marks of that document. Run as a module, it rewrites it; a test fails
when the two differ. Must never hold knowledge of a setting that settings.py lacks.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Any, Final

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from pokerarena.ops.marked_text import replaced
from pokerarena.settings import ENV_PREFIX, Settings

BEGIN: Final = "<!-- settings: begin; made by `make docs` -->"
END: Final = "<!-- settings: end -->"


def reference() -> str:
    """One row a setting, in the order of settings.py."""
    rows = ["| setting | default | bounds | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(
            f"| `{ENV_PREFIX}{name.upper()}` | {_default(field)} | {_bounds(field)} "
            f"| {field.description} |"
        )
    return "\n".join(rows)


def renewed(document: str) -> str:
    """The document with the reference as it is now."""
    return replaced(document, BEGIN, END, reference())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if isinstance(value, SecretStr):
        return "none" if not value.get_secret_value() else "set"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, tuple):
        value = ",".join(str(part) for part in value)
    return f"`{value}`" if str(value) else "empty"


def _bounds(field: FieldInfo) -> str:
    signs = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
    parts = [
        f"{sign} {getattr(bound, attribute):,}"
        for bound in field.metadata
        for kind, (attribute, sign) in signs.items()
        if isinstance(bound, kind)
    ]
    if isinstance(field.annotation, type) and issubclass(field.annotation, Enum):
        parts = [" or ".join(f"`{member.value}`" for member in field.annotation)]
    return ", ".join(parts)


def main() -> None:
    path = Path("docs/operations.md")
    if not path.exists():
        sys.exit("settings_reference: run this where docs/operations.md is")
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
