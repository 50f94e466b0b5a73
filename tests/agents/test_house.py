"""House agents are real strategies: legal, deterministic, and each plays as its name says."""

import time
from collections import Counter
from random import Random

import msgspec
import pytest

from pokerarena.agents.house import STRATEGIES, HousePlayer, UnknownHouseAgent
from pokerarena.agents.house.equity import win_share
from pokerarena.agents.house.ranges import PERCENTILES, hand_name, parse_range
from pokerarena.agents.house.reading import Made, read
from pokerarena.agents.seat import judge
from pokerarena.engine.actions import Action
from pokerarena.engine.cards import parse_card
from pokerarena.engine.deal import deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.transition import apply, start
from pokerarena.protocol.messages import MAX_NOTE_BYTES, Answer
from tests.protocol.hands import SEED, a_callback, callback_of, moments


def cards(text):
    return tuple(parse_card(text[at : at + 2]) for at in range(0, len(text), 2))


def play(names, hands, seed=b"a seed", stack=10_000):
    """Results in big blinds a hand, the moves made, and their reasons."""
    count = len(names)
    players = [HousePlayer(name, seed + bytes([place])) for place, name in enumerate(names)]
    net, moves = [0] * count, []
    for number in range(hands):
        # Every deal is played once from each seat, so that luck evens out.
        deal = deal_cards(SEED, b"house", number // count, count, number % count)
        seats = tuple(range(1, count + 1))
        hand = start(Rules(50, 100), seats, (stack,) * count, number % count + 1, deal).hand
        while not hand.complete:
            move = players[hand.to_act].move(callback_of(hand, hand_no=number + 1))
            verdict = judge(Answer(move.action, move.amount), hand.legal())
            assert isinstance(verdict, Action), verdict
            moves.append((names[hand.to_act], hand.street.text, move))
            hand = apply(hand, verdict).hand
        for place, chips in enumerate(hand.net()):
            net[place] += chips
    return [chips / 100 / hands for chips in net], moves


@pytest.mark.parametrize("name", STRATEGIES)
async def test_every_answer_is_legal_and_well_formed_at_every_moment(name):
    player = HousePlayer(name, b"seed", explain=True)
    for number in range(60 if name == "equity" else 250):
        for hand in moments(number):
            if hand.complete:
                continue
            answer = await player.decide(callback_of(hand), 1_000)
            assert isinstance(judge(answer, hand.legal()), Action), (answer, hand.legal())
            assert 0 < len(answer.note.encode()) <= MAX_NOTE_BYTES


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_and_callback_give_the_same_move_whatever_the_ids(name):
    for number in range(30):
        for hand in moments(number):
            if hand.complete:
                continue
            callback = callback_of(hand)
            renamed = msgspec.structs.replace(
                callback, run_id="run_2", hand_id="hand_9", decision_id="x", table_id="tbl_2"
            )
            first = HousePlayer(name, b"seed").move(callback)
            assert HousePlayer(name, b"seed").move(renamed) == first


def test_another_seed_gives_other_moves():
    callbacks = [a_callback(hand_no=number) for number in range(1, 40)]
    one, other = HousePlayer("random", b"one"), HousePlayer("random", b"two")
    assert [one.move(c) for c in callbacks] != [other.move(c) for c in callbacks]


def test_random_takes_each_legal_kind_alike():
    player = HousePlayer("random", b"seed")
    callback = a_callback()
    assert set(callback.legal_actions) == {"fold", "call", "raise"}
    kinds = Counter(
        player.move(msgspec.structs.replace(callback, hand_no=number)).action
        for number in range(1, 3_001)
    )
    assert all(900 < count < 1_100 for count in kinds.values()), kinds


def test_caller_never_folds_and_never_raises():
    _, moves = play(["caller", "random", "equity"], 60)
    assert {move.action for name, _, move in moves if name == "caller"} == {"check", "call"}


def test_tight_plays_few_hands_and_raises_them():
    _, moves = play(["tight", "tight", "tight", "caller", "caller", "random"], 600)
    preflop = Counter(
        move.action for name, street, move in moves if name == "tight" and street == "preflop"
    )
    assert preflop["fold"] > 0.6 * preflop.total(), preflop
    assert preflop["raise"] > preflop["call"], preflop


def test_tight_gives_a_reason_for_every_decision():
    _, moves = play(["tight", "caller"], 100)
    reasons = {move.why for name, _, move in moves if name == "tight"}
    assert len(reasons) > 50
    assert all(len(reason) > 10 for reason in reasons)


@pytest.mark.parametrize(
    ("better", "worse", "hands"),
    [
        ("tight", "random", 1_200),
        ("tight", "caller", 1_200),
        ("equity", "random", 500),
        ("equity", "caller", 500),
    ],
)
def test_strategies_beat_chance_and_the_calling_station(better, worse, hands):
    (result, _), _ = play([better, worse], hands)
    assert result > 0.1, f"{better} wins {result:.2f} big blinds a hand against {worse}"


def test_a_decision_of_equity_takes_a_few_milliseconds_at_most_on_average():
    player = HousePlayer("equity", b"seed")
    callbacks = [callback_of(h) for n in range(60) for h in moments(n) if not h.complete]
    started = time.process_time()
    for callback in callbacks:
        player.move(callback)
    assert (time.process_time() - started) / len(callbacks) < 0.02


@pytest.mark.parametrize(
    ("holes", "board", "widths", "expected"),
    [
        ("AsAh", "", (1.0,), 0.852),
        ("7h2c", "", (1.0,), 0.346),
        ("AsKs", "QsJsTs", (1.0,), 1.0),
        ("AsAh", "AcAd2s3s4s", (1.0,), 1.0),
        ("2c3d", "AsKsQsJsTs", (1.0,), 0.5),
        ("2c3d", "AsKsQsJsTs", (1.0, 1.0), 1 / 3),
        ("AsAh", "", (1.0, 1.0), 0.734),
    ],
)
def test_win_shares_agree_with_known_values(holes, board, widths, expected):
    share = win_share(cards(holes), cards(board), widths, 8_000, Random(7))
    assert share == pytest.approx(expected, abs=0.02)


def test_narrow_ranges_are_stronger_and_never_run_out():
    holes, board = cards("QsQh"), cards("2c7d9h")
    wide, narrow = (win_share(holes, board, (w,), 3_000, Random(1)) for w in (1.0, 0.05))
    assert narrow < wide - 0.1
    assert 0 <= win_share(holes, board, (0.01,) * 9, 20, Random(1)) <= 1


def test_the_ranges_speak_the_usual_notation():
    assert parse_range("QQ+ AKs A5s") == {"QQ", "KK", "AA", "AKs", "A5s"}
    assert parse_range("KTo+") == {"KTo", "KJo", "KQo"}
    assert len(parse_range("22+ " + " ".join(f"{r}2s+ {r}2o+" for r in "3456789TJQKA"))) == 169
    for wrong in ("AK", "KAs", "77s", "A1s", "all"):
        with pytest.raises(ValueError, match="not a range"):
            parse_range(wrong)


def test_every_two_cards_have_a_name_and_a_place():
    names = {hand_name(a, b) for a in range(52) for b in range(52) if a != b}
    assert names == set(PERCENTILES)
    assert len(names) == 169
    assert PERCENTILES["AA"] == pytest.approx(6 / 1326)
    assert max(PERCENTILES.values()) == 1.0


@pytest.mark.parametrize(
    ("holes", "board", "made", "outs"),
    [
        ("AsKd", "Ah7c2d", Made.GOOD_PAIR, 0),
        ("As3d", "Ah7c2d", Made.TOP_PAIR, 0),
        ("QsQd", "Jh7c2d", Made.GOOD_PAIR, 0),
        ("7s7d", "Jh7c2d", Made.MONSTER, 0),
        ("Js7d", "Jh7c2d", Made.STRONG, 0),
        ("AsKd", "JhJc2d", Made.NOTHING, 0),
        ("JsKd", "JhJc2d", Made.STRONG, 0),
        ("AsKs", "Qs7s2d", Made.NOTHING, 9),
        ("9s8d", "7h6c2d", Made.NOTHING, 8),
        ("9s8d", "7h5c2d", Made.NOTHING, 4),
        ("JsTs", "9s8s2d", Made.NOTHING, 15),
        ("AsKs", "Qs7s2s", Made.MONSTER, 0),
        ("As2d", "3h4c5d", Made.MONSTER, 0),
        ("3s2d", "AhKhQhJhTh", Made.NOTHING, 0),
        ("2s2d", "AhKhQcJcTd", Made.NOTHING, 0),
        ("5s5d", "Jh7c2d", Made.WEAK_PAIR, 0),
        ("8s8d", "Jh7c2d", Made.MIDDLE_PAIR, 0),
        ("6s5s", "7h7c7d", Made.NOTHING, 0),
    ],
)
def test_hands_are_read_for_what_is_ones_own_in_them(holes, board, made, outs):
    reading = read(cards(holes), cards(board))
    assert (reading.made, reading.outs) == (made, outs), reading


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownHouseAgent, match="random, caller, tight, equity"):
        HousePlayer("shark", b"seed")
