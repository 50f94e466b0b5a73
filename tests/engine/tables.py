"""Short hands written by hand, so that a rule can be tested in a few lines.

Seats are numbered from 1 and the button is at the last one unless a test says otherwise, so that
seat 1 posts the small blind and seat 2 the big one. Actions are written `f` fold, `x` check,
`c` call, `b300` bet 300, `r300` raise to 300.
"""

from __future__ import annotations

from pokerarena.engine.actions import Action, IllegalAction, Kind
from pokerarena.engine.cards import parse_card
from pokerarena.engine.deal import Deal
from pokerarena.engine.facts import Fact
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import Transition, apply, start

BLINDS = Rules(50, 100)

KINDS = {"f": Kind.FOLD, "x": Kind.CHECK, "c": Kind.CALL, "b": Kind.BET, "r": Kind.RAISE}


def action(text: str) -> Action:
    return Action(KINDS[text[0]], int(text[1:]) if text[1:] else None)


def cards(text: str) -> tuple[int, ...]:
    """Return the cards of a text such as `AsKd7c`."""
    return tuple(parse_card(text[at : at + 2]) for at in range(0, len(text), 2))


def deal(player_count: int, holes: str = "", board: str = "") -> Deal:
    """Return a deal with the holdings written, in seat order, and any other cards for the rest."""
    written = cards(holes)
    on_board = cards(board)
    rest = [card for card in range(52) if card not in written and card not in on_board]
    dealt = [*written, *rest[: 2 * player_count - len(written)]]
    rest = [card for card in rest if card not in dealt]
    pairs = zip(dealt[::2], dealt[1::2], strict=True)
    return Deal(tuple(pairs), (*on_board, *rest[: 5 - len(on_board)]))


def begin(
    *stacks: int, rules: Rules = BLINDS, button: int | None = None, holes: str = "", board: str = ""
) -> Transition:
    """Start a hand in which seat 1 has the first stack, seat 2 the second, and so on."""
    count = len(stacks)
    seats = tuple(range(1, count + 1))
    return start(rules, seats, stacks, button or count, deal(count, holes, board))


def play(hand: Hand, actions: str) -> Hand:
    """Take actions written with blanks between them."""
    for text in actions.split():
        hand = apply(hand, action(text)).hand
    return hand


def facts_of(first: Transition, actions: str) -> list[Fact]:
    """Take actions and return everything that happened, the start included."""
    facts = list(first.facts)
    hand = first.hand
    for text in actions.split():
        hand, more = apply(hand, action(text))
        facts += more
    return facts


def refusal(hand: Hand, text: str) -> IllegalAction:
    """Try an action that must be refused, and return the refusal."""
    try:
        apply(hand, action(text))
    except IllegalAction as refused:
        return refused
    raise AssertionError(f"{text} was taken, though only this was legal: {hand.legal()}")


def legal_words(hand: Hand) -> str:
    """Return the kinds that are legal now, as words."""
    return " ".join(kind.text for kind in hand.legal().kinds)


def raise_bounds(hand: Hand) -> tuple[int | None, int | None]:
    legal = hand.legal()
    return legal.min_raise_to, legal.max_raise_to
