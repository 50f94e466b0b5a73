"""How the chips of a finished hand are divided: uncalled chips, side pots, odd chips.

Pure arithmetic over tuples by position index. It never knows an action, a street or a card; the
strengths it compares come from `ranking`.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Pot(NamedTuple):
    """A pot and the positions that may win it."""

    chips: int
    contenders: tuple[int, ...]


def uncalled(contributed: Sequence[int]) -> tuple[int, int]:
    """Return who put in chips that nobody matched, and how many; (0, 0) when all were matched."""
    most = max(contributed)
    first = contributed.index(most)
    second = 0
    for position, chips in enumerate(contributed):
        if chips > second and position != first:
            second = chips
    return (first, most - second) if most > second else (0, 0)


def build_pots(contributed: Sequence[int], folded: Sequence[bool], dead: int) -> list[Pot]:
    """Return the main pot and the side pots, main pot first.

    `contributed` are the chips that count towards a player's share of the pots, by position; `dead`
    chips, such as a big-blind ante, are in the main pot whoever paid them.
    """
    live = [position for position, out in enumerate(folded) if not out]
    levels = sorted({contributed[position] for position in live})
    if len(levels) == 1:
        return [Pot(sum(contributed) + dead, tuple(live))]
    pots = []
    below = 0
    chips = dead
    for level in levels:
        for put_in in contributed:
            if put_in > below:
                chips += min(level, put_in) - below
        if level is levels[-1]:
            # Nobody who folded ever put in more than the last contender; this keeps the sum exact
            # even if a caller's history were odd.
            chips += sum(put_in - level for put_in in contributed if put_in > level)
        if chips:
            pots.append(
                Pot(chips, tuple([position for position in live if contributed[position] >= level]))
            )
        below = level
        chips = 0
    return pots


def split(
    pot: Pot, strengths: Sequence[int], button: int, player_count: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the winners of a pot, first the one nearest to the left of the button, and their shares.

    Chips that do not divide evenly all go to that first winner.
    """
    contenders = pot.contenders
    best = max([strengths[position] for position in contenders])
    winners = [position for position in contenders if strengths[position] == best]
    if len(winners) == 1:
        return (winners[0],), (pot.chips,)
    winners.sort(key=lambda position: (position - button - 1) % player_count)
    share, odd = divmod(pot.chips, len(winners))
    return tuple(winners), (share + odd, *[share] * (len(winners) - 1))
