"""What is remembered of a complete hand, in memory.

Owns the record that play produces, that storage packs and that readers get back. It must never
know SQL, and it must never decide who may see a card: `engine.view` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pokerarena.agents.player import FallbackReason
from pokerarena.engine.actions import Action, Kind
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import Transition, replay

Cards = tuple[int, ...]
Holding = tuple[int, int]


class ActionRecord(NamedTuple):
    """One action as it was taken; `street_total` is the seat's total for the street.

    It is None for a fold and a check. `elapsed_ms` is how long the decision took.
    """

    seat: int
    street: int
    kind: Kind
    street_total: int | None
    elapsed_ms: int = 0
    fallback: FallbackReason | None = None

    def action(self) -> Action:
        """The action as the rules take it."""
        return Action(self.kind, self.street_total)


class NoteRecord(NamedTuple):
    """What only the seat's owner may read of one decision: its note, or why it failed."""

    action_no: int
    seat: int
    note: str | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class HandRecord:
    """A hand by seats in ascending order; `board` holds only the cards that were dealt."""

    id: UUID
    hand_no: int
    deal_no: int
    level: int
    ended_at: datetime
    button_seat: int
    seats: tuple[int, ...]
    stacks: tuple[int, ...]
    net: tuple[int, ...]
    board: Cards
    holes: tuple[Holding, ...]
    actions: tuple[ActionRecord, ...]
    notes: tuple[NoteRecord, ...] = ()

    def replay(self, rules: Rules) -> Iterator[Transition]:
        """Play the hand again by the rules, one transition a step; needs the hole cards."""
        return replay(
            rules,
            self.seats,
            self.stacks,
            self.button_seat,
            self.holes,
            self.board,
            [record.action() for record in self.actions],
        )

    def last_hand(self, rules: Rules) -> Hand:
        """The hand as the record leaves it."""
        hand: Hand | None = None
        for transition in self.replay(rules):
            hand = transition.hand
        assert hand is not None, "a replay yields at least its start"
        return hand
