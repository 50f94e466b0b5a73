"""The messages of protocol version 1 and their JSON.

Owns the shape of everything the arena sends and the way from a view of a hand to a message. What
an agent may know is decided by `engine.view` alone: a message is built from a `HandView`, and this
module adds no card of its own.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from pokerarena.engine.cards import CARD_TEXTS
from pokerarena.engine.facts import Acted
from pokerarena.engine.view import HandView

PROTOCOL_VERSION: Final = 1
# The largest integer that every JSON reader keeps exactly.
MAX_AMOUNT: Final = 2**53 - 1
MAX_DECISION_ID_CHARS: Final = 128
MAX_NOTE_BYTES: Final = 1_024

Street = Literal["preflop", "flop", "turn", "river"]
ActionName = Literal["fold", "check", "call", "bet", "raise"]
Card = Annotated[
    str, Meta(pattern="^[2-9TJQKA][cdhs]$", description="Rank and suit, such as `As` or `Td`.")
]
SeatNumber = Annotated[int, Meta(ge=1, le=10, description="A numbered place at the table, from 1.")]
Chips = Annotated[int, Meta(ge=0)]

ACTION_NAMES: Final[tuple[ActionName, ...]] = get_args(ActionName)
_STREET_NAMES: Final[tuple[Street, ...]] = get_args(Street)


class HistoryEntry(Struct, frozen=True, gc=False):
    """One public action of the hand."""

    street: Street
    seat: SeatNumber
    action: ActionName
    amount: Annotated[
        Chips | None,
        Meta(description="The seat's total for the street after a call, bet or raise; else null."),
    ]


class Callback(Struct, frozen=True, kw_only=True, tag_field="type", tag="callback", gc=False):
    """It is your turn. Answer with one of `legal_actions` within `action_deadline_ms`."""

    protocol_version: Literal[1] = PROTOCOL_VERSION
    decision_id: Annotated[
        str, Meta(description="Names this question; the same on a repeated delivery.")
    ]
    run_id: str
    table_id: str
    hand_id: str
    hand_no: Annotated[int, Meta(ge=1, description="Number of the hand in its run, from 1.")]
    seat: Annotated[int, Meta(ge=1, le=10, description="Your seat.")]
    button_seat: SeatNumber
    small_blind: Chips
    big_blind: Chips
    ante: Chips
    street: Street
    hole_cards: Annotated[
        tuple[Card, Card],
        Meta(description="Your two cards."),
    ]
    board: Annotated[tuple[Card, ...], Meta(max_length=5)]
    pot: Annotated[
        int, Meta(ge=0, description="All chips in the middle, bets of this street included.")
    ]
    to_call: Annotated[
        int, Meta(ge=0, description="Chips a call costs you now, never more than your stack.")
    ]
    min_raise_to: Annotated[
        Chips | None,
        Meta(description="Smallest legal `amount` of a bet or raise; null when neither is legal."),
    ]
    max_raise_to: Annotated[
        Chips | None,
        Meta(description="Largest legal `amount` of a bet or raise: all your chips."),
    ]
    stacks: Annotated[
        dict[SeatNumber, Chips], Meta(description="Chips behind, by seat; bets are not in it.")
    ]
    bets: Annotated[dict[SeatNumber, Chips], Meta(description="Chips bet on this street, by seat.")]
    folded: Annotated[tuple[SeatNumber, ...], Meta(description="Seats that folded this hand.")]
    all_in: Annotated[tuple[SeatNumber, ...], Meta(description="Seats with no chips behind.")]
    legal_actions: Annotated[tuple[ActionName, ...], Meta(min_length=1)]
    history: Annotated[
        tuple[HistoryEntry, ...], Meta(description="Actions of this hand, oldest first.")
    ]
    action_deadline_ms: Annotated[
        int,
        Meta(
            ge=1,
            description="How long the arena waits: the time limit plus what is left of the "
            "time bank.",
        ),
    ]


class LineupSeat(Struct, frozen=True, gc=False):
    """Who sits where."""

    seat: SeatNumber
    name: str


class RunStart(Struct, frozen=True, kw_only=True, tag_field="type", tag="run_start", gc=False):
    """A run begins and this agent has a seat in it. No answer is expected."""

    protocol_version: Literal[1] = PROTOCOL_VERSION
    run_id: str
    table_id: str
    seat: SeatNumber
    lineup: tuple[LineupSeat, ...]
    format: Literal["cash", "reset", "duplicate", "freezeout"]
    planned_hands: Annotated[int, Meta(ge=1)] | None
    small_blind: Chips
    big_blind: Chips
    ante: Chips
    ante_kind: Literal["each", "big_blind"]
    starting_stack: Chips
    time_limit_ms: Annotated[int, Meta(ge=1, description="Time for every decision.")]
    time_bank_ms: Annotated[int, Meta(ge=0, description="Extra time for the whole run.")]


class PotAward(Struct, frozen=True, gc=False):
    """Who won a pot."""

    pot: Annotated[int, Meta(ge=0, description="0 is the main pot.")]
    chips: Chips
    shares: Annotated[dict[SeatNumber, Chips], Meta(description="Chips won, by seat.")]


class HandEnd(Struct, frozen=True, kw_only=True, tag_field="type", tag="hand_end", gc=False):
    """A hand is over: what this seat may know of it. No answer is expected."""

    protocol_version: Literal[1] = PROTOCOL_VERSION
    run_id: str
    table_id: str
    hand_id: str
    hand_no: Annotated[int, Meta(ge=1)]
    seat: SeatNumber
    hole_cards: tuple[Card, Card] | None
    board: Annotated[tuple[Card, ...], Meta(max_length=5)]
    shown: Annotated[
        dict[SeatNumber, tuple[Card, Card]],
        Meta(description="Hands tabled at the showdown, by seat. Folded hands are never shown."),
    ]
    history: tuple[HistoryEntry, ...]
    pots: tuple[PotAward, ...]
    stacks: Annotated[dict[SeatNumber, Chips], Meta(description="Chips after the hand, by seat.")]
    net: Annotated[dict[SeatNumber, int], Meta(description="Chips won or lost, by seat.")]


class RunEnd(Struct, frozen=True, kw_only=True, tag_field="type", tag="run_end", gc=False):
    """A run is over. No answer is expected."""

    protocol_version: Literal[1] = PROTOCOL_VERSION
    run_id: str
    table_id: str
    seat: SeatNumber
    status: Literal["completed", "stopped", "failed"]
    hands_played: Annotated[int, Meta(ge=0)]
    net: Annotated[int, Meta(description="Chips this seat won or lost in the whole run.")]


class Answer(Struct, frozen=True, gc=False):
    """What an agent answers. Fields the arena does not know are ignored."""

    action: ActionName
    amount: Annotated[
        Annotated[int, Meta(ge=-MAX_AMOUNT, le=MAX_AMOUNT)] | None,
        Meta(description="Your total for the street (raise *to*); for a bet or raise only."),
    ] = None
    decision_id: Annotated[
        Annotated[str, Meta(max_length=MAX_DECISION_ID_CHARS)] | None,
        Meta(description="The question answered; needed where several are in flight."),
    ] = None
    note: Annotated[
        str | None,
        Meta(description="At most 1,024 bytes, shown to the agent's owner in replays."),
    ] = None


Message = Callback | RunStart | HandEnd | RunEnd
Event = RunStart | HandEnd | RunEnd

encode: Final = msgspec.json.Encoder().encode


def callback_from_view(
    view: HandView,
    *,
    run_id: str,
    table_id: str,
    hand_id: str,
    hand_no: int,
    action_deadline_ms: int,
) -> Callback:
    """The question to the seat whose turn it is. The view must be that seat's own."""
    seat = view.seat_to_act
    if seat is None:
        raise ValueError("the hand is complete: there is nobody to ask")
    first, second = view.holes[seat]
    seats = view.seats
    legal = view.legal
    return Callback(
        # The same decision always has the same name, so a repeated delivery is recognised.
        decision_id=f"{hand_id}-{len(view.history)}",
        run_id=run_id,
        table_id=table_id,
        hand_id=hand_id,
        hand_no=hand_no,
        seat=seat,
        button_seat=view.button_seat,
        small_blind=view.rules.small_blind,
        big_blind=view.rules.big_blind,
        ante=view.rules.ante,
        street=_STREET_NAMES[view.street],
        hole_cards=(CARD_TEXTS[first], CARD_TEXTS[second]),
        board=tuple([CARD_TEXTS[card] for card in view.board]),
        pot=view.pot,
        to_call=legal.to_call,
        min_raise_to=legal.min_raise_to,
        max_raise_to=legal.max_raise_to,
        stacks=dict(zip(seats, view.stacks, strict=True)),
        bets=dict(zip(seats, view.bets, strict=True)),
        folded=_where(seats, view.folded),
        all_in=_where(seats, view.all_in),
        legal_actions=tuple([ACTION_NAMES[kind] for kind in legal.kinds]),
        history=_history(view.history),
        action_deadline_ms=action_deadline_ms,
    )


