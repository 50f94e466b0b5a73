"""The one door of redaction: what a viewer may see of a hand.

Every reader of cards (API, stream, export, web, agent messages) gets them from here and nowhere
else. Closed by default: a viewer sees the hole cards of its own seats, and of seats that tabled
them at a showdown. Folded hands stay hidden, a pot won without a showdown shows nothing, and cards
that were never dealt are seen by nobody. A view refers to no `Hand` and no `Deal`, so nothing
hidden can be reached through it.
"""

from collections.abc import Iterable
from operator import sub
from typing import ClassVar

from pokerarena.engine.actions import LegalActions
from pokerarena.engine.cards import Card
from pokerarena.engine.facts import PUBLIC, Acted, Fact, PotAwarded
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand, Street


class Viewer:
    """Whose eyes look at a hand: a set of seats, nobody's, or everybody's.

    `EVERYTHING` sees all hole cards. It is for tables whose reveal policy is `after_run`, once the
    run has ended; who qualifies is decided by the caller, not here.
    """

    __slots__ = ("everything", "seats")

    SPECTATOR: ClassVar["Viewer"]
    EVERYTHING: ClassVar["Viewer"]

    seats: frozenset[int]
    everything: bool

    def __init__(self, seats: frozenset[int], everything: bool = False) -> None:
        self.seats = seats
        self.everything = everything

    @classmethod
    def of_seats(cls, seats: Iterable[int]) -> "Viewer":
        """Return the viewer who owns these seats, and no other."""
        return cls(frozenset(seats))

    def __repr__(self) -> str:
        return "Viewer.EVERYTHING" if self.everything else f"Viewer.of_seats({sorted(self.seats)})"


Viewer.SPECTATOR = Viewer(frozenset())
Viewer.EVERYTHING = Viewer(frozenset(), everything=True)


class HandView:
    """What one viewer may see of a hand at one moment.

    Tuples are by position index, in the order of `seats`; `seat_to_act` is a seat number. `holes`
    has the cards of just those seats whose cards the viewer may see.
    """

    __slots__ = (
        "all_in",
        "awards",
        "bets",
        "board",
        "button_seat",
        "complete",
        "folded",
        "history",
        "holes",
        "invested",
        "legal",
        "pot",
        "rules",
        "seat_to_act",
        "seats",
        "stacks",
        "starting_stacks",
        "street",
        "tabled",
    )

    rules: Rules
    seats: tuple[int, ...]
    button_seat: int
    street: Street
    board: tuple[Card, ...]
    pot: int
    """All chips in the middle, the bets of this street included."""
    starting_stacks: tuple[int, ...]
    stacks: tuple[int, ...]
    bets: tuple[int, ...]
    invested: tuple[int, ...]
    folded: tuple[bool, ...]
    all_in: tuple[bool, ...]
    seat_to_act: int | None
    legal: LegalActions
    """What the seat to act may do, amounts included; no kinds at all once the hand is complete."""
    history: tuple[Acted, ...]
    holes: dict[int, tuple[Card, Card]]
    tabled: tuple[int, ...]
    awards: tuple[PotAwarded, ...]
    complete: bool

    def net(self) -> tuple[int, ...]:
        """Return what each player won or lost; before the end, what each has put in, negative."""
        return tuple(map(sub, self.stacks, self.starting_stacks))


def see(hand: Hand, viewer: Viewer) -> HandView:
    """Return what the viewer may see of the hand now."""
    view = HandView.__new__(HandView)
    seats = view.seats = hand.seats
    to_act = hand.to_act
    if to_act is None:
        view.complete = True
        view.seat_to_act = None
    else:
        view.complete = False
        view.seat_to_act = seats[to_act]
    view.rules = hand.rules
    view.button_seat = hand.button_seat
    view.street = hand.street
    view.board = hand.board
    view.pot = sum(hand.invested)
    view.starting_stacks = hand.starting_stacks
    view.stacks = hand.stacks
    view.bets = hand.bets
    view.invested = hand.invested
    view.folded = hand.folded
    view.all_in = hand.all_in
    view.legal = hand._legal or hand.legal()
    view.history = hand.history
    view.tabled = hand.tabled
    view.awards = hand.awards
    holes = hand._deal.holes
    if viewer.everything:
        view.holes = dict(zip(seats, holes, strict=True))
    else:
        shown = view.holes = {}
        for seat in viewer.seats:
            if seat in seats:
                shown[seat] = holes[seats.index(seat)]
        for seat in hand.tabled:
            shown[seat] = holes[seats.index(seat)]
    return view


def visible_facts(facts: Iterable[Fact], viewer: Viewer) -> tuple[Fact, ...]:
    """Return the facts that the viewer may know, in order."""
    if viewer.everything:
        return tuple(facts)
    return tuple(
        [fact for fact in facts if fact.audience == PUBLIC or fact.audience in viewer.seats]
    )
