"""Redaction: every viewer sees what the design grants, and nothing else can be reached."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable
from random import Random

import pytest

from pokerarena.engine.cards import CARD_TEXTS
from pokerarena.engine.deal import Deal
from pokerarena.engine.facts import HandTabled, HoleCardsDealt
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import Transition, apply, start
from pokerarena.engine.view import HandView, Viewer, see, visible_facts
from tests.engine.hands import Table, describe, random_action, random_table, scaled
from tests.engine.tables import action, begin, cards, play

CARD_IN_JSON = re.compile(rb'"([2-9TJQKA][cdhs])"')
CHUNKS = 4


class MarkedCard(int):
    """A card that is written as text and recognised wherever it turns up."""


def marked(deal: Deal) -> Deal:
    return Deal(
        tuple((MarkedCard(first), MarkedCard(second)) for first, second in deal.holes),
        tuple(map(MarkedCard, deal.board)),
    )


ATOMS = {int, bool, str, type(None)}


def plain(value: object) -> object:
    """Return JSON of any value of the engine, leaving nothing out."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if isinstance(value, MarkedCard):
        return CARD_TEXTS[value]
    if isinstance(value, (tuple, frozenset)):
        return [item if type(item) in ATOMS else plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, int):
        return int(value)
    slots: tuple[str, ...] = vars(kind)["__slots__"]
    return {name: plain(getattr(value, name)) for name in slots}


def serialised(value: object) -> bytes:
    return json.dumps(plain(value)).encode()


def cards_in(text: bytes) -> set[str]:
    return {card.decode() for card in CARD_IN_JSON.findall(text)}


def reachable(view: HandView) -> list[object]:
    """Return every object that can be reached from a view without passing through a class."""
    found: dict[int, object] = {}
    waiting: list[object] = [view]
    while waiting:
        value = waiting.pop()
        if id(value) in found or isinstance(value, type):
            continue
        found[id(value)] = value
        waiting.extend(gc.get_referents(value))
    return list(found.values())


def texts(numbers: Iterable[int]) -> set[str]:
    return {CARD_TEXTS[number] for number in numbers}


def granted(table: Table, hand: Hand, viewer: Viewer) -> set[str]:
    """What the design's section on redaction lets this viewer see, worked out from the table."""
    seen = texts(hand.board)
    showdown = hand.complete and hand.folded.count(False) > 1
    for position, seat in enumerate(table.seats):
        tabled = showdown and not hand.folded[position]
        if viewer.everything or seat in viewer.seats or tabled:
            seen |= texts(table.deal.holes[position])
    return seen


def viewers_of(table: Table, random: Random) -> list[Viewer]:
    return [
        Viewer.SPECTATOR,
        Viewer.EVERYTHING,
        *(Viewer.of_seats({seat}) for seat in table.seats),
        Viewer.of_seats(random.sample(table.seats, 2)),
        Viewer.of_seats({11}),
    ]


