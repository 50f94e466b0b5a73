"""The betting: whose turn it is, what is legal, how much, and what a refusal says."""

from __future__ import annotations

import pytest

from pokerarena.engine.actions import Action, IllegalAction, Kind
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Street
from pokerarena.engine.transition import apply
from tests.engine.tables import begin, legal_words, play, raise_bounds, refusal


def test_heads_up_the_button_posts_the_small_blind_and_acts_first_before_the_flop_only() -> None:
    hand = begin(1000, 1000, button=1).hand
    assert hand.bets == (50, 100)
    assert hand.seat_to_act == 1
    flop = play(hand, "c x")
    assert flop.street == Street.FLOP
    assert flop.seat_to_act == 2


def test_heads_up_the_button_acts_first_even_when_both_blinds_are_equal() -> None:
    hand = begin(1000, 1000, button=1, rules=Rules(100, 100)).hand
    assert hand.seat_to_act == 1
    assert legal_words(hand) == "fold check raise"


def test_with_three_players_the_seats_left_of_the_button_post_and_the_next_one_acts() -> None:
    hand = begin(1000, 1000, 1000, button=2).hand
    assert hand.bets == (100, 0, 50)
    assert hand.seat_to_act == 2


def test_after_the_flop_the_first_player_left_of_the_button_who_is_still_in_acts_first() -> None:
    hand = play(begin(1000, 1000, 1000, 1000).hand, "c c f x")
    assert hand.street == Street.FLOP
    assert hand.seat_to_act == 2


def test_the_big_blind_may_raise_when_everyone_just_called() -> None:
    hand = play(begin(1000, 1000, 1000).hand, "c c")
    assert hand.seat_to_act == 2
    assert legal_words(hand) == "fold check raise"
    assert raise_bounds(hand) == (200, 1000)


def test_a_street_ends_when_everyone_matched_the_last_raise() -> None:
    hand = play(begin(1000, 1000, 1000).hand, "r300 c c")
    assert hand.street == Street.FLOP
    assert hand.bets == (0, 0, 0)
    assert hand.pot == 900


def test_the_smallest_bet_is_the_big_blind() -> None:
    hand = play(begin(1000, 1000).hand, "c x")
    assert legal_words(hand) == "fold check bet"
    assert raise_bounds(hand) == (100, 900)
    assert refusal(hand, "b99").code == "amount_too_small"


def test_the_smallest_raise_repeats_the_last_raise() -> None:
    hand = play(begin(5000, 5000, 5000).hand, "r250")
    assert raise_bounds(hand) == (400, 5000)
    hand = play(hand, "r900")
    assert raise_bounds(hand) == (1550, 5000)


def test_the_smallest_raise_starts_anew_on_each_street() -> None:
    hand = play(begin(5000, 5000).hand, "r2000 c x")
    assert hand.street == Street.FLOP
    assert raise_bounds(hand) == (100, 3000)


def test_a_player_with_less_than_the_smallest_raise_may_still_go_all_in() -> None:
    hand = begin(5000, 5000, 180).hand
    assert hand.seat_to_act == 3
    assert raise_bounds(hand) == (180, 180)
    assert hand.legal().sentence() == (
        "Legal now: fold, call (adding 100), raise to exactly 180 (all-in)."
    )


def test_a_player_who_cannot_pay_the_whole_call_calls_all_in_for_less() -> None:
    hand = play(begin(5000, 300, 5000).hand, "r1000 c")
    assert legal_words(hand) == "fold call"
    assert hand.legal().to_call == 200
    after = play(hand, "c")
    assert after.all_in == (False, True, False)
    assert after.invested == (1000, 300, 1000)


def test_a_short_all_in_reopens_the_betting_only_to_those_who_have_not_acted() -> None:
    hand = begin(5000, 5000, 5000, 450, 5000).hand
    hand = play(hand, "r300 r450")
    assert hand.seat_to_act == 5
    assert legal_words(hand) == "fold call raise"
    assert raise_bounds(hand) == (650, 5000)
    hand = play(hand, "c f f")
    assert hand.seat_to_act == 3
    assert legal_words(hand) == "fold call"
    assert hand.legal().to_call == 150
    refused = refusal(hand, "r1000")
    assert refused.code == "raise_not_allowed"
    assert "not reopened" in refused.sentence


def test_short_all_ins_that_add_up_to_a_full_raise_reopen_the_betting() -> None:
    # The first example of the TDA's addendum on rule 47, blinds 50-100.
    flop = begin(1000, 225, 1000, 300, 1000, 1000).hand
    flop = play(flop, "c c c c c x")
    assert flop.street == Street.FLOP
    flop = play(flop, "b100 r125 c r200 c f")
    assert flop.seat_to_act == 1
    assert legal_words(flop) == "fold call raise"
    # The smallest raise is still the last full bet of 100.
    assert raise_bounds(flop) == (300, 900)
    called = play(flop, "c")
    # Seat 3 called 125 and faces just 75 more: closed for it.
    assert called.seat_to_act == 3
    assert legal_words(called) == "fold call"


