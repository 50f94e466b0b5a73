"""The schema's history. Revisions expand first and contract one release later.

Owns which relations of a database are the models' to describe.
"""

from __future__ import annotations

import re
from typing import Final

# Partitions are made by revision partition_0004 and by the database's own function; the models know
# the whole only.
_PARTITION: Final = re.compile(r"(hands|hand_cards|decision_notes)_(before|default|\d{4}_\d{2})")


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave the queue's own relations, and partitions, out of comparisons."""
    if kind != "table" or name is None:
        return True
    return not (name.startswith("procrastinate") or _PARTITION.fullmatch(name))
