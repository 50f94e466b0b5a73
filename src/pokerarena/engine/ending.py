"""How a hand ends: uncalled chips go back, hands are tabled, pots are won.

Works on a hand that `transition` has under construction, and is called by nobody else. It decides
who wins; it never decides that a hand is over.
"""

from operator import sub
from typing import Final

from pokerarena.engine.facts import (
    PUBLIC,
    Fact,
    HandEnded,
    HandTabled,
    PotAwarded,
    UncalledReturned,
)
from pokerarena.engine.pots import build_pots, split, uncalled
from pokerarena.engine.ranking import rank_holdings
from pokerarena.engine.state import ORDERS, Hand

# Half the price of calling a NamedTuple's class, which adds up where every step makes several.
_new_tuple: Final = tuple.__new__


def table_hands(hand: Hand, facts: list[Fact]) -> None:
    """Turn up the cards of everyone who is still in, first to the left of the button."""
    holes = hand._deal.holes
    seats = hand.seats
    folded = hand.folded
    in_order = [position for position in ORDERS[len(seats)][hand._button] if not folded[position]]
    hand.tabled = tuple([seats[position] for position in in_order])
    for position in in_order:
        facts.append(_new_tuple(HandTabled, (PUBLIC, seats[position], holes[position])))


def _contributed(hand: Hand) -> tuple[int, ...]:
    """Return what each player put in that counts towards a share of the pots."""
    dead = hand._dead
    if not dead:
        return hand.invested
    count = len(hand.seats)
    big = (hand._button + (1 if count == 2 else 2)) % count
    contributed = list(hand.invested)
    contributed[big] -= dead
    return tuple(contributed)


def return_uncalled(hand: Hand, facts: list[Fact]) -> None:
    """Give back what nobody matched."""
    position, chips = uncalled(_contributed(hand) if hand._dead else hand.invested)
    if chips:
        stacks, invested, all_in = hand.stacks, hand.invested, hand.all_in
        after = position + 1
        hand.stacks = (*stacks[:position], stacks[position] + chips, *stacks[after:])
        hand.invested = (*invested[:position], invested[position] - chips, *invested[after:])
        if all_in[position]:
            hand.all_in = (*all_in[:position], False, *all_in[after:])
        facts.append(_new_tuple(UncalledReturned, (PUBLIC, hand.seats[position], chips)))


def end_without_showdown(hand: Hand, facts: list[Fact]) -> None:
    """Give the pot to the only player who did not fold; no card is shown."""
    return_uncalled(hand, facts)
    seat = hand.seats[hand.folded.index(False)]
    chips = sum(hand.invested)
    _finish(hand, facts, (_new_tuple(PotAwarded, (PUBLIC, 0, chips, (seat,), (chips,))),))


def end_by_showdown(hand: Hand, facts: list[Fact]) -> None:
    """Give each pot to the best of the tabled hands that compete for it."""
    folded = hand.folded
    seats = hand.seats
    holes = hand._deal.holes
    live = [position for position, out in enumerate(folded) if not out]
    strengths = [0] * len(folded)
    ranked = rank_holdings(hand.board, [holes[position] for position in live])
    for position, strength in zip(live, ranked, strict=True):
        strengths[position] = strength
    awards = []
    for number, pot in enumerate(build_pots(_contributed(hand), folded, hand._dead)):
        winners, shares = split(pot, strengths, hand._button, len(seats))
        winning_seats = tuple([seats[position] for position in winners])
        fields = (PUBLIC, number, pot.chips, winning_seats, shares)
        awards.append(_new_tuple(PotAwarded, fields))
    _finish(hand, facts, tuple(awards))


def _finish(hand: Hand, facts: list[Fact], awards: tuple[PotAwarded, ...]) -> None:
    stacks = list(hand.stacks)
    seats = hand.seats
    for _audience, _pot, chips, winners, shares in awards:
        if len(winners) == 1:
            stacks[seats.index(winners[0])] += chips
            continue
        for seat, share in zip(winners, shares, strict=True):
            stacks[seats.index(seat)] += share
    hand.stacks = tuple(stacks)
    hand.bets = (0,) * len(stacks)
    hand.awards = awards
    hand.to_act = None
    hand._pending = ()
    facts.extend(awards)
    net = tuple(map(sub, stacks, hand.starting_stacks))
    facts.append(_new_tuple(HandEnded, (PUBLIC, seats, hand.stacks, net)))