def test_a_full_raise_after_a_short_one_reopens_the_betting_to_everyone() -> None:
    hand = play(begin(5000, 5000, 5000, 450, 5000).hand, "r300 r450 r800 f f")
    assert hand.seat_to_act == 3
    assert legal_words(hand) == "fold call raise"
    assert raise_bounds(hand) == (1150, 5000)


def test_an_all_in_below_the_smallest_bet_does_not_reopen_the_betting_to_who_checked() -> None:
    hand = play(begin(1000, 140, 1000).hand, "c c x x b40 c")
    assert hand.seat_to_act == 1
    assert legal_words(hand) == "fold call"


def test_a_raise_over_an_all_in_below_the_smallest_bet_adds_a_full_bet() -> None:
    hand = play(begin(140, 1000, 1000).hand, "c c x b40")
    assert hand.seat_to_act == 2
    assert raise_bounds(hand) == (140, 900)


def test_nobody_may_raise_when_no_opponent_could_answer() -> None:
    hand = play(begin(1000, 600).hand, "r600")
    assert hand.seat_to_act == 1
    assert legal_words(hand) == "fold call"


def test_a_player_with_nothing_to_decide_is_not_asked() -> None:
    # The small blind is all-in for less than the big blind, so the big blind has no decision.
    hand = play(begin(80, 1000, 1000).hand, "f c")
    assert hand.complete
    assert hand.tabled == (1, 2)


def test_play_goes_on_while_two_players_have_chips() -> None:
    hand = play(begin(1000, 1000, 300).hand, "r300 c c")
    assert hand.street == Street.FLOP
    assert hand.all_in == (False, False, True)
    assert hand.seat_to_act == 1


def test_a_fold_where_a_check_is_free_is_binding() -> None:
    hand = play(begin(1000, 1000, 1000).hand, "c c x f")
    assert hand.folded == (True, False, False)
    assert hand.seat_to_act == 2


def test_the_hand_ends_at_once_when_only_one_player_is_left() -> None:
    hand = play(begin(1000, 1000, 1000).hand, "f f")
    assert hand.complete
    assert hand.stacks == (950, 1050, 1000)
    assert hand.net() == (-50, 50, 0)


def test_checks_to_the_end_lead_to_the_showdown() -> None:
    hand = play(begin(1000, 1000).hand, "c x x x x x")
    assert hand.street == Street.RIVER
    assert not hand.complete
    hand = play(hand, "x x")
    assert hand.complete
    assert len(hand.board) == 5
    assert hand.tabled == (1, 2)


def test_the_history_has_the_street_totals_of_calls_bets_and_raises() -> None:
    hand = play(begin(1000, 1000).hand, "c x x b100 r300 c")
    assert [(acted.seat, acted.kind.text, acted.amount) for acted in hand.history] == [
        (2, "call", 100),
        (1, "check", None),
        (1, "check", None),
        (2, "bet", 100),
        (1, "raise", 300),
        (2, "call", 300),
    ]


def test_an_action_leaves_the_hand_before_it_unchanged() -> None:
    before = begin(1000, 1000, 1000).hand
    fields = [name for name in before.__slots__ if name != "_legal"]
    kept = [getattr(before, name) for name in fields]
    for text in ("f", "c", "r500"):
        play(before, text)
    assert [getattr(before, name) for name in fields] == kept


@pytest.mark.parametrize(
    ("actions", "tried", "code"),
    [
        ("", "x", "cannot_check"),
        ("", "b300", "cannot_bet"),
        ("", "r199", "amount_too_small"),
        ("", "r1001", "amount_too_large"),
        ("", "r", "amount_missing"),
        ("c", "c", "nothing_to_call"),
        ("c", "b300", "cannot_bet"),
        ("c x", "r300", "nothing_to_raise"),
        ("c x", "b901", "amount_too_large"),
        ("r1000", "r1500", "raise_not_allowed"),
        ("f", "x", "hand_complete"),
    ],
)
def test_a_refusal_has_a_code_and_says_what_is_legal(actions: str, tried: str, code: str) -> None:
    hand = play(begin(1000, 1000).hand, actions)
    refused = refusal(hand, tried)
    assert refused.code == code
    assert str(refused) == refused.sentence
    if code != "hand_complete":
        assert refused.sentence.endswith(hand.legal().sentence())


@pytest.mark.parametrize("amount", [True, 300.0, "300"])
def test_an_amount_that_is_not_a_whole_number_is_refused(amount: object) -> None:
    hand = begin(1000, 1000).hand
    with pytest.raises(IllegalAction) as caught:
        apply(hand, Action(Kind.RAISE, amount))  # type: ignore[arg-type]
    assert caught.value.code == "amount_not_an_integer"


def test_the_range_of_a_raise_is_in_the_sentence() -> None:
    refused = refusal(begin(1000, 1000).hand, "r150")
    assert refused.sentence == (
        "A raise to 150 is below the minimum of 200."
        " Legal now: fold, call (adding 50), raise to 200..1000."
    )


def test_words_and_kinds_translate_both_ways() -> None:
    for kind in Kind:
        assert Kind.of_text(kind.text) is kind
    with pytest.raises(ValueError, match="the actions are fold, check, call, bet and raise"):
        Kind.of_text("all-in")
