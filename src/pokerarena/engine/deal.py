"""Which cards a hand is dealt: a documented function of a secret seed.

Owns the one function that turns a seed, a run and a deal number into cards, and the order in which
they go round the table. It never makes a seed: randomness comes in as an argument. The function is
specified, with test vectors, in docs/rules.md so that anyone can check a published seed.
"""

from hashlib import sha256
from hmac import digest
from typing import Final, NamedTuple

from pokerarena.engine.cards import DECK_SIZE, Card
from pokerarena.engine.rules import MAX_SEATS, MIN_SEATS

SEED_BYTES: Final = 32
BOARD_CARDS: Final = 5

_DOMAIN: Final = b"pokerarena/deal/v1"
# Half the price of calling a NamedTuple's class.
_new_tuple: Final = tuple.__new__

_MAX_DEAL_NO: Final = 2**63 - 1
_SORTED_DECK: Final = tuple(range(DECK_SIZE))

_FAIR_BELOW: Final = tuple(256 - 256 % (DECK_SIZE - place) for place in range(DECK_SIZE))
"""Bytes from here on would favour some of the cards left at that place, and are skipped."""


class Deal(NamedTuple):
    """The cards of one hand: each player's two by position index, and the whole board."""

    holes: tuple[tuple[Card, Card], ...]
    board: tuple[Card, ...]


def seed_commitment(seed: bytes) -> bytes:
    """Return what is published before the first card: the SHA-256 of the seed."""
    _check_seed(seed)
    return sha256(seed).digest()


def deck(seed: bytes, run_id: bytes, deal_no: int, count: int) -> tuple[Card, ...]:
    """Return the first `count` cards of the deck of a deal, each deck equally likely.

    A partial Fisher-Yates shuffle. Each draw takes one byte of the stream
    HMAC-SHA-512(seed, "pokerarena/deal/v1" || len(run_id) || run_id || deal_no || block), and a
    byte that would favour some cards is skipped.
    """
    _check_seed(seed)
    if len(run_id) > 255:
        raise ValueError(f"run_id must be at most 255 bytes long, not {len(run_id)}.")
    if not 0 <= deal_no <= _MAX_DEAL_NO:
        raise ValueError(f"deal_no must be 0 to 2**63 - 1, not {deal_no}.")
    if not 0 <= count <= DECK_SIZE:
        raise ValueError(f"count must be 0 to {DECK_SIZE} cards, not {count}.")
    prefix = _DOMAIN + bytes((len(run_id),)) + run_id + deal_no.to_bytes(8, "big")
    undealt = list(_SORTED_DECK)
    dealt: list[Card] = []
    place = 0
    block_no = 0
    while place < count:
        for byte in digest(seed, prefix + block_no.to_bytes(4, "big"), "sha512"):
            if byte < _FAIR_BELOW[place]:
                # The card drawn leaves its place to the first undealt one: a swap of which only
                # the half that matters is done.
                other = place + byte % (DECK_SIZE - place)
                dealt.append(undealt[other])
                undealt[other] = undealt[place]
                place += 1
                if place == count:
                    break
        block_no += 1
    return tuple(dealt)


def deal_from_deck(cards: tuple[Card, ...], player_count: int, button_index: int) -> Deal:
    """Deal a deck: one card at a time, two rounds, first to the left of the button, then the board.

    No card is burnt. With the button one seat further the same deck gives every seat the holding
    its left neighbour would have had, so a full circle of the button deals every holding to every
    seat once: that is what the format `duplicate` does.
    """
    if not MIN_SEATS <= player_count <= MAX_SEATS:
        raise ValueError(f"A hand has {MIN_SEATS} to {MAX_SEATS} players, not {player_count}.")
    if not 0 <= button_index < player_count:
        raise ValueError(f"button_index must be 0 to {player_count - 1}, not {button_index}.")
    if len(cards) < 2 * player_count + BOARD_CARDS:
        raise ValueError(
            f"{player_count} players need {2 * player_count + BOARD_CARDS} cards, not {len(cards)}."
        )
    # In deck order the first holding belongs to the seat after the button.
    dealt = 2 * player_count
    holdings = tuple(zip(cards[:player_count], cards[player_count:dealt], strict=True))
    turn = player_count - 1 - button_index
    if turn:
        holdings = holdings[turn:] + holdings[:turn]
    return _new_tuple(Deal, (holdings, cards[dealt : dealt + BOARD_CARDS]))


def deal_cards(
    seed: bytes, run_id: bytes, deal_no: int, player_count: int, button_index: int
) -> Deal:
    """Return the deal of number `deal_no` for a table whose button is at `button_index`."""
    cards = deck(seed, run_id, deal_no, 2 * player_count + BOARD_CARDS)
    return deal_from_deck(cards, player_count, button_index)


def _check_seed(seed: bytes) -> None:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"A seed is {SEED_BYTES} bytes long, not {len(seed)}.")
