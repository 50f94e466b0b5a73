"""Hands as log lines of the Annual Computer Poker Competition.

Owns the translation, and nothing of what may be seen: every card comes through `engine.view`, and a
holding that the viewer may not see is left empty. The format numbers players from the left of the
button, writes a bet or raise as the player's total for the whole hand, and knows no antes: a hand
with antes cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pokerarena.engine.actions import Kind
from pokerarena.engine.cards import CARD_TEXTS
from pokerarena.engine.facts import Acted, BoardDealt, HandTabled, HoleCardsDealt
from pokerarena.engine.rules import Rules
from pokerarena.engine.view import Viewer, visible_facts
from pokerarena.errors import Invalid
from pokerarena.history.phh import play_order
from pokerarena.history.record import HandRecord


def acpc_header(name: str, seat_count: int, hands: int, seed: str) -> str:
    """The comment that opens a log."""
    return f"# name/game/hands/seed {name} holdem.nolimit.{seat_count}p {hands} {seed}\n"


def acpc_hand(record: HandRecord, rules: Rules, *, names: Mapping[int, str], viewer: Viewer) -> str:
    """One hand as a ``STATE`` line. Raises `Invalid` (``acpc_without_antes``)."""
    if rules.ante:
        raise Invalid(
            "acpc_without_antes",
            "The ACPC log format knows no antes; export these hands as PHH instead.",
        )
    order = play_order(record)
    holdings: dict[int, str] = {}
    board = []
    betting = [""]
    earlier_streets = dict.fromkeys(record.seats, 0)
    for hand, facts in record.replay(rules):
        for fact in visible_facts(facts, viewer):
            if isinstance(fact, HoleCardsDealt | HandTabled):
                holdings[fact.seat] = _cards(fact.cards)
            elif isinstance(fact, Acted):
                betting[-1] += _acted(fact, earlier_streets[fact.seat])
            elif isinstance(fact, BoardDealt):
                board.append(_cards(fact.cards))
                betting.append("")
                earlier_streets = dict(zip(hand.seats, hand.invested, strict=True))
    cards = "|".join([holdings.get(record.seats[position], "") for position in order])
    cards = "/".join([cards, *board])
    net = "|".join([str(record.net[position]) for position in order])
    players = "|".join([_plain(names[record.seats[position]]) for position in order])
    line = f"STATE:{record.hand_no - 1}:{'/'.join(betting)}:{cards}:{net}:{players}"
    return line + "\n"


def acpc_score(totals: Mapping[int, int], names: Mapping[int, str]) -> str:
    """The line that closes a log."""
    seats = sorted(totals)
    scores = "|".join([str(totals[seat]) for seat in seats])
    return f"SCORE:{scores}:{'|'.join([_plain(names[seat]) for seat in seats])}\n"


def _acted(fact: Acted, earlier_chips: int) -> str:
    if fact.kind is Kind.FOLD:
        return "f"
    if fact.kind is Kind.CHECK or fact.kind is Kind.CALL:
        return "c"
    assert fact.amount is not None, "a bet or raise has an amount"
    return f"r{earlier_chips + fact.amount}"


def _cards(cards: Sequence[int]) -> str:
    return "".join([CARD_TEXTS[card] for card in cards])


def _plain(name: str) -> str:
    """A name without the characters that the format uses itself."""
    return "".join([char if char.isprintable() and char not in "|:" else "_" for char in name])