def hand_end_from_view(
    view: HandView, *, seat: int, run_id: str, table_id: str, hand_id: str, hand_no: int
) -> HandEnd:
    """What `seat` may know of a complete hand. The view must be that seat's own."""
    if not view.complete:
        raise ValueError("the hand is not complete: there is no result to tell")
    own = view.holes.get(seat)
    return HandEnd(
        run_id=run_id,
        table_id=table_id,
        hand_id=hand_id,
        hand_no=hand_no,
        seat=seat,
        hole_cards=None if own is None else _two_cards(own),
        board=tuple([CARD_TEXTS[card] for card in view.board]),
        shown={shown: _two_cards(view.holes[shown]) for shown in sorted(view.tabled)},
        history=_history(view.history),
        pots=tuple(
            [
                PotAward(award.pot, award.chips, dict(zip(award.seats, award.shares, strict=True)))
                for award in view.awards
            ]
        ),
        stacks=dict(zip(view.seats, view.stacks, strict=True)),
        net=dict(zip(view.seats, view.net(), strict=True)),
    )


def _history(actions: tuple[Acted, ...]) -> tuple[HistoryEntry, ...]:
    return tuple(
        [
            HistoryEntry(_STREET_NAMES[street], seat, ACTION_NAMES[kind], amount)
            for _, street, seat, kind, amount in actions
        ]
    )


def _two_cards(cards: tuple[int, int]) -> tuple[str, str]:
    return CARD_TEXTS[cards[0]], CARD_TEXTS[cards[1]]


def _where(seats: tuple[int, ...], flags: tuple[bool, ...]) -> tuple[int, ...]:
    if True not in flags:
        return ()
    return tuple([seat for seat, flag in zip(seats, flags, strict=True) if flag])
