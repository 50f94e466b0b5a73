"""The two simplest house agents: chance, and the calling station."""

from __future__ import annotations

from random import Random
from typing import Final

from pokerarena.agents.house.spot import Move, Spot

_POT_SHARES: Final = (0.5, 0.75, 1.0)


def choose_at_random(spot: Spot, random: Random) -> Move:
    """Each legal kind of action alike; amounts are the least, a usual share of the pot, or all."""
    action = random.choice(spot.turn.legal_actions)
    if action not in ("bet", "raise"):
        return Move(action, None, "chance")
    size = random.random()
    if size < 0.4:
        return spot.raise_to(spot.turn.min_raise_to or 0, "chance: the least")
    if size < 0.95:
        return spot.put_in(random.choice(_POT_SHARES), "chance: a share of the pot")
    return spot.all_in("chance: everything")


def call_always(spot: Spot, random: Random) -> Move:
    """Never bet, never fold."""
    return spot.stay("calls everything")
