"""The house agent `tight`: few hands, played hard, and every decision has a reason in words.

Before the flop it follows charts by position; after it, the strength of the made hand, the outs of
a draw and the price of the pot. It is the textbook player: sound, honest and a little predictable.
"""

from __future__ import annotations

from random import Random
from typing import Final

from pokerarena.agents.house.ranges import hand_name, parse_range
from pokerarena.agents.house.reading import Made, Reading, read
from pokerarena.agents.house.spot import Move, Spot

_OPEN: Final = {
    "early": parse_range("66+ A9s+ KTs+ QTs+ JTs T9s AJo+ KQo"),
    "middle": parse_range("44+ A7s+ K9s+ Q9s+ J9s+ T9s 98s ATo+ KJo+"),
    "the cutoff": parse_range("22+ A2s+ K9s+ Q9s+ J9s+ T8s+ 98s 87s 76s A9o+ KTo+ QTo+ JTo"),
    "the button": parse_range(
        "22+ A2s+ K5s+ Q8s+ J8s+ T7s+ 97s+ 86s+ 76s 65s 54s A3o+ K9o+ Q9o+ J9o+ T9o"
    ),
    "the small blind": parse_range(
        "22+ A2s+ K8s+ Q9s+ J8s+ T8s+ 97s+ 87s 76s 65s A7o+ KTo+ QTo+ JTo"
    ),
    "the big blind": parse_range("99+ ATs+ KTs+ QJs AJo+ KQo"),
    "the button, heads-up": parse_range(
        "22+ A2s+ K2s+ Q4s+ J6s+ T6s+ 96s+ 85s+ 75s+ 64s+ 54s A2o+ K5o+ Q8o+ J8o+ T8o+ 98o"
    ),
    "the big blind, heads-up": parse_range("66+ A5s+ K9s+ QTs+ JTs ATo+ KJo+"),
}
_RERAISE: Final = parse_range("TT+ AQs+ AKo")
_RERAISE_LATE: Final = parse_range("99+ AJs+ KQs AQo+")
_CALL_RAISE: Final = parse_range("22+ ATs+ KTs+ QTs+ JTs T9s 98s AQo KQo")
_DEFEND_BIG_BLIND: Final = parse_range(
    "22+ A2s+ K9s+ Q9s+ J9s+ T8s+ 97s+ 87s 76s 65s A9o+ KTo+ QTo+ JTo"
)
_DEFEND_HEADS_UP: Final = parse_range(
    "22+ A2s+ K4s+ Q7s+ J7s+ T7s+ 97s+ 86s+ 75s+ 65s 54s A2o+ K8o+ Q9o+ J9o+ T9o"
)
_FOUR_BET: Final = parse_range("QQ+ AKs AKo")
_CALL_RERAISE: Final = parse_range("TT+ AQs+ KQs")
_STACK_OFF: Final = parse_range("JJ+ AKs AKo")
_PUSH: Final = parse_range("22+ A2s+ K9s+ QTs+ JTs A7o+ KTo+ QJo")
_PUSH_LATE: Final = parse_range("22+ A2s+ K4s+ Q8s+ J8s+ T8s+ 98s A2o+ K8o+ QTo+ JTo")
_CALL_PUSH: Final = parse_range("66+ A9s+ KQs ATo+")
_CALL_PUSH_HEADS_UP: Final = parse_range("33+ A3s+ K9s+ QTs+ A5o+ KTo+ QJo")

_SHORT_STACK_BB: Final = 12
_BIG_CALL_BB: Final = 15
# One card to come makes about this much of an out.
_SHARE_PER_OUT: Final = 0.022


def tight(spot: Spot, random: Random) -> Move:
    """Play the charts before the flop and the made hand after it."""
    return _after_flop(spot, random) if spot.board else _before_flop(spot)


# --- Before the flop ---------------------------------------------------------------------------


def _position(spot: Spot) -> str:
    if spot.heads_up:
        return "the button, heads-up" if spot.place == 1 else "the big blind, heads-up"
    if spot.place == 0:
        return "the small blind"
    if spot.place == 1:
        return "the big blind"
    if spot.seats_behind < 4:
        return ("the button", "the cutoff", "middle", "middle")[spot.seats_behind]
    return "early"


def _before_flop(spot: Spot) -> Move:
    hand = hand_name(*spot.holes)
    position = _position(spot)
    if spot.depth <= _SHORT_STACK_BB:
        return _short_stack(spot, hand, position)
    if spot.raises == 0:
        if hand in _OPEN[position]:
            size = round((2.5 + spot.limpers) * spot.big_blind)
            return spot.raise_to(size, f"{hand} opens from {position}")
        return spot.give_up(f"{hand} is not played from {position}")
    if spot.raises == 1:
        return _facing_a_raise(spot, hand, position)
    if hand in _FOUR_BET:
        if spot.raises > 2 or spot.depth < 40:
            return spot.all_in(f"{hand} goes all-in after {spot.raises} raises")
        return spot.raise_to(round(2.3 * max(spot.turn.bets.values())), f"{hand} raises again")
    if hand in _CALL_RERAISE and spot.raises == 2 and spot.price < 0.36:
        return spot.stay(f"{hand} calls a re-raise at {spot.price:.0%} of the pot")
    return spot.give_up(f"{hand} is too weak after {spot.raises} raises")