def check_step(table: Table, step: Transition, told: dict[Viewer, set[str]]) -> None:
    """Hold what each viewer sees now, and was told so far, to what the design grants."""
    for viewer, so_far in told.items():
        allowed = granted(table, step.hand, viewer)
        assert cards_in(serialised(see(step.hand, viewer))) == allowed, viewer
        so_far.update(cards_in(serialised(visible_facts(step.facts, viewer))))
        assert so_far == allowed, viewer


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_at_every_moment_a_view_holds_exactly_the_cards_its_viewer_may_see(chunk: int) -> None:
    random = Random(f"redaction {chunk}")
    showdowns = 0
    for _ in range(scaled(10_000 // CHUNKS)):
        table = random_table(random, most_players=6)
        table = table._replace(deal=marked(table.deal))
        told: dict[Viewer, set[str]] = {viewer: set() for viewer in viewers_of(table, random)}
        step = start(*table)
        try:
            check_step(table, step, told)
            while not step.hand.complete:
                step = apply(step.hand, random_action(random, step.hand.legal()))
                check_step(table, step, told)
        except AssertionError as error:
            raise AssertionError(describe(table, step.hand.history)) from error
        showdowns += bool(step.hand.tabled)
    assert showdowns > scaled(10_000 // CHUNKS) / 5


def test_nothing_hidden_can_be_reached_from_a_view() -> None:
    random = Random("reachable")
    for _ in range(scaled(150)):
        table = random_table(random)
        table = table._replace(deal=marked(table.deal))
        hand = start(*table).hand
        while True:
            for viewer in (Viewer.SPECTATOR, Viewer.of_seats({table.seats[0]})):
                objects = reachable(see(hand, viewer))
                assert not any(isinstance(value, Hand | Deal) for value in objects)
                held = texts(value for value in objects if isinstance(value, MarkedCard))
                assert held == granted(table, hand, viewer)
            if hand.complete:
                break
            hand = apply(hand, random_action(random, hand.legal())).hand


def test_the_test_would_notice_a_leak() -> None:
    step = begin(1000, 1000)
    view = see(step.hand, Viewer.SPECTATOR)
    view.holes = {1: (MarkedCard(0), MarkedCard(51))}
    assert cards_in(serialised(view)) == {"2c", "As"}
    assert any(isinstance(value, MarkedCard) for value in reachable(view))


def test_a_seat_sees_its_own_cards_and_nobody_elses() -> None:
    hand = begin(1000, 1000, 1000, holes="AsAdKsKdQsQd").hand
    assert see(hand, Viewer.of_seats({2})).holes == {2: cards("KsKd")}
    assert see(hand, Viewer.of_seats({1, 3})).holes == {1: cards("AsAd"), 3: cards("QsQd")}
    assert see(hand, Viewer.SPECTATOR).holes == {}


def test_after_a_showdown_everybody_sees_the_tabled_cards_and_never_the_folded() -> None:
    hand = play(begin(1000, 1000, 1000, holes="AsAdKsKdQsQd").hand, "f c x x x x x x x")
    assert see(hand, Viewer.SPECTATOR).holes == {1: cards("AsAd"), 2: cards("KsKd")}
    assert see(hand, Viewer.of_seats({3})).holes.keys() == {1, 2, 3}


def test_a_winner_without_a_showdown_keeps_its_cards_hidden() -> None:
    hand = play(begin(1000, 1000, 1000).hand, "f f")
    assert see(hand, Viewer.SPECTATOR).holes == {}
    assert see(hand, Viewer.of_seats({1})).holes.keys() == {1}


def test_the_viewer_of_everything_sees_all_hole_cards_but_no_undealt_card() -> None:
    hand = play(begin(1000, 1000, 1000, board="AhKhQc2d3s").hand, "f c x")
    view = see(hand, Viewer.EVERYTHING)
    assert view.holes.keys() == {1, 2, 3}
    assert view.board == cards("AhKhQc")


def test_hole_cards_are_dealt_to_their_seat_alone_and_tabled_for_all() -> None:
    step = begin(1000, 1000)
    assert visible_facts(step.facts, Viewer.SPECTATOR) == step.facts[2:]
    mine = visible_facts(step.facts, Viewer.of_seats({2}))
    assert [fact.seat for fact in mine if isinstance(fact, HoleCardsDealt)] == [2]
    assert visible_facts(step.facts, Viewer.EVERYTHING) == step.facts
    last = apply(play(step.hand, "c x x x x x x"), action("x"))
    seen = visible_facts(last.facts, Viewer.SPECTATOR)
    tabled = [fact for fact in seen if isinstance(fact, HandTabled)]
    assert [fact.seat for fact in tabled] == [1, 2]


def test_a_view_carries_the_public_state_an_agent_is_asked_with() -> None:
    hand = play(begin(1000, 1000, 1000, board="AhKhQc2d3s").hand, "r300 c f b200")
    view = see(hand, Viewer.of_seats({3}))
    assert view.seats == (1, 2, 3)
    assert (view.button_seat, view.seat_to_act, view.street.text) == (3, 3, "flop")
    assert view.board == cards("AhKhQc")
    assert (view.pot, view.bets, view.stacks) == (900, (200, 0, 0), (500, 900, 700))
    assert (view.folded, view.all_in) == ((False, True, False), (False, False, False))
    assert (view.legal.to_call, view.legal.min_raise_to, view.legal.max_raise_to) == (200, 400, 700)
    assert [kind.text for kind in view.legal.kinds] == ["fold", "call", "raise"]
    assert [acted.kind.text for acted in view.history] == ["raise", "call", "fold", "bet"]
    assert view.rules.big_blind == 100
    assert not view.complete
    assert view.net() == (-500, -100, -300)
