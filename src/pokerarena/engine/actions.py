"""What a player may do: the five kinds of action, the legal ones of a moment, and refusals.

Owns the words of the betting. It never decides what is legal; `state` does.
"""

from enum import IntEnum
from typing import Final, NamedTuple


class Kind(IntEnum):
    """The kinds of action. The numbers are stored; never renumber them."""

    FOLD = 0
    CHECK = 1
    CALL = 2
    BET = 3
    RAISE = 4

    @property
    def text(self) -> str:
        """The word of the agent protocol for this kind."""
        return _TEXTS[self]

    @classmethod
    def of_text(cls, text: str) -> "Kind":
        """Return the kind that the protocol's word names; raises ValueError for any other word."""
        try:
            return _KINDS_BY_TEXT[text]
        except (KeyError, TypeError):
            raise ValueError(
                f"{text!r} is not an action: the actions are fold, check, call, bet and raise."
            ) from None


_TEXTS: Final = {kind: kind.name.lower() for kind in Kind}
_KINDS_BY_TEXT: Final = {text: kind for kind, text in _TEXTS.items()}


class Action(NamedTuple):
    """One decision.

    `amount` is the player's total for the street after a bet or raise. The rules alone say what a
    call costs, so they ignore the amount of every other kind.
    """

    kind: Kind
    amount: int | None = None


FOLD: Final = Action(Kind.FOLD)
CHECK: Final = Action(Kind.CHECK)
CALL: Final = Action(Kind.CALL)


class LegalActions(NamedTuple):
    """What the player to act may do now.

    `to_call` is what a call adds, never more than the player's stack. `min_raise_to` and
    `max_raise_to` are totals for the street, for a bet as for a raise, and None when neither is
    legal.
    """

    kinds: tuple[Kind, ...]
    to_call: int
    min_raise_to: int | None
    max_raise_to: int | None

    def sentence(self) -> str:
        """Say in words what is legal, amounts included."""
        words = []
        for kind in self.kinds:
            if kind is Kind.CALL:
                words.append(f"call (adding {self.to_call})")
            elif kind is Kind.BET or kind is Kind.RAISE:
                if self.min_raise_to == self.max_raise_to:
                    words.append(f"{kind.text} to exactly {self.max_raise_to} (all-in)")
                else:
                    words.append(f"{kind.text} to {self.min_raise_to}..{self.max_raise_to}")
            else:
                words.append(kind.text)
        return "Legal now: " + ", ".join(words) + "."


class IllegalAction(Exception):
    """An action that the rules refuse. The message is a sentence that says what would be legal.

    Codes: `hand_complete`, `cannot_check`, `nothing_to_call`, `cannot_bet`, `nothing_to_raise`,
    `raise_not_allowed`, `amount_missing`, `amount_not_an_integer`, `amount_too_small`,
    `amount_too_large`, `unknown_action`.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


def refused_kind(kind: Kind, legal: LegalActions) -> IllegalAction:
    """Return the refusal of an action whose kind is not legal now."""
    if not legal.kinds:
        return IllegalAction(
            "hand_complete", "The hand is complete; nobody can act in it any more."
        )
    if kind not in _TEXTS:
        return IllegalAction("unknown_action", f"There is no action {kind!r}. {legal.sentence()}")
    if kind == Kind.CHECK:
        code, why = "cannot_check", f"You cannot check, because there are {legal.to_call} to call."
    elif kind == Kind.CALL:
        code, why = "nothing_to_call", "There is nothing to call."
    elif kind == Kind.BET and (Kind.RAISE in legal.kinds or legal.to_call):
        code, why = "cannot_bet", "You cannot bet, because there is a bet already."
    elif kind == Kind.RAISE and Kind.BET in legal.kinds:
        code, why = "nothing_to_raise", "There is no bet to raise."
    else:
        code = "raise_not_allowed"
        why = (
            f"You cannot {kind.text}: your chips do not reach beyond a call, or no opponent could"
            " answer, or the betting was not reopened for you."
        )
    return IllegalAction(code, f"{why} {legal.sentence()}")


def refused_amount(action: Action, legal: LegalActions) -> IllegalAction:
    """Return the refusal of a bet or raise whose amount is not legal now."""
    kind, amount = action
    least, most = legal.min_raise_to, legal.max_raise_to
    word = "bet" if kind == Kind.BET else "raise"
    if amount is None:
        code, why = "amount_missing", f"A {word} needs an amount, your total for this street."
    elif type(amount) is not int:
        code, why = "amount_not_an_integer", f"The amount of a {word} must be a whole number."
    elif least is not None and amount < least:
        code, why = "amount_too_small", f"A {word} to {amount} is below the minimum of {least}."
    else:
        code, why = "amount_too_large", f"A {word} to {amount} is above the maximum of {most}."
    return IllegalAction(code, f"{why} {legal.sentence()}")
