"""Write an agent for pokerarena: one function `act(view)`, run hosted, over HTTP, or locally.

Owns the agent's side of protocol version 1 and nothing of the arena. It must never import anything
but the standard library, and at import time as little of it as possible: a sandboxed agent pays for
every module before its first hand.
"""

from __future__ import annotations

from pokerarena_sdk.running import run
from pokerarena_sdk.view import Action, BadAction, View

__version__ = "0.1.0"
__all__ = ["Action", "BadAction", "View", "__version__", "run"]
