"""Card strengths: every five-card hand, seven cards against their 21 fives, and PokerKit's view."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from random import Random

import pytest

from pokerarena.engine.ranking import BEST, category, rank_hand, rank_holdings
from tests.engine.hands import scaled
from tests.engine.pokerkit_oracle import RememberingHighHand, pokerkit_strength
from tests.engine.tables import cards

HANDS_BY_CATEGORY = {
    "straight flush": 40,
    "four of a kind": 624,
    "full house": 3_744,
    "flush": 5_108,
    "straight": 10_200,
    "three of a kind": 54_912,
    "two pair": 123_552,
    "pair": 1_098_240,
    "high card": 1_302_540,
}
CLASSES_BY_CATEGORY = {
    "straight flush": 10,
    "four of a kind": 156,
    "full house": 156,
    "flush": 1_277,
    "straight": 10,
    "three of a kind": 858,
    "two pair": 858,
    "pair": 2_860,
    "high card": 1_277,
}


def test_all_five_card_hands_fall_into_the_7462_classes_of_poker() -> None:
    hands = Counter(map(rank_hand, combinations(range(52), 5)))
    assert hands.total() == 2_598_960
    assert sorted(hands) == list(range(1, BEST + 1))
    classes: Counter[str] = Counter()
    by_category: Counter[str] = Counter()
    for strength, count in hands.items():
        classes[category(strength)] += 1
        by_category[category(strength)] += count
    assert classes == CLASSES_BY_CATEGORY
    assert by_category == HANDS_BY_CATEGORY


def test_pokerkit_orders_every_class_of_five_cards_as_we_do() -> None:
    # One hand of each class is enough: the test above shows that the classes are complete.
    examples = {rank_hand(five): five for five in combinations(range(52), 5)}
    ours = [examples[strength] for strength in range(1, BEST + 1)]
    assert sorted(ours, key=pokerkit_strength) == ours
    assert len({pokerkit_strength(five) for five in ours}) == BEST


@pytest.mark.parametrize("count", [6, 7])
def test_more_cards_are_as_strong_as_their_best_five(count: int) -> None:
    random = Random(f"best of {count}")
    for _ in range(scaled(30_000)):
        hand = random.sample(range(52), count)
        assert rank_hand(hand) == max(map(rank_hand, combinations(hand, 5))), hand


@pytest.mark.parametrize("suits", [1, 2])
def test_suited_cards_are_as_strong_as_their_best_five(suits: int) -> None:
    # Flushes and straight flushes are rare among random cards, so these come from few suits.
    random = Random(f"suits {suits}")
    few = [card for card in range(52) if card % 4 < suits]
    for _ in range(scaled(5_000)):
        hand = random.sample(few, 7)
        assert rank_hand(hand) == max(map(rank_hand, combinations(hand, 5))), hand


def test_pokerkit_compares_seven_card_hands_as_we_do() -> None:
    random = Random("pokerkit")
    for _ in range(scaled(20_000)):
        dealt = random.sample(range(52), 9)
        board, first, second = dealt[:5], dealt[5:7], dealt[7:]
        ours = rank_hand(board + first) - rank_hand(board + second)
        theirs = pokerkit_strength(tuple(board + first)) - pokerkit_strength(tuple(board + second))
        assert (ours > 0, ours < 0) == (theirs > 0, theirs < 0), dealt


def test_the_remembering_oracle_says_what_pokerkit_says() -> None:
    # The differential tests lean on it, so it is held to PokerKit's own slow way.
    random = Random("oracle")
    for _ in range(200):
        dealt = tuple(random.sample(range(52), 7))
        assert RememberingHighHand.agrees_with_pokerkit(dealt)


def test_holdings_on_a_board_rank_as_seven_cards() -> None:
    random = Random("holdings")
    for _ in range(5_000):
        dealt = random.sample(range(52), 5 + 2 * 6)
        board, rest = dealt[:5], dealt[5:]
        holdings = list(zip(rest[::2], rest[1::2], strict=True))
        assert rank_holdings(board, holdings) == [
            rank_hand([*board, *holding]) for holding in holdings
        ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("AsKsQsJsTs", "straight flush"),
        ("5h4h3h2hAh", "straight flush"),
        ("9s9h9d9c2s", "four of a kind"),
        ("9s9h9d2c2s", "full house"),
        ("AsKsQsJs9s", "flush"),
        ("5h4s3h2hAh", "straight"),
        ("9s9h9d3c2s", "three of a kind"),
        ("9s9h3d3c2s", "two pair"),
        ("9s9h4d3c2s", "pair"),
        ("7s5h4d3c2s", "high card"),
        ("7s7h7d5s5h5d2c", "full house"),
        ("9s9h9d5c5h2s2d", "full house"),
        ("7s7h5s5h3s3h2c", "two pair"),
        ("AsAhAdAcKsKhKd", "four of a kind"),
        ("6s5h4d3c2sAhAd", "straight"),
    ],
)
def test_a_hand_has_the_name_of_its_category(text: str, name: str) -> None:
    assert category(rank_hand(cards(text))) == name


def test_the_royal_flush_is_the_best_hand_and_seven_high_the_worst() -> None:
    assert rank_hand(cards("AdKdQdJdTd")) == BEST == 7_462
    assert rank_hand(cards("7s5h4d3c2s")) == 1


def test_the_wheel_is_the_lowest_straight() -> None:
    assert rank_hand(cards("5h4s3h2hAh")) < rank_hand(cards("6h5s4h3h2h"))


@pytest.mark.parametrize("text", ["AsKsQsJs", "AsKsQsJsTs9s8s7s"])
def test_only_five_to_seven_cards_have_a_strength(text: str) -> None:
    with pytest.raises(ValueError, match="five to seven cards"):
        rank_hand(cards(text))


@pytest.mark.parametrize("strength", [0, BEST + 1])
def test_a_number_outside_the_scale_has_no_category(strength: int) -> None:
    with pytest.raises(ValueError, match="strengths run from 1 to 7462"):
        category(strength)
