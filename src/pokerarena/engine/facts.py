"""What happened in a hand, one record a happening, each with the audience that may know it.

Facts are what replays and live streams are made of. A fact's audience is `PUBLIC` or the number of
the one seat that may see it; `view.visible_facts` is the only reader of audiences.
"""

from typing import Final, NamedTuple, TypeAlias

from pokerarena.engine.actions import Kind
from pokerarena.engine.cards import Card

PUBLIC: Final = 0
"""The audience of everybody; seats are numbered from 1."""


class HoleCardsDealt(NamedTuple):
    """A seat got its two cards."""

    audience: int
    seat: int
    cards: tuple[Card, Card]


class AntePosted(NamedTuple):
    """A seat paid an ante, as much of it as it had."""

    audience: int
    seat: int
    chips: int


class BlindPosted(NamedTuple):
    """A seat posted a blind, as much of it as it had."""

    audience: int
    seat: int
    blind: str
    """`small` or `big`."""
    chips: int


class Acted(NamedTuple):
    """A seat acted; `amount` is its total for the street, None for a fold or a check."""

    audience: int
    street: int
    seat: int
    kind: Kind
    amount: int | None


class BoardDealt(NamedTuple):
    """Cards were added to the board."""

    audience: int
    street: int
    cards: tuple[Card, ...]


class UncalledReturned(NamedTuple):
    """The part of a bet that nobody matched went back to its seat."""

    audience: int
    seat: int
    chips: int


class HandTabled(NamedTuple):
    """A seat turned its cards face up for the showdown."""

    audience: int
    seat: int
    cards: tuple[Card, Card]


class PotAwarded(NamedTuple):
    """A pot went to its winners; pot 0 is the main pot. `shares` are parallel to `seats`."""

    audience: int
    pot: int
    chips: int
    seats: tuple[int, ...]
    shares: tuple[int, ...]


class HandEnded(NamedTuple):
    """The hand is complete; `stacks` and `net` are parallel to `seats`."""

    audience: int
    seats: tuple[int, ...]
    stacks: tuple[int, ...]
    net: tuple[int, ...]


Fact: TypeAlias = (
    HoleCardsDealt
    | AntePosted
    | BlindPosted
    | Acted
    | BoardDealt
    | UncalledReturned
    | HandTabled
    | PotAwarded
    | HandEnded
)
