"""Playing cards as small integers, and their text form.

A card is `rank * 4 + suit`: ranks 0..12 stand for 2..A, suits 0..3 for c d h s. This module only
translates; it knows nothing of decks, deals or hands.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

Card: TypeAlias = int

RANKS: Final = "23456789TJQKA"
SUITS: Final = "cdhs"
DECK_SIZE: Final = 52

CARD_TEXTS: Final[tuple[str, ...]] = tuple(rank + suit for rank in RANKS for suit in SUITS)

_CARDS_BY_TEXT: Final[dict[str, Card]] = {text: card for card, text in enumerate(CARD_TEXTS)}


def card_text(card: Card) -> str:
    """Return the two characters of a card, such as `As`."""
    if not 0 <= card < DECK_SIZE:
        raise ValueError(f"{card} is not a card: cards are the integers 0 to 51.")
    return CARD_TEXTS[card]


def cards_text(cards: Iterable[Card]) -> tuple[str, ...]:
    """Return the text of each card, in order."""
    return tuple([card_text(card) for card in cards])


def parse_card(text: str) -> Card:
    """Return the card that `text` names; raises ValueError with a sentence that says what is right."""
    try:
        return _CARDS_BY_TEXT[text]
    except (KeyError, TypeError):
        raise ValueError(
            f"{text!r} is not a card: write a rank of {RANKS} and a suit of {SUITS}, such as 'As'."
        ) from None
