"""Posting: antes, blinds, and stacks that are too short for them."""

from __future__ import annotations

import pytest

from pokerarena.engine.facts import AntePosted, BlindPosted
from pokerarena.engine.rules import MAX_CHIPS, Rules
from pokerarena.engine.transition import Transition
from tests.engine.tables import begin, legal_words, play, raise_bounds


def posted(first: Transition) -> list[tuple[str, int, int]]:
    return [
        ("ante", fact.seat, fact.chips)
        if isinstance(fact, AntePosted)
        else (fact.blind, fact.seat, fact.chips)
        for fact in first.facts
        if isinstance(fact, AntePosted | BlindPosted)
    ]


def test_antes_come_before_blinds_and_are_no_part_of_the_bets() -> None:
    first = begin(1000, 1000, 1000, rules=Rules(50, 100, 10))
    assert posted(first) == [
        ("ante", 1, 10),
        ("ante", 2, 10),
        ("ante", 3, 10),
        ("small", 1, 50),
        ("big", 2, 100),
    ]
    assert first.hand.bets == (50, 100, 0)
    assert first.hand.pot == 180
    assert first.hand.legal().to_call == 100


def test_an_ante_takes_a_short_stack_before_the_blind_does() -> None:
    first = begin(15, 1000, 1000, rules=Rules(50, 100, 10))
    assert ("small", 1, 5) in posted(first)
    first = begin(10, 1000, 1000, rules=Rules(50, 100, 10))
    assert [kind for kind, seat, _ in posted(first) if seat == 1] == ["ante"]
    assert first.hand.all_in == (True, False, False)


def test_the_big_blind_ante_is_paid_once_after_the_blind_for_everyone() -> None:
    first = begin(1000, 1000, 1000, rules=Rules(50, 100, 100, "big_blind"))
    assert posted(first) == [("small", 1, 50), ("big", 2, 100), ("ante", 2, 100)]
    assert first.hand.pot == 250
    assert first.hand.stacks == (950, 800, 1000)


def test_a_short_big_blind_pays_the_blind_first_and_the_ante_from_the_rest() -> None:
    first = begin(1000, 130, 1000, rules=Rules(50, 100, 100, "big_blind"))
    assert posted(first)[-2:] == [("big", 2, 100), ("ante", 2, 30)]
    first = begin(1000, 60, 1000, rules=Rules(50, 100, 100, "big_blind"))
    assert posted(first)[-1] == ("big", 2, 60)


def test_a_big_blind_ante_buys_no_share_of_what_others_put_in() -> None:
    # Seat 2 is all-in with a blind of 100 and an ante of 100, and can win 100 of each opponent.
    first = begin(
        1000,
        200,
        1000,
        rules=Rules(50, 100, 100, "big_blind"),
        holes="KsKdAsAd7c2d",
        board="AhKh9c5d3s",
    )
    hand = play(first.hand, "r400 c")
    hand = play(hand, "x x x x x x")
    assert [(award.chips, award.seats) for award in hand.awards] == [(400, (2,)), (600, (1,))]
    assert hand.stacks == (1200, 400, 600)


def test_behind_a_short_big_blind_the_price_is_still_the_full_big_blind() -> None:
    hand = begin(1000, 30, 1000, 1000).hand
    assert hand.bets == (50, 30, 0, 0)
    assert hand.legal().to_call == 100
    assert raise_bounds(hand) == (200, 1000)
    hand = play(hand, "c")
    assert hand.seat_to_act == 4
    assert hand.legal().to_call == 100


def test_nobody_is_asked_for_more_than_an_opponent_could_match() -> None:
    # The small blind has 60 in all and the big blind 30: the button enters for 60.
    hand = begin(60, 30, 1000).hand
    assert legal_words(hand) == "fold call"
    assert hand.legal().to_call == 60
    hand = play(hand, "c")
    assert hand.seat_to_act == 1
    assert hand.legal().to_call == 10


def test_a_small_blind_that_covers_an_all_in_big_blind_has_no_decision() -> None:
    hand = begin(30, 1000, button=2).hand
    assert hand.complete
    assert hand.tabled == (1, 2)
    assert sum(hand.stacks) == 1030
    assert min(hand.stacks) >= 0
    assert hand.pot == 60


def test_a_small_blind_below_an_all_in_big_blind_may_still_fold() -> None:
    hand = begin(70, 1000, button=2).hand
    assert hand.seat_to_act == 2
    assert hand.legal().to_call == 20
    assert legal_words(hand) == "fold call"
    assert play(hand, "f").stacks == (120, 950)


def test_when_the_blinds_put_everyone_all_in_the_hand_plays_itself_out() -> None:
    hand = begin(20, 80, button=1).hand
    assert hand.complete
    assert hand.history == ()
    assert len(hand.board) == 5


def test_when_antes_put_everyone_all_in_the_longer_ante_is_returned() -> None:
    hand = begin(5, 8, button=1, rules=Rules(50, 100, 10)).hand
    assert hand.complete
    assert hand.pot == 10
    assert sorted(hand.stacks) in ([0, 13], [3, 10], [5, 8])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((0, 100), "small_blind must be at least 1"),
        ((100, 50), "big_blind must be at least the small blind of 100"),
        ((50, 100, -1), "ante must not be negative"),
        ((50, 100, 10, "button"), "ante_kind must be 'each' or 'big_blind'"),
        ((50.0, 100), "small_blind must be a whole number"),
        ((True, 100), "small_blind must be a whole number"),
        ((50, MAX_CHIPS + 1), "big_blind must be at most"),
    ],
)
def test_impossible_stakes_are_refused_with_a_reason(fields: tuple[object, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Rules(*fields)  # type: ignore[arg-type]
