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
    *_, second, most = sorted(contributed)
    return (contributed.index(most), most - second) if most > second else (0, 0)


def build_pots(contributed: Sequence[int], folded: Sequence[bool], dead: int) -> list[Pot]:
    """Return the main pot and the side pots, main pot first.

    `contributed` are the chips that count towards a player's share of the pots, by position; `dead`
    chips, such as a big-blind ante, are in the main pot whoever paid them.
    """
    live = [position for position, out in enumerate(folded) if not out]
    most = max(contributed)
    for position in live:
        if contributed[position] != most:
            break
    else:
        return [Pot(sum(contributed) + dead, tuple(live))]
    levels = sorted({contributed[position] for position in live})
    pots = []
    below = 0
    chips = dead
    for level in levels:
        for put_in in contributed:
            if put_in > below:
                chips += min(level, put_in) - below
        if level == levels[-1]:
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
    chips, contenders = pot
    best = 0
    winners: list[int] = []
    for position in contenders:
        strength = strengths[position]
        if strength > best:
            best = strength
            winners = [position]
        elif strength == best:
            winners.append(position)
    if len(winners) == 1:
        return tuple(winners), (chips,)
    winners.sort(key=lambda position: (position - button - 1) % player_count)
    share, odd = divmod(chips, len(winners))
    return tuple(winners), (share + odd, *[share] * (len(winners) - 1))
