"""The stakes of one hand, checked once when they are made.

Owns what a table's owner may choose about blinds and antes and the bounds of it. It never knows
who sits where.
"""

from dataclasses import dataclass
from typing import Final, Literal

AnteKind = Literal["each", "big_blind"]

MIN_SEATS: Final = 2
MAX_SEATS: Final = 10
MAX_CHIPS: Final = 1_000_000_000_000
"""The most chips of one blind, ante or stack. Ten such stacks are still exact as a JSON number."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Blinds and ante of one hand, in chips.

    An ante of kind `each` is paid by every player, before the blinds. One of kind `big_blind` is
    paid once for the whole table, by the big blind, out of what the blind left in that stack.
    """

    small_blind: int
    big_blind: int
    ante: int = 0
    ante_kind: AnteKind = "each"

    def __post_init__(self) -> None:
        for name in ("small_blind", "big_blind", "ante"):
            chips = getattr(self, name)
            if type(chips) is not int:
                raise ValueError(f"{name} must be a whole number of chips, not {chips!r}.")
            if chips > MAX_CHIPS:
                raise ValueError(f"{name} must be at most {MAX_CHIPS} chips, not {chips}.")
        if self.small_blind < 1:
            raise ValueError(f"small_blind must be at least 1 chip, not {self.small_blind}.")
        if self.big_blind < self.small_blind:
            raise ValueError(
                f"big_blind must be at least the small blind of {self.small_blind} chips,"
                f" not {self.big_blind}."
            )
        if self.ante < 0:
            raise ValueError(f"ante must not be negative, and it is {self.ante}.")
        if self.ante_kind not in ("each", "big_blind"):
            raise ValueError(f"ante_kind must be 'each' or 'big_blind', not {self.ante_kind!r}.")
