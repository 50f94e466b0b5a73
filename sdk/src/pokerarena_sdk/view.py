"""What an agent sees when it is asked, and the answers it may give.

Owns the reading of a callback and the legal amounts. It never guesses: a field that the arena did
not send raises, so that a mistake shows at once.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ACTION_NAMES = ("fold", "check", "call", "bet", "raise")
MAX_NOTE_BYTES = 1024

# The typed form would import typing, which costs an agent 3 ms before its first hand.
HistoryEntry = namedtuple(  # noqa: PYI024
    "HistoryEntry", ("street", "seat", "action", "amount")
)
HistoryEntry.__doc__ = "One public action: `amount` is the seat's total for the street, or None."


class BadAction(Exception):
    """What `act` returned is not an action; the message says what is."""


class Action:
    """One answer: an action's name, its amount (total for the street) and an optional note."""

    __slots__ = ("amount", "name", "note")

    def __init__(self, name: str, amount: int | None = None, note: str | None = None) -> None:
        self.name = name
        self.amount = amount
        self.note = note

    def with_note(self, note: str) -> Action:
        """The same action with a note for the owner, shown in replays; cut to 1,024 bytes."""
        data = str(note).encode("utf-8", "replace")[:MAX_NOTE_BYTES]
        return Action(self.name, self.amount, data.decode("utf-8", "ignore").replace("\0", " "))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Action):
            return NotImplemented
        return (self.name, self.amount, self.note) == (other.name, other.amount, other.note)

    def __hash__(self) -> int:
        return hash((self.name, self.amount, self.note))

    def __repr__(self) -> str:
        return self.name if self.amount is None else f"{self.name} to {self.amount}"


class View:
    """The state of the hand as this seat may see it, when it is its turn.

    Amounts are chips. `bets` are those of this street, `stacks` the chips behind.
    """

    __slots__ = ("_bets", "_history", "_stacks", "raw")

    def __init__(self, callback: dict[str, Any]) -> None:
        self.raw = callback
        self._stacks: dict[int, int] | None = None
        self._bets: dict[int, int] | None = None
        self._history: tuple[Any, ...] | None = None

    # What the arena sent.

    @property
    def decision_id(self) -> str:
        return self.raw["decision_id"]

    @property
    def run_id(self) -> str:
        return self.raw["run_id"]

    @property
    def table_id(self) -> str:
        return self.raw["table_id"]

    @property
    def hand_id(self) -> str:
        return self.raw["hand_id"]

    @property
    def hand_no(self) -> int:
        return self.raw["hand_no"]

    @property
    def seat(self) -> int:
        """My seat."""
        return self.raw["seat"]

    @property
    def button_seat(self) -> int:
        return self.raw["button_seat"]

    @property
    def small_blind(self) -> int:
        return self.raw["small_blind"]

    @property
    def big_blind(self) -> int:
        return self.raw["big_blind"]

    @property
    def ante(self) -> int:
        return self.raw["ante"]

    @property
    def street(self) -> str:
        """preflop, flop, turn or river."""
        return self.raw["street"]

    @property
    def hole_cards(self) -> list[str]:
        """My two cards, such as ["As", "Td"]."""
        return self.raw["hole_cards"]

    @property
    def board(self) -> list[str]:
        return self.raw["board"]

    @property
    def pot(self) -> int:
        """All chips in the middle, bets of this street included."""
        return self.raw["pot"]

    @property
    def to_call(self) -> int:
        """What a call costs me, never more than my stack."""
        return self.raw["to_call"]

    @property
    def min_raise_to(self) -> int | None:
        """The smallest legal bet or raise, as a total for the street; None when neither is."""
        return self.raw["min_raise_to"]

    @property
    def max_raise_to(self) -> int | None:
        """The largest legal bet or raise, as a total for the street: all my chips."""
        return self.raw["max_raise_to"]

    @property
    def folded(self) -> list[int]:
        return self.raw["folded"]

    @property
    def all_in_seats(self) -> list[int]:
        return self.raw["all_in"]

    @property
    def legal_actions(self) -> list[str]:
        return self.raw["legal_actions"]

    @property
    def action_deadline_ms(self) -> int:
        return self.raw["action_deadline_ms"]

    @property
    def stacks(self) -> dict[int, int]:
        if self._stacks is None:
            self._stacks = {int(seat): chips for seat, chips in self.raw["stacks"].items()}
        return self._stacks

    @property
    def bets(self) -> dict[int, int]:
        if self._bets is None:
            self._bets = {int(seat): chips for seat, chips in self.raw["bets"].items()}
        return self._bets

    @property
    def history(self) -> tuple[Any, ...]:
        """The hand's public actions in order, as `HistoryEntry`."""
        if self._history is None:
            self._history = tuple(
                HistoryEntry(one["street"], one["seat"], one["action"], one["amount"])
                for one in self.raw["history"]
            )
        return self._history

    # What follows from it.

    @property
    def my_stack(self) -> int:
        return self.stacks[self.seat]

    @property
    def my_bet(self) -> int:
        return self.bets.get(self.seat, 0)

    @property
    def seats(self) -> list[int]:
        return sorted(self.stacks)

    @property
    def opponents(self) -> list[int]:
        """Other seats that are still in the hand."""
        folded = self.folded
        return [seat for seat in self.seats if seat != self.seat and seat not in folded]

    @property
    def pot_odds(self) -> float:
        """The share of wins at which a call breaks even; 0.0 when there is nothing to call."""
        to_call = self.to_call
        return to_call / (self.pot + to_call) if to_call else 0.0

    def can(self, action: str) -> bool:
        return action in self.raw["legal_actions"]

    # Answers.

    def fold(self) -> Action:
        return Action("fold")

    def check(self) -> Action:
        return Action("check")

    def call(self) -> Action:
        return Action("call")

    def check_or_fold(self) -> Action:
        """What the arena itself would do for a seat that fails."""
        return Action("check" if self.can("check") else "fold")

    def check_or_call(self) -> Action:
        return Action("check" if self.can("check") else "call")

    def bet(self, chips: int) -> Action:
        """A bet of exactly this many chips; see `raise_to` for one that is always legal."""
        return Action("bet", int(chips))

    def raise_to(self, chips: float) -> Action:
        """Bet or raise to this total for the street, moved into the legal amounts.

        Where no bet or raise is legal: call, or check.
        """
        least, most = self.min_raise_to, self.max_raise_to
        if least is None or most is None:
            return self.check_or_call()
        amount = min(max(int(chips), least), most)
        return Action("raise" if self.can("raise") else "bet", amount)

    def raise_pot(self, share: float = 1.0) -> Action:
        """Raise by this share of the pot, counted after a call; a bet of it when none is there."""
        called = self.my_bet + self.to_call
        return self.raise_to(called + share * (self.pot + self.to_call))

    def all_in(self) -> Action:
        most = self.max_raise_to
        return self.check_or_call() if most is None else self.raise_to(most)


