"""Hands as they are shown: views, facts and actions in JSON.

Everything with a card in it is made from a `HandView` or from facts that `engine.view` let through.
Of a stored record it must never read more than numbers, times and actions: no card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from pokerarena.api.shapes import HandId, RunId, Shown, TableId
from pokerarena.engine import facts as happened
from pokerarena.engine.cards import cards_text
from pokerarena.engine.state import STREET_TEXTS
from pokerarena.engine.view import HandView
from pokerarena.history.models import DecisionNote
from pokerarena.history.read import StoredHand
from pokerarena.history.record import ActionRecord

StreetName = Literal["preflop", "flop", "turn", "river"]
ActionName = Literal["fold", "check", "call", "bet", "raise"]
CardText = Annotated[str, Field(pattern="^[2-9TJQKA][cdhs]$")]


class SeatInHand(Shown):
    """One player in a hand; ``cards`` is null where the viewer may not see them."""

    seat_no: int
    starting_stack: int
    stack: int
    bet: int
    invested: int
    net: int
    folded: bool
    all_in: bool
    tabled: bool
    cards: list[CardText] | None


class LegalShown(Shown):
    """What the seat to act may do."""

    actions: list[ActionName]
    to_call: int
    min_raise_to: int | None
    max_raise_to: int | None


class HistoryEntry(Shown):
    """One action of the hand; ``amount`` is the seat's total for the street."""

    street: StreetName
    seat_no: int
    action: ActionName
    amount: int | None


class PotShown(Shown):
    """A pot and who won it; ``shares`` are parallel to ``seats``."""

    pot: int
    chips: int
    seats: list[int]
    shares: list[int]


class ViewShown(Shown):
    """A hand at one moment, as the viewer may see it."""

    button_seat: int
    small_blind: int
    big_blind: int
    ante: int
    ante_kind: Literal["each", "big_blind"]
    street: StreetName
    board: list[CardText]
    pot: int
    seats: list[SeatInHand]
    seat_to_act: int | None
    legal: LegalShown | None
    history: list[HistoryEntry]
    pots: list[PotShown]
    complete: bool

    @classmethod
    def of(cls, view: HandView) -> ViewShown:
        net = view.net()
        return cls(
            button_seat=view.button_seat,
            small_blind=view.rules.small_blind,
            big_blind=view.rules.big_blind,
            ante=view.rules.ante,
            ante_kind=view.rules.ante_kind,
            street=_street(view.street),
            board=list(cards_text(view.board)),
            pot=view.pot,
            seats=[
                SeatInHand(
                    seat_no=seat_no,
                    starting_stack=view.starting_stacks[at],
                    stack=view.stacks[at],
                    bet=view.bets[at],
                    invested=view.invested[at],
                    net=net[at],
                    folded=view.folded[at],
                    all_in=view.all_in[at],
                    tabled=seat_no in view.tabled,
                    cards=list(cards_text(view.holes[seat_no])) if seat_no in view.holes else None,
                )
                for at, seat_no in enumerate(view.seats)
            ],
            seat_to_act=view.seat_to_act,
            legal=(
                None
                if view.complete
                else LegalShown(
                    actions=[_action(kind) for kind in view.legal.kinds],
                    to_call=view.legal.to_call,
                    min_raise_to=view.legal.min_raise_to,
                    max_raise_to=view.legal.max_raise_to,
                )
            ),
            history=[
                HistoryEntry(
                    street=_street(acted.street),
                    seat_no=acted.seat,
                    action=_action(acted.kind),
                    amount=acted.amount,
                )
                for acted in view.history
            ],
            pots=[
                PotShown(
                    pot=award.pot,
                    chips=award.chips,
                    seats=list(award.seats),
                    shares=list(award.shares),
                )
                for award in view.awards
            ],
            complete=view.complete,
        )


class LiveHandShown(Shown):
    """The hand that is being played now at a table."""

    table_id: TableId
    run_id: RunId
    hand_id: HandId
    hand_no: int
    view: ViewShown

    @classmethod
    def of(
        cls, view: HandView, *, table_id: UUID, run_id: UUID, hand_id: UUID, hand_no: int
    ) -> LiveHandShown:
        return cls(
            table_id=table_id,
            run_id=run_id,
            hand_id=hand_id,
            hand_no=hand_no,
            view=ViewShown.of(view),
        )


class HandSummary(Shown):
    """A complete hand in a list: what is public of it at a glance."""

    id: HandId
    run_id: RunId
    hand_no: int
    deal_no: int
    ended_at: datetime
    button_seat: int
    board: list[CardText]
    seats: list[SeatNet]


class SeatNet(Shown):
    """What a seat had before a hand, and what it won or lost in it."""

    seat_no: int
    starting_stack: int
    net: int


