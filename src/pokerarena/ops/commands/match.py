"""`pokerarena match`: a match on this machine, without server or database."""

from __future__ import annotations


def match() -> None:
    """Play a match on this machine, without server or database."""
