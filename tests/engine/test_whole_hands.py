"""Properties of whole hands: chips are conserved, replay equals play, legality is exact."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokerarena.engine.actions import Action, IllegalAction, Kind
from pokerarena.engine.deal import Deal
from pokerarena.engine.facts import (
    PUBLIC,
    Acted,
    AntePosted,
    BlindPosted,
    BoardDealt,
    Fact,
    HandEnded,
    HoleCardsDealt,
    PotAwarded,
    UncalledReturned,
)
from pokerarena.engine.rules import MAX_CHIPS, Rules
from pokerarena.engine.state import Hand, Street
from pokerarena.engine.transition import Transition, apply, replay, start
from tests.engine.hands import Table, describe, random_action, random_table, scaled
from tests.engine.tables import BLINDS, action, begin, deal, play

CHUNKS = 4
FIELDS = [name for name in Hand.__slots__ if name != "_legal"]


def same(first: Hand, second: Hand) -> bool:
    """Whether two hands are equal in every field, the cards still to come aside."""
    return all(getattr(first, name) == getattr(second, name) for name in FIELDS if name != "_deal")


def check_moment(table: Table, hand: Hand) -> None:
    """What must hold at every moment of a hand."""
    total = sum(table.stacks)
    in_the_middle = 0 if hand.complete else hand.pot
    assert sum(hand.stacks) + in_the_middle == total
    assert min(hand.stacks) >= 0
    if hand.complete:
        assert sum(hand.net()) == 0
        assert hand.pot == sum(award.chips for award in hand.awards)
        assert hand.legal().kinds == ()
        return
    position = hand.to_act
    assert position is not None
    assert not hand.folded[position]
    assert not hand.all_in[position]
    legal = hand.legal()
    assert legal.to_call <= hand.stacks[position]
    assert Kind.FOLD in legal.kinds
    assert (Kind.CALL in legal.kinds) == (legal.to_call > 0)
    assert (Kind.CHECK in legal.kinds) == (legal.to_call == 0)
    assert len(hand.board) == (0, 3, 4, 5)[hand.street]


def stacks_from(table: Table, facts: list[Fact]) -> list[int]:
    """Work out the final stacks from the facts alone."""
    stacks = dict(zip(table.seats, table.stacks, strict=True))
    bets: Counter[int] = Counter()
    for fact in facts:
        if isinstance(fact, AntePosted | BlindPosted):
            stacks[fact.seat] -= fact.chips
            bets[fact.seat] += fact.chips if isinstance(fact, BlindPosted) else 0
        elif isinstance(fact, Acted) and fact.amount is not None:
            stacks[fact.seat] -= fact.amount - bets[fact.seat]
            bets[fact.seat] = fact.amount
        elif isinstance(fact, BoardDealt):
            bets.clear()
        elif isinstance(fact, UncalledReturned):
            stacks[fact.seat] += fact.chips
        elif isinstance(fact, PotAwarded):
            assert sum(fact.shares) == fact.chips
            for seat, share in zip(fact.seats, fact.shares, strict=True):
                stacks[seat] += share
    return list(stacks.values())


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_chips_are_conserved_and_replay_equals_play(chunk: int) -> None:
    random = Random(f"whole hands {chunk}")
    for _ in range(scaled(10_000 // CHUNKS)):
        table = random_table(random)
        steps: list[Transition] = [start(*table)]
        try:
            while not steps[-1].hand.complete:
                check_moment(table, steps[-1].hand)
                taken = random_action(random, steps[-1].hand.legal())
                steps.append(apply(steps[-1].hand, taken))
            end = steps[-1].hand
            check_moment(table, end)
            facts = [fact for step in steps for fact in step.facts]
            assert stacks_from(table, facts) == list(end.stacks)
            assert facts[-1] == HandEnded(PUBLIC, end.seats, end.stacks, end.net())
            stored = [Action(acted.kind, acted.amount) for acted in end.history]
            again = list(
                replay(
                    table.rules,
                    table.seats,
                    table.stacks,
                    table.button_seat,
                    table.deal.holes,
                    end.board,
                    stored,
                )
            )
            assert len(again) == len(steps)
            for replayed, played in zip(again, steps, strict=True):
                assert replayed.facts == played.facts
                assert same(replayed.hand, played.hand)
        except AssertionError as error:
            raise AssertionError(describe(table, steps[-1].hand.history)) from error


@st.composite
def hands_in_play(draw: st.DrawFn) -> Hand:
    """A hand some way on, at a decision: Hypothesis chooses everything, and shrinks it."""
    count = draw(st.integers(2, 10))
    big = draw(st.integers(1, 20))
    rules = Rules(
        draw(st.integers(1, big)),
        big,
        draw(st.integers(0, 30)),
        draw(st.sampled_from(("each", "big_blind"))),
    )
    stacks = tuple(draw(st.lists(st.integers(1, 300), min_size=count, max_size=count)))
    cards = draw(st.permutations(range(52)))
    holes = tuple(zip(cards[: 2 * count : 2], cards[1 : 2 * count : 2], strict=True))
    button = draw(st.integers(1, count))
    seats = tuple(range(1, count + 1))
    hand = start(rules, seats, stacks, button, Deal(holes, tuple(cards[-5:]))).hand
    for _ in range(draw(st.integers(0, 12))):
        legal = hand.legal()
        if not legal.kinds:
            break
        kind = draw(st.sampled_from(legal.kinds))
        amount = None
        if kind in {Kind.BET, Kind.RAISE}:
            amount = draw(st.integers(legal.min_raise_to or 0, legal.max_raise_to or 0))
        after = apply(hand, Action(kind, amount)).hand
        if after.complete:
            break
        hand = after
    return hand


@settings(max_examples=scaled(300), deadline=None, derandomize=True)
@given(hands_in_play(), st.sampled_from(Kind), st.one_of(st.none(), st.integers(-5, 400)))
def test_what_is_announced_as_legal_is_taken_and_all_else_is_refused(
    hand: Hand, kind: Kind, amount: int | None
) -> None:
    legal = hand.legal()
    expected = kind in legal.kinds
    if expected and kind in {Kind.BET, Kind.RAISE}:
        least, most = legal.min_raise_to, legal.max_raise_to
        assert least is not None
        assert most is not None
        expected = amount is not None and least <= amount <= most
    total = sum(hand.stacks) + (0 if hand.complete else hand.pot)
    try:
        after = apply(hand, Action(kind, amount)).hand
    except IllegalAction as refused:
        assert not expected
        assert refused.code
        assert refused.sentence.endswith(".")
    else:
        assert expected
        assert sum(after.stacks) + (0 if after.complete else after.pot) == total


def test_a_replay_takes_a_board_of_just_the_cards_that_were_dealt() -> None:
    dealt = deal(2)
    actions = [action(text) for text in ("c", "x", "b100", "f")]
    steps = list(replay(BLINDS, (1, 2), (1000, 1000), 2, dealt.holes, dealt.board[:3], actions))
    assert steps[-1].hand.complete
    assert steps[-1].hand.board == dealt.board[:3]


def test_a_replay_that_lacks_board_cards_says_so() -> None:
    dealt = deal(2)
    steps = replay(BLINDS, (1, 2), (1000, 1000), 2, dealt.holes, (), [action("c"), action("x")])
    with pytest.raises(ValueError, match="The flop needs 3 board cards, and the deal has only 0"):
        list(steps)


def test_a_replay_of_actions_against_the_rules_is_refused() -> None:
    dealt = deal(2)
    steps = replay(BLINDS, (1, 2), (1000, 1000), 2, dealt.holes, dealt.board, [action("x")])
    with pytest.raises(IllegalAction, match="You cannot check"):
        list(steps)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seats": (1,), "stacks": (10,)}, "2 to 10 players"),
        ({"seats": (2, 1)}, "ascending"),
        ({"seats": (1, 1)}, "ascending"),
        ({"seats": (0, 1), "button_seat": 1}, "ascending numbers from 1"),
        ({"button_seat": 3}, "button must be at one of the seats"),
        ({"stacks": (10,)}, "2 seats need 2 stacks"),
        ({"stacks": (10, 0)}, "A stack is 1 to"),
        ({"stacks": (10, MAX_CHIPS + 1)}, "A stack is 1 to"),
        ({"deal": Deal(((0, 1),), (4, 5, 6, 7, 8))}, "2 players has 2 holdings"),
        ({"deal": Deal(((0, 1), (1, 2)), (4, 5, 6, 7, 8))}, "different cards"),
        ({"deal": Deal(((0, 1), (2, 52)), (4, 5, 6, 7, 8))}, "different cards"),
        ({"deal": Deal(((0, 1), (2, 3)), (4, 5, 6, 7, 8, 9))}, "at most 5 cards"),
    ],
)
def test_an_impossible_start_is_refused_with_a_reason(change: dict[str, object], why: str) -> None:
    fields: dict[str, object] = {
        "rules": BLINDS,
        "seats": (1, 2),
        "stacks": (1000, 1000),
        "button_seat": 1,
        "deal": deal(2),
    }
    with pytest.raises(ValueError, match=why):
        start(**{**fields, **change})  # type: ignore[arg-type]


def test_hole_cards_are_the_only_facts_that_are_not_public() -> None:
    steps = begin(1000, 1000, 1000)
    for fact in steps.facts:
        assert (fact.audience != PUBLIC) == isinstance(fact, HoleCardsDealt)
        if isinstance(fact, HoleCardsDealt):
            assert fact.audience == fact.seat


def test_streets_have_the_words_of_the_protocol() -> None:
    assert [street.text for street in Street] == ["preflop", "flop", "turn", "river"]
    assert play(begin(1000, 1000).hand, "c x").street.text == "flop"
