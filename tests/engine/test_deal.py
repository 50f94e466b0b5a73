"""Dealing: anyone can check it, every deck is equally likely, and the cards go round in order."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from pathlib import Path

import pytest

from pokerarena.engine.cards import CARD_TEXTS, card_text, cards_text, parse_card
from pokerarena.engine.deal import deal_cards, deal_from_deck, deck, seed_commitment
from tests.engine.hands import scaled

VECTORS = json.loads(
    (Path(__file__).parents[2] / "docs" / "deal-vectors.json").read_text(encoding="utf-8")
)
SEED = bytes(range(32))
RUN_ID = bytes(range(16))


def deck_of_the_documentation(seed: bytes, run_id: bytes, deal_no: int) -> list[str]:
    """Do what docs/rules.md says, step by step, and nothing clever."""
    prefix = b"pokerarena/deal/v1" + bytes([len(run_id)]) + run_id + deal_no.to_bytes(8, "big")
    stream = b"".join(
        hmac.new(seed, prefix + block.to_bytes(4, "big"), hashlib.sha512).digest()
        for block in range(10)
    )
    cards = [rank + suit for rank in "23456789TJQKA" for suit in "cdhs"]
    at = 0
    for place in range(52):
        choices = 52 - place
        while stream[at] >= 256 - 256 % choices:
            at += 1
        other = place + stream[at] % choices
        at += 1
        cards[place], cards[other] = cards[other], cards[place]
    return cards


@pytest.mark.parametrize("vector", VECTORS["decks"], ids=str)
def test_a_deck_is_the_published_one(vector: dict[str, str]) -> None:
    seed, run_id = bytes.fromhex(vector["seed"]), bytes.fromhex(vector["run_id"])
    wanted = vector["deck"].split()
    assert cards_text(deck(seed, run_id, int(vector["deal_no"]), len(wanted))) == tuple(wanted)
    assert seed_commitment(seed) == bytes.fromhex(vector["commitment"])
    assert hashlib.sha256(seed).digest() == bytes.fromhex(vector["commitment"])


@pytest.mark.parametrize("vector", VECTORS["deals"], ids=str)
def test_a_deal_is_the_published_one(vector: dict[str, str]) -> None:
    deal = deal_cards(
        bytes.fromhex(vector["seed"]),
        bytes.fromhex(vector["run_id"]),
        int(vector["deal_no"]),
        int(vector["player_count"]),
        int(vector["button_index"]),
    )
    assert [" ".join(cards_text(holding)) for holding in deal.holes] == list(vector["holes"])
    assert " ".join(cards_text(deal.board)) == vector["board"]


def test_the_documented_steps_give_the_same_decks() -> None:
    for deal_no in range(scaled(2_000)):
        cards = cards_text(deck(SEED, RUN_ID, deal_no, 52))
        assert list(cards) == deck_of_the_documentation(SEED, RUN_ID, deal_no)


def test_a_deck_has_every_card_once_and_a_shorter_one_is_its_beginning() -> None:
    for deal_no in range(500):
        whole = deck(SEED, RUN_ID, deal_no, 52)
        assert sorted(whole) == list(range(52))
        assert deck(SEED, RUN_ID, deal_no, 25) == whole[:25]


def test_seed_run_and_number_each_change_the_deck() -> None:
    decks = {
        deck(SEED, RUN_ID, 1, 52),
        deck(bytes(32), RUN_ID, 1, 52),
        deck(SEED, bytes(16), 1, 52),
        deck(SEED, RUN_ID, 2, 52),
    }
    assert len(decks) == 4


@pytest.mark.parametrize("place", [0, 1, 24, 51])
def test_every_card_is_as_likely_as_another_at_every_place(place: int) -> None:
    decks = scaled(5_200)
    counts = Counter(deck(SEED, RUN_ID, deal_no, place + 1)[place] for deal_no in range(decks))
    expected = decks / 52
    chi_square = sum((counts[card] - expected) ** 2 / expected for card in range(52))
    # 51 degrees of freedom: beyond 103 with a probability of 2 in 100,000. The seed is fixed.
    assert chi_square < 103


def test_cards_go_round_twice_from_the_left_of_the_button_and_then_to_the_board() -> None:
    deal = deal_from_deck(tuple(range(11)), 3, 1)
    # Position 2 is left of the button, then 0, then the button itself.
    assert deal.holes == ((1, 4), (2, 5), (0, 3))
    assert deal.board == (6, 7, 8, 9, 10)


@pytest.mark.parametrize("player_count", range(2, 11))
def test_a_circle_of_the_button_gives_every_seat_every_holding_once(player_count: int) -> None:
    cards = deck(SEED, RUN_ID, 7, 2 * player_count + 5)
    deals = [deal_from_deck(cards, player_count, button) for button in range(player_count)]
    holdings = set(deals[0].holes)
    assert len(holdings) == player_count
    for position in range(player_count):
        assert {deal.holes[position] for deal in deals} == holdings
    assert len({deal.board for deal in deals}) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((b"short", RUN_ID, 1, 9), "A seed is 32 bytes long, not 5"),
        ((SEED, bytes(256), 1, 9), "run_id must be at most 255 bytes"),
        ((SEED, RUN_ID, -1, 9), "deal_no must be 0 to"),
        ((SEED, RUN_ID, 2**63, 9), "deal_no must be 0 to"),
        ((SEED, RUN_ID, 1, 53), "count must be 0 to 52"),
    ],
)
def test_an_impossible_deck_is_refused(arguments: tuple[bytes, bytes, int, int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        deck(*arguments)


@pytest.mark.parametrize(("player_count", "button"), [(1, 0), (11, 0), (2, 2), (2, -1), (10, 0)])
def test_an_impossible_deal_is_refused(player_count: int, button: int) -> None:
    with pytest.raises(ValueError, match=r"players|button_index|need"):
        deal_from_deck(tuple(range(9)), player_count, button)


def test_cards_translate_both_ways() -> None:
    assert card_text(51) == "As"
    assert parse_card("2c") == 0
    assert [parse_card(text) for text in CARD_TEXTS] == list(range(52))
    assert cards_text(range(52)) == CARD_TEXTS


@pytest.mark.parametrize("text", ["", "A", "as", "1s", "Asx", "10s", None])
def test_a_text_that_names_no_card_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 'As'"):
        parse_card(text)


@pytest.mark.parametrize("number", [-1, 52])
def test_a_number_that_is_no_card_has_no_text(number: int) -> None:
    with pytest.raises(ValueError, match="0 to 51"):
        card_text(number)
