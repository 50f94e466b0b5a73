"""A hand at one moment, and what the player to act may do in it.

Owns the shape of a hand and the reading of it. A `Hand` is immutable by contract: only
`transition`, while it builds a new one, ever assigns its fields, and every field is itself
immutable. A hand holds all cards, the hidden ones too, so it must never be handed to a viewer:
`view` decides what anyone sees.
"""

from enum import IntEnum
from operator import sub
from typing import Final

from pokerarena.engine.actions import Kind, LegalActions
from pokerarena.engine.deal import Deal
from pokerarena.engine.facts import Acted, PotAwarded
from pokerarena.engine.rules import MAX_SEATS, Rules


class Street(IntEnum):
    """The four betting rounds. The numbers are stored; never renumber them."""

    PREFLOP = 0
    FLOP = 1
    TURN = 2
    RIVER = 3

    @property
    def text(self) -> str:
        """The word of the agent protocol for this street."""
        return STREET_TEXTS[self]


STREET_TEXTS: Final = tuple(street.name.lower() for street in Street)

ORDERS: Final = tuple(
    tuple(tuple((after + 1 + step) % count for step in range(count)) for after in range(count))
    for count in range(MAX_SEATS + 1)
)
"""By number of players and position: all positions, in order of play from the left of that one."""

_FOLD_CHECK: Final = (Kind.FOLD, Kind.CHECK)
_FOLD_CHECK_BET: Final = (Kind.FOLD, Kind.CHECK, Kind.BET)
_FOLD_CHECK_RAISE: Final = (Kind.FOLD, Kind.CHECK, Kind.RAISE)
_FOLD_CALL: Final = (Kind.FOLD, Kind.CALL)
_FOLD_CALL_RAISE: Final = (Kind.FOLD, Kind.CALL, Kind.RAISE)

_JUST_CHECK: Final = LegalActions(_FOLD_CHECK, 0, None, None)
_NOTHING: Final = LegalActions((), 0, None, None)

# Half the price of calling a NamedTuple's class; used where it is paid once a decision.
_new_tuple: Final = tuple.__new__


class Hand:
    """One hand at one moment.

    Everything that belongs to players is a tuple by position index, in the order of `seats`.
    `to_act` is the position index of the player whose turn it is, None once the hand is complete.
    """

    __slots__ = (
        "_acted",
        "_actors",
        "_button",
        "_dead",
        "_deal",
        "_full_raise",
        "_legal",
        "_pending",
        "_price",
        "_price_is_posted",
        "all_in",
        "awards",
        "bets",
        "board",
        "button_seat",
        "folded",
        "history",
        "invested",
        "rules",
        "seats",
        "stacks",
        "starting_stacks",
        "street",
        "tabled",
        "to_act",
    )

    rules: Rules
    seats: tuple[int, ...]
    button_seat: int
    starting_stacks: tuple[int, ...]
    street: Street
    board: tuple[int, ...]
    """The board dealt so far."""
    stacks: tuple[int, ...]
    bets: tuple[int, ...]
    """Chips in front of each player on this street; antes are not among them."""
    invested: tuple[int, ...]
    """Chips each player has put into this hand, ante included and returned chips not."""
    folded: tuple[bool, ...]
    all_in: tuple[bool, ...]
    to_act: int | None
    history: tuple[Acted, ...]
    tabled: tuple[int, ...]
    """Seats whose cards lie face up, in the order they are turned."""
    awards: tuple[PotAwarded, ...]
    """Who won which pot; empty until the hand is complete."""

    _deal: Deal
    _button: int
    _dead: int
    """Chips of a big-blind ante; they buy no share in a side pot."""
    _price: int
    """The street total that a player must match to stay in."""
    _price_is_posted: bool
    """False while the price is a big blind whose poster could not pay all of it."""
    _full_raise: int
    """The last full bet or raise of the street, at least the big blind."""
    _acted: int
    """Bit mask of the positions that have acted on this street."""
    _actors: tuple[int, ...]
    """Positions that are neither folded nor all-in, ascending."""
    _pending: tuple[int, ...]
    """Positions still to act on this street, next one first."""
    _legal: LegalActions | None

    @property
    def complete(self) -> bool:
        """Whether the hand is over and its chips are divided."""
        return self.to_act is None

    @property
    def seat_to_act(self) -> int | None:
        """The number of the seat whose turn it is."""
        return None if self.to_act is None else self.seats[self.to_act]

    @property
    def pot(self) -> int:
        """All chips in the middle, those of this street included; at the end, what was won."""
        return sum(self.invested)

    def net(self) -> tuple[int, ...]:
        """Return what each player won or lost; before the end, what each has put in, negative."""
        return tuple(map(sub, self.stacks, self.starting_stacks))

    def price_for(self, position: int) -> int:
        """Return the street total that this player has to match to stay in.

        Where the big blind is all-in for less, the price stays the full big blind, but nobody is
        asked for chips that no opponent could match.
        """
        price = self._price
        if self._price_is_posted:
            return price
        reach = 0
        for other, bet in enumerate(self.bets):
            if other != position and not self.folded[other]:
                reach = max(reach, bet + self.stacks[other])
        return min(price, reach)

    def legal(self) -> LegalActions:
        """Return what the player to act may do; nothing at all once the hand is complete."""
        legal = self._legal
        if legal is None:
            legal = self._legal = self._work_out_legal()
        return legal

    def _work_out_legal(self) -> LegalActions:
        position = self.to_act
        if position is None:
            return _NOTHING
        bets = self.bets
        bet = bets[position]
        stack = self.stacks[position]
        price = self._price if self._price_is_posted else self.price_for(position)
        owed = price - bet
        full_raise = self._full_raise
        if (
            stack > owed
            and (owed >= full_raise or not self._acted >> position & 1)
            and self._someone_can_answer(position, price)
        ):
            most = bet + stack
            least = price + full_raise
            least = min(least, most)
            if owed > 0:
                return _new_tuple(LegalActions, (_FOLD_CALL_RAISE, owed, least, most))
            kinds = _FOLD_CHECK_RAISE if price else _FOLD_CHECK_BET
            return _new_tuple(LegalActions, (kinds, 0, least, most))
        if owed > 0:
            return _new_tuple(LegalActions, (_FOLD_CALL, min(stack, owed), None, None))
        return _JUST_CHECK

    def _someone_can_answer(self, position: int, price: int) -> bool:
        """Whether another player has chips beyond the price, so that a raise has a point."""
        bets = self.bets
        stacks = self.stacks
        for other in self._actors:
            if other != position and bets[other] + stacks[other] > price:
                return True
        return False
