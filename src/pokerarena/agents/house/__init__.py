"""House agents: built-in players, always at hand, each a real strategy of its name.

Owns how a house agent is made and asked. House agents see what every agent sees, a `Callback`, and
nothing else. Their answers depend on that and on their seed alone, never on a clock or on global
randomness, so the same seed plays the same hands.
"""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from typing import Final

from pokerarena.agents.house.equity import equity
from pokerarena.agents.house.simple import call_always, choose_at_random
from pokerarena.agents.house.spot import Move, Spot, Strategy
from pokerarena.agents.house.tight import tight
from pokerarena.agents.player import Reply
from pokerarena.protocol.messages import Answer, Callback, HandEnd, RunEnd, RunStart

STRATEGIES: Final[dict[str, Strategy]] = {
    "random": choose_at_random,
    "caller": call_always,
    "tight": tight,
    "equity": equity,
}


class UnknownHouseAgent(Exception):
    """A name that no house agent has; the message lists those that exist."""


class HousePlayer:
    """A house agent in one seat.

    `seed` must be secret from the other players where chips matter: whoever knows it knows how
    this agent decides. With `explain` every answer carries its reason as a note.
    """

    max_in_flight = 1_000_000

    def __init__(self, name: str, seed: bytes, *, explain: bool = False) -> None:
        try:
            self._strategy = STRATEGIES[name]
        except KeyError:
            raise UnknownHouseAgent(
                f"there is no house agent {name!r}; there are {', '.join(STRATEGIES)}"
            ) from None
        self.name = name
        self._seed = blake2b(seed, digest_size=32).digest()
        self._explain = explain

    def move(self, callback: Callback) -> Move:
        """What this agent does here, and why."""
        return self._strategy(Spot(callback), self._random(callback))

    async def open(self, run_start: RunStart) -> None:
        """Nothing to prepare."""

    async def decide(self, callback: Callback, deadline_ms: int) -> Reply:
        move = self.move(callback)
        return Answer(move.action, move.amount, note=move.why if self._explain else None)

    async def tell(self, message: HandEnd | RunEnd) -> None:
        """House agents do not learn from results."""

    async def close(self) -> None:
        """Nothing to release."""

    def _random(self, callback: Callback) -> Random:
        # Ids of runs and hands differ between repetitions of a match and must not matter.
        place = (
            f"{callback.seat} {callback.hand_no} {len(callback.history)} "
            f"{callback.hole_cards} {callback.board}"
        )
        digest = blake2b(place.encode(), key=self._seed, digest_size=8).digest()
        return Random(int.from_bytes(digest, "big"))  # noqa: S311 - see the class: reproducible