class HandShown(Shown):
    """A complete hand, as the viewer may see it."""

    id: HandId
    run_id: RunId
    hand_no: int
    deal_no: int
    ended_at: datetime
    view: ViewShown


class ActionShown(Shown):
    """One action of a complete hand, with how it was decided.

    ``fallback`` names why the arena acted for the agent. ``note`` and ``failure`` are the agent's
    owner's alone.
    """

    action_no: int
    street: StreetName
    seat_no: int
    action: ActionName
    amount: int | None
    elapsed_ms: int
    fallback: str | None
    note: str | None = None
    failure: str | None = None


class ActionsShown(Shown):
    """The actions of one hand, in order."""

    hand_id: HandId
    items: list[ActionShown]


class FactShown(Shown):
    """Something that happened in a hand; which members it has depends on ``fact``."""

    step: Annotated[int, Field(description="0 for the deal and the blinds, then one an action")]
    fact: str
    seat_no: int | None = None
    street: StreetName | None = None
    action: ActionName | None = None
    amount: int | None = None
    blind: Literal["small", "big"] | None = None
    chips: int | None = None
    cards: list[CardText] | None = None
    pot: int | None = None
    seats: list[int] | None = None
    shares: list[int] | None = None
    stacks: list[int] | None = None
    net: list[int] | None = None


class ReplayShown(Shown):
    """A complete hand as a sequence of facts, its end, and how its decisions were made."""

    hand: HandShown
    facts: list[FactShown]
    actions: list[ActionShown]


_FACTS: dict[type, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    happened.HoleCardsDealt: (
        "hole_cards_dealt",
        lambda fact: {"seat_no": fact.seat, "cards": list(cards_text(fact.cards))},
    ),
    happened.AntePosted: (
        "ante_posted",
        lambda fact: {"seat_no": fact.seat, "chips": fact.chips},
    ),
    happened.BlindPosted: (
        "blind_posted",
        lambda fact: {"seat_no": fact.seat, "blind": fact.blind, "chips": fact.chips},
    ),
    happened.Acted: (
        "acted",
        lambda fact: {
            "street": _street(fact.street),
            "seat_no": fact.seat,
            "action": _action(fact.kind),
            "amount": fact.amount,
        },
    ),
    happened.BoardDealt: (
        "board_dealt",
        lambda fact: {"street": _street(fact.street), "cards": list(cards_text(fact.cards))},
    ),
    happened.UncalledReturned: (
        "uncalled_returned",
        lambda fact: {"seat_no": fact.seat, "chips": fact.chips},
    ),
    happened.HandTabled: (
        "hand_tabled",
        lambda fact: {"seat_no": fact.seat, "cards": list(cards_text(fact.cards))},
    ),
    happened.PotAwarded: (
        "pot_awarded",
        lambda fact: {
            "pot": fact.pot,
            "chips": fact.chips,
            "seats": list(fact.seats),
            "shares": list(fact.shares),
        },
    ),
    happened.HandEnded: (
        "hand_ended",
        lambda fact: {
            "seats": list(fact.seats),
            "stacks": list(fact.stacks),
            "net": list(fact.net),
        },
    ),
}


def facts_shown(step: int, facts: Iterable[happened.Fact]) -> list[FactShown]:
    """Facts that `engine.view.visible_facts` let through."""
    shown = []
    for fact in facts:
        name, members = _FACTS[type(fact)]
        shown.append(FactShown(step=step, fact=name, **members(fact)))
    return shown


def hand_shown(hand: StoredHand, view: HandView) -> HandShown:
    """A complete hand: its numbers from the record, and everything else from the view."""
    return HandShown(
        id=hand.id,
        run_id=hand.run_id,
        hand_no=hand.hand_no,
        deal_no=hand.deal_no,
        ended_at=hand.ended_at,
        view=ViewShown.of(view),
    )


def actions_shown(
    actions: Iterable[ActionRecord], notes: Iterable[DecisionNote]
) -> list[ActionShown]:
    """The actions of a hand with those notes that the viewer may read."""
    by_action = {note.action_no: note for note in notes}
    shown = []
    for action_no, action in enumerate(actions):
        note = by_action.get(action_no)
        shown.append(
            ActionShown(
                action_no=action_no,
                street=_street(action.street),
                seat_no=action.seat,
                action=_action(action.kind),
                amount=action.street_total,
                elapsed_ms=action.elapsed_ms,
                fallback=None if action.fallback is None else action.fallback.value,
                note=None if note is None else note.note,
                failure=None if note is None else note.failure,
            )
        )
    return shown


def _street(street: int) -> StreetName:
    return STREET_TEXTS[street]  # type: ignore[return-value]


def _action(kind: Any) -> ActionName:
    return kind.text  # type: ignore[no-any-return]
