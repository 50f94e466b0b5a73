"""The end of a hand: uncalled chips, side pots, odd chips, and which cards are tabled."""

from __future__ import annotations

from pokerarena.engine.facts import (
    BoardDealt,
    HandEnded,
    HandTabled,
    PotAwarded,
    UncalledReturned,
)
from pokerarena.engine.pots import Pot, build_pots, split, uncalled
from pokerarena.engine.rules import Rules
from tests.engine.tables import begin, facts_of, play


def test_an_uncalled_bet_goes_back_before_the_pot_is_won() -> None:
    facts = facts_of(begin(1000, 1000), "c x b400 f")
    assert facts[-3:] == [
        UncalledReturned(0, 1, 400),
        PotAwarded(0, 0, 200, (1,), (200,)),
        HandEnded(0, (1, 2), (1100, 900), (100, -100)),
    ]


def test_a_hand_won_by_folds_shows_no_cards() -> None:
    first = begin(1000, 1000)
    assert not [fact for fact in facts_of(first, "c x b400 f") if isinstance(fact, HandTabled)]
    assert play(first.hand, "c x b400 f").tabled == ()


def test_the_part_of_an_all_in_that_nobody_covers_goes_back() -> None:
    first = begin(400, 1000, holes="AsAdKsKd", board="Ah9c5d3s2h")
    facts = facts_of(first, "r1000 c")
    assert UncalledReturned(0, 2, 600) in facts
    hand = play(first.hand, "r1000 c")
    assert hand.stacks == (800, 600)
    assert hand.all_in == (True, False)


def test_every_hand_that_reaches_the_showdown_is_tabled() -> None:
    hand = play(begin(1000, 1000, 1000, 1000).hand, "c f c x x x x x x x x x x")
    assert hand.complete
    assert hand.tabled == (1, 2, 3)


def test_all_in_hands_are_tabled_before_the_board_runs_out() -> None:
    facts = facts_of(begin(1000, 1000), "r1000 c")
    order = [type(fact) for fact in facts if isinstance(fact, HandTabled | BoardDealt)]
    assert order == [HandTabled, HandTabled, BoardDealt, BoardDealt, BoardDealt]


def test_three_stacks_all_in_make_a_main_pot_and_a_side_pot() -> None:
    first = begin(300, 700, 1500, holes="AsAdKsKdQsQd", board="9c5d3s2h8c")
    hand = play(first.hand, "r1500 c c")
    assert [(award.pot, award.chips, award.seats) for award in hand.awards] == [
        (0, 900, (1,)),
        (1, 800, (2,)),
    ]
    assert hand.stacks == (900, 800, 800)


def test_chips_of_players_who_folded_stay_in_the_pot() -> None:
    first = begin(1000, 1000, 1000, holes="AsAdKsKdQsQd", board="9c5d3s2h8c")
    hand = play(first.hand, "r300 c c b400 f c x x x x")
    assert hand.awards[0].chips == 1700
    assert hand.stacks == (2000, 700, 300)


def test_odd_chips_go_to_the_first_winner_left_of_the_button() -> None:
    # Seats 1 and 3 share a pot of 25, and the button is at seat 1.
    first = begin(
        1000, 1000, 1000, rules=Rules(5, 10), button=1, holes="AsKd7c2dAdKs", board="AhKh9c5d3s"
    )
    hand = play(first.hand, "c f x x x x x x x")
    assert hand.awards == (PotAwarded(0, 0, 25, (3, 1), (13, 12)),)


def test_all_odd_chips_of_a_pot_shared_by_three_go_to_one_seat() -> None:
    # Seat 1 folds its small blind; the others share the board's straight.
    first = begin(100, 100, 100, 100, rules=Rules(2, 4), board="AhKhQcJdTs")
    hand = play(first.hand, "c c f x x x x x x x x x x")
    assert hand.awards == (PotAwarded(0, 0, 14, (2, 3, 4), (6, 4, 4)),)


def test_each_side_pot_is_split_on_its_own() -> None:
    # TDA rule 21. Two players tie for both pots, and the same one gets the odd chip of each.
    main, side = build_pots((51, 102, 102, 101), (False, False, False, True), 0)
    assert (main.chips, main.contenders) == (204, (0, 1, 2))
    assert (side.chips, side.contenders) == (152, (1, 2))
    strengths = (5, 9, 9, 0)
    assert split(Pot(255, (0, 1, 2)), strengths, 0, 4) == ((1, 2), (128, 127))
    assert split(Pot(101, (1, 2)), strengths, 0, 4) == ((1, 2), (51, 50))


def test_a_dead_ante_belongs_to_the_main_pot() -> None:
    pots = build_pots((50, 100, 100), (False, False, False), 30)
    assert [(pot.chips, pot.contenders) for pot in pots] == [(180, (0, 1, 2)), (100, (1, 2))]
    pots = build_pots((0, 100, 100), (False, False, False), 30)
    assert [(pot.chips, pot.contenders) for pot in pots] == [(30, (0, 1, 2)), (200, (1, 2))]


def test_matched_chips_are_not_uncalled() -> None:
    assert uncalled((100, 100, 50)) == (0, 0)
    assert uncalled((50, 170, 100)) == (1, 70)


def test_the_best_five_of_seven_cards_win() -> None:
    first = begin(1000, 1000, holes="2c2dAhKs", board="QhJhTh2h2s")
    hand = play(first.hand, "c x x x x x x x")
    assert hand.awards[0].seats == (1,)
    first = begin(1000, 1000, holes="2c2dAhKh", board="QhJhTh2h2s")
    assert play(first.hand, "c x x x x x x x").awards[0].seats == (2,)