def _facing_a_raise(spot: Spot, hand: str, position: str) -> Move:
    late = position in ("the button", "the cutoff") or spot.heads_up
    if hand in (_RERAISE_LATE if late else _RERAISE):
        factor = 3 if spot.last_to_act else 4
        return spot.raise_to(factor * max(spot.turn.bets.values()), f"{hand} re-raises")
    if spot.to_call > _BIG_CALL_BB * spot.big_blind:
        if hand in _STACK_OFF:
            return spot.stay(f"{hand} is good enough for a big raise")
        return spot.give_up(f"{hand} is not good enough for a big raise")
    calls = _CALL_RAISE
    if spot.heads_up:
        calls = _DEFEND_HEADS_UP
    elif position == "the big blind":
        calls = _DEFEND_BIG_BLIND
    if hand in calls and spot.price < 0.42:
        return spot.stay(f"{hand} calls a raise from {position}")
    return spot.give_up(f"{hand} does not play against a raise from {position}")


def _short_stack(spot: Spot, hand: str, position: str) -> Move:
    stack = f"with {spot.depth:.0f} big blinds"
    if spot.raises == 0:
        late = position in ("the button", "the small blind") or spot.heads_up
        if hand in (_PUSH_LATE if late else _PUSH):
            return spot.all_in(f"{hand} goes all-in {stack} from {position}")
        return spot.give_up(f"{hand} waits {stack}")
    if hand in (_CALL_PUSH_HEADS_UP if len(spot.opponents) == 1 else _CALL_PUSH):
        return spot.all_in(f"{hand} plays for all of it {stack}")
    if spot.price < 0.2:
        return spot.stay(f"{hand} gets {1 / spot.price - 1:.0f} to 1")
    return spot.give_up(f"{hand} is too weak against a raise {stack}")


# --- After the flop ----------------------------------------------------------------------------


def _after_flop(spot: Spot, random: Random) -> Move:
    reading = read(spot.holes, spot.board)
    if reading.made >= Made.GOOD_PAIR and spot.stack <= spot.pot:
        return spot.all_in(f"{reading.words} and little behind: all-in")
    if spot.to_call:
        return _facing_a_bet(spot, reading)
    return _unopened(spot, reading, random)


def _unopened(spot: Spot, reading: Reading, random: Random) -> Move:
    made, words = reading.made, reading.words
    few = len(spot.opponents) <= 2
    if made >= Made.STRONG:
        return spot.put_in(0.7, f"{words}: bets for value")
    if made is Made.GOOD_PAIR:
        return spot.put_in(0.4 if len(spot.board) == 5 else 0.6, f"{words}: bets for value")
    if made is Made.TOP_PAIR and few:
        return spot.put_in(0.4, f"{words}: a small bet")
    if reading.outs >= 8 and few and random.random() < 0.6:
        return spot.put_in(0.5, f"{words}: a bet that wins now or with {reading.outs} cards")
    ours = spot.aggressor == spot.turn.seat
    if ours and len(spot.board) == 3 and few:
        often = 0.7 if len(spot.opponents) == 1 else 0.35
        if random.random() < often:
            return spot.put_in(0.5, f"{words}: continues after raising before the flop")
    return spot.give_up(f"{words}: checks")


def _facing_a_bet(spot: Spot, reading: Reading) -> Move:
    made, words, price = reading.made, reading.words, spot.price
    if made is Made.MONSTER:
        if spot.raises > 1:
            return spot.all_in(f"{words}: all-in")
        return spot.put_in(0.8, f"{words}: raises for value")
    if made is Made.STRONG:
        if spot.raises == 1:
            return spot.put_in(0.7, f"{words}: raises for value")
        if spot.raises == 2 or price < 0.25:
            return spot.stay(f"{words}: calls a raise")
        return spot.give_up(f"{words}: too much strength on the other side")
    most = _highest_price(spot, made)
    if price <= most:
        return spot.stay(f"{words}: calls at {price:.0%} of the pot")
    draw_share = reading.outs * _SHARE_PER_OUT
    if len(spot.board) == 3 and spot.stack <= spot.to_call:
        draw_share *= 2  # both cards will be seen for this price
    elif spot.stack > 3 * spot.pot:
        draw_share *= 1.3  # a hit will be paid
    if reading.outs and price <= draw_share:
        return spot.stay(f"{words}: {reading.outs} outs pay {price:.0%} of the pot")
    return spot.give_up(f"{words}: not worth {price:.0%} of the pot")


def _highest_price(spot: Spot, made: Made) -> float:
    """The share of the pot we pay for a pair. A pot-sized bet costs a third."""
    if spot.raises > 1:
        return 0.22 if made is Made.GOOD_PAIR else 0.0
    river = len(spot.board) == 5
    most = {
        Made.GOOD_PAIR: 0.36,
        Made.TOP_PAIR: 0.28 if river else 0.32,
        Made.MIDDLE_PAIR: 0.20 if river else 0.26,
        Made.WEAK_PAIR: 0.12 if river else 0.18,
    }.get(made, 0.0)
    return most if len(spot.opponents) <= 2 else most * 0.8
