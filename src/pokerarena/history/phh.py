"""Hands as PHH, the Poker Hand History format, as PokerKit reads it (``.phhs``: many hands a file).

Owns the translation, and nothing of what may be seen: every card comes through `engine.view`, and a
card that the viewer may not see is written as ``??``. PHH numbers players from the left of the
button and knows no seats; the seats are written along.

PokerKit replays what is written here to the same final stacks, with the rare exceptions in which
its rules differ from ours: raises after a big blind that was posted short, betting that several
short all-ins together reopen, odd chips of side pots with the same winners, and heads-up with equal
blinds. ``finishing_stacks`` is always right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pokerarena.engine.actions import Kind
from pokerarena.engine.cards import CARD_TEXTS
from pokerarena.engine.facts import Acted, BoardDealt, HandTabled, HoleCardsDealt
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand, Street
from pokerarena.engine.view import Viewer, visible_facts
from pokerarena.history.record import HandRecord

HIDDEN_HOLDING: Final = "????"


def phh_hand(
    record: HandRecord,
    rules: Rules,
    *,
    names: Mapping[int, str],
    viewer: Viewer,
    section: int,
    table: str | None = None,
) -> str:
    """One hand as a section of a ``.phhs`` file."""
    order = play_order(record)
    player_of = {record.seats[position]: number for number, position in enumerate(order, start=1)}
    transitions = list(record.replay(rules))
    first, last = transitions[0].hand, transitions[-1].hand
    big_blind_player = 0 if len(order) == 2 else 1
    posted_big_blind = first.bets[order[big_blind_player]]
    short_big_blind = posted_big_blind < rules.big_blind
    actions = _dealing(record, player_of, viewer)
    before: Hand | None = None
    for hand, facts in transitions:
        for fact in visible_facts(facts, viewer):
            if isinstance(fact, Acted):
                assert before is not None, "nobody acts before the first cards are dealt"
                actions.append(_acted(fact, player_of[fact.seat], before, posted_big_blind))
            elif isinstance(fact, BoardDealt):
                actions.append(f"d db {_cards(fact.cards)}")
            elif isinstance(fact, HandTabled):
                actions.append(f"p{player_of[fact.seat]} sm {_cards(fact.cards)}")
        before = hand
    fields: dict[str, object] = {
        "variant": "NT",
        "ante_trimming_status": rules.ante_kind == "each",
        "antes": _antes(record, rules, order),
        "blinds_or_straddles": [rules.small_blind, rules.big_blind, *[0] * (len(order) - 2)],
        # With the big blind short, PokerKit takes the price of entry for a raise below the minimum.
        "min_bet": 1 if short_big_blind else rules.big_blind,
        "starting_stacks": [record.stacks[position] for position in order],
        "actions": actions,
        "hand": record.hand_no,
        "seats": [record.seats[position] for position in order],
        "players": [names[record.seats[position]] for position in order],
        "finishing_stacks": [last.stacks[position] for position in order],
    }
    if table is not None:
        fields["table"] = table
    lines = [f"[{section}]", *[f"{name} = {_toml(value)}" for name, value in fields.items()]]
    return "\n".join(lines) + "\n\n"


def play_order(record: HandRecord) -> list[int]:
    """Position indexes from the left of the button; the button is last."""
    count = len(record.seats)
    button = record.seats.index(record.button_seat)
    return [(button + step) % count for step in range(1, count + 1)]


def _dealing(record: HandRecord, player_of: Mapping[int, int], viewer: Viewer) -> list[str]:
    dealt = {
        fact.seat: _cards(fact.cards)
        for fact in visible_facts(
            [
                HoleCardsDealt(seat, seat, holding)
                for seat, holding in zip(record.seats, record.holes, strict=True)
            ],
            viewer,
        )
        if isinstance(fact, HoleCardsDealt)
    }
    seat_of = {player: seat for seat, player in player_of.items()}
    return [
        f"d dh p{player} {dealt.get(seat_of[player], HIDDEN_HOLDING)}" for player in sorted(seat_of)
    ]


def _acted(fact: Acted, player: int, before: Hand, posted_big_blind: int) -> str:
    if fact.kind is Kind.FOLD:
        return f"p{player} f"
    if fact.kind is Kind.CHECK:
        return f"p{player} cc"
    if fact.kind is Kind.CALL:
        # PokerKit's price is what lies on the table; under a short big blind that is too little.
        highest = max(before.bets)
        enters = fact.street == Street.PREFLOP and highest == posted_big_blind
        if enters and fact.amount is not None and fact.amount > highest:
            return f"p{player} cbr {fact.amount}"
        return f"p{player} cc"
    return f"p{player} cbr {fact.amount}"


def _antes(record: HandRecord, rules: Rules, order: Sequence[int]) -> list[int]:
    antes = [0] * len(order)
    if rules.ante and rules.ante_kind == "each":
        return [rules.ante] * len(order)
    if rules.ante:
        # Ours comes out of what the blind leaves over; PokerKit takes antes first.
        big_blind_stack = record.stacks[order[0 if len(order) == 2 else 1]]
        antes[1] = min(rules.ante, max(0, big_blind_stack - rules.big_blind))
    return antes


def _cards(cards: Sequence[int]) -> str:
    return "".join([CARD_TEXTS[card] for card in cards])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join([_toml_char(char) for char in value]) + '"'
    if isinstance(value, list):
        return "[" + ", ".join([_toml(item) for item in value]) + "]"
    return str(value)


def _toml_char(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else "?"
