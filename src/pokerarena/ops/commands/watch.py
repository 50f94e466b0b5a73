"""`pokerarena watch`: a live table in the terminal."""

from __future__ import annotations


def watch() -> None:
    """Draw a live table in the terminal."""