def answer_of(result: Any, decision_id: str | None) -> dict[str, Any]:
    """The protocol's answer for what `act` returned: Action, name, (name, amount) or dictionary."""
    if isinstance(result, Action):
        answer: dict[str, Any] = {"action": result.name}
        if result.amount is not None:
            answer["amount"] = result.amount
        if result.note is not None:
            answer["note"] = result.note
    elif isinstance(result, str):
        answer = {"action": result}
    elif isinstance(result, tuple) and len(result) == 2:
        answer = {"action": result[0], "amount": result[1]}
    elif isinstance(result, dict):
        answer = dict(result)
    else:
        raise BadAction(
            f"act returned {type(result).__name__}; return view.call(), 'call', ('raise', 300) "
            "or a dictionary with 'action'"
        )
    name = answer.get("action")
    if name not in ACTION_NAMES:
        raise BadAction(f"act chose {name!r}; the actions are {', '.join(ACTION_NAMES)}")
    amount = answer.get("amount")
    if name in ("bet", "raise"):
        if isinstance(amount, bool) or not isinstance(amount, int):
            raise BadAction(f"a {name} needs a whole number of chips, not {amount!r}")
    else:
        answer.pop("amount", None)
    if decision_id is not None:
        answer["decision_id"] = decision_id
    return answer


def mistakes(view: View, answer: dict[str, Any]) -> str | None:
    """Why this answer is illegal here, in a sentence; None when it is legal."""
    name, amount = answer["action"], answer.get("amount")
    legal = view.legal_actions
    if name not in legal:
        return f"{name} is not possible here; legal are {', '.join(legal)}"
    if name in ("bet", "raise"):
        least, most = view.min_raise_to, view.max_raise_to
        if least is None or most is None or amount is None:
            return f"{name} has no legal amount here"
        if not least <= amount <= most:
            return f"{name} to {amount} is outside {least} to {most}"
    return None
