"""A callback as a poker player reads it: position, price, aggression, and sizes that are legal.

Owns the reading that all house strategies share. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from pokerarena.engine.cards import CARD_TEXTS
from pokerarena.protocol.messages import ActionName, Callback

_CARDS: Final = {text: card for card, text in enumerate(CARD_TEXTS)}


class Move(NamedTuple):
    """An action and the reason for it."""

    action: ActionName
    amount: int | None
    why: str


class Spot:
    """One decision, read once. Cards are the engine's numbers."""

    __slots__ = (
        "aggressor",
        "big_blind",
        "board",
        "can_raise",
        "holes",
        "limpers",
        "opponents",
        "order",
        "place",
        "pot",
        "price",
        "raises",
        "stack",
        "to_call",
        "turn",
    )

    def __init__(self, turn: Callback) -> None:
        self.turn = turn
        self.holes = (_CARDS[turn.hole_cards[0]], _CARDS[turn.hole_cards[1]])
        self.board = tuple([_CARDS[text] for text in turn.board])
        self.pot = turn.pot
        self.to_call = turn.to_call
        self.stack = turn.stacks[turn.seat]
        self.big_blind = turn.big_blind
        self.can_raise = turn.min_raise_to is not None
        # What staying in costs, as a share of the pot one would then play for.
        self.price = turn.to_call / (turn.pot + turn.to_call) if turn.to_call else 0.0
        seats = sorted(turn.stacks)
        button = seats.index(turn.button_seat)
        # Seats in the order in which they act after the flop; the button comes last.
        self.order = seats[button + 1 :] + seats[: button + 1]
        self.place = self.order.index(turn.seat)
        folded = turn.folded
        self.opponents = [seat for seat in seats if seat != turn.seat and seat not in folded]
        self.aggressor: int | None = None
        """Who bet or raised last in the hand, on any street."""
        self.raises = 0
        """Bets and raises on this street."""
        self.limpers = 0
        """Calls on this street before any bet or raise."""
        for entry in turn.history:
            here = entry.street == turn.street
            if entry.action in ("bet", "raise"):
                self.aggressor = entry.seat
                self.raises += here
            elif entry.action == "call" and here and not self.raises:
                self.limpers += 1

    @property
    def heads_up(self) -> bool:
        """Whether the hand was dealt to two players only."""
        return len(self.order) == 2

    @property
    def seats_behind(self) -> int:
        """How many seats acted later than this one before the flop, blinds not counted."""
        return len(self.order) - 1 - self.place

    @property
    def last_to_act(self) -> bool:
        """Whether every opponent acts before us on the later streets."""
        return all(self.order.index(seat) < self.place for seat in self.opponents)

    @property
    def depth(self) -> float:
        """Big blinds that can still go in: our stack or the biggest opponent's, bets included."""
        bets, stacks = self.turn.bets, self.turn.stacks
        most = max([stacks[seat] + bets[seat] for seat in self.opponents], default=0)
        return min(self.stack + bets[self.turn.seat], most) / self.big_blind

    def give_up(self, why: str) -> Move:
        """Check if that is free, else fold."""
        if self.to_call:
            return Move("fold", None, why)
        return Move("check", None, why)

    def stay(self, why: str) -> Move:
        """Check or call."""
        return Move("call" if self.to_call else "check", None, why)

    def put_in(self, pot_share: float, why: str) -> Move:
        """Bet or raise by a share of the pot as it is after calling."""
        bet = max(self.turn.bets.values())
        return self.raise_to(bet + round(pot_share * (self.pot + self.to_call)), why)

    def raise_to(self, amount: int, why: str) -> Move:
        """Bet or raise to `amount`, kept within the rules; stay in where no raise is legal.

        When nearly everything would go in, everything does: a few chips behind are worth nothing.
        """
        least, most = self.turn.min_raise_to, self.turn.max_raise_to
        if least is None or most is None:
            return self.stay(why)
        if amount * 3 >= most * 2:
            amount = most
        return Move(
            "bet" if "bet" in self.turn.legal_actions else "raise",
            min(max(amount, least), most),
            why,
        )

    def all_in(self, why: str) -> Move:
        return self.raise_to(self.turn.max_raise_to or 0, why)


Strategy = Callable[[Spot, Random], Move]
