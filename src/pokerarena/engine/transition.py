"""How a hand begins and moves on: each function takes a hand and returns the next one with its facts.

Owns the order of play: posting, turns, the end of a street, the run-out; `ending` divides the
chips. It never changes a hand it was given, and it reads no clock and no randomness: all cards are
in the `Deal`.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import sub
from typing import Final, NamedTuple

from pokerarena.engine.actions import Action, Kind, refused_amount, refused_kind
from pokerarena.engine.cards import DECK_SIZE
from pokerarena.engine.deal import BOARD_CARDS, Deal
from pokerarena.engine.ending import (
    end_by_showdown,
    end_without_showdown,
    return_uncalled,
    table_hands,
)
from pokerarena.engine.facts import (
    PUBLIC,
    Acted,
    AntePosted,
    BlindPosted,
    BoardDealt,
    Fact,
    HoleCardsDealt,
)
from pokerarena.engine.rules import MAX_CHIPS, MAX_SEATS, MIN_SEATS, Rules
from pokerarena.engine.state import ORDERS, Hand, Street

_BOARD_AFTER: Final = (0, 3, 4, 5)
"""How many board cards lie on the table on each street."""

_STREETS: Final = tuple(Street)

_FOLD: Final = Kind.FOLD
_CHECK: Final = Kind.CHECK
_CALL: Final = Kind.CALL
_RIVER: Final = Street.RIVER

# Half the price of calling a NamedTuple's class, which adds up where every step makes several.
_new_tuple: Final = tuple.__new__
_DECK: Final = frozenset(range(DECK_SIZE))


class Transition(NamedTuple):
    """The hand after a step, and what happened in it, in order."""

    hand: Hand
    facts: tuple[Fact, ...]


def start(
    rules: Rules,
    seats: tuple[int, ...],
    stacks: tuple[int, ...],
    button_seat: int,
    deal: Deal,
) -> Transition:
    """Begin a hand: deal, post antes and blinds, and play on to the first decision, if there is one.

    `seats` are the numbers of the seats that play, ascending; `stacks` are parallel to them.
    """
    _check_start(seats, stacks, button_seat, deal)
    count = len(seats)
    button = seats.index(button_seat)
    # Heads-up the button itself posts the small blind.
    small = button if count == 2 else (button + 1) % count
    big = (small + 1) % count

    facts: list[Fact] = [
        _new_tuple(HoleCardsDealt, (seat, seat, cards))
        for seat, cards in zip(seats, deal.holes, strict=True)
    ]
    left = list(stacks)
    dead = 0
    ante = rules.ante
    if ante and rules.ante_kind == "each":
        for position in ORDERS[count][button]:
            chips = min(ante, left[position])
            left[position] -= chips
            facts.append(AntePosted(PUBLIC, seats[position], chips))
    bets = [0] * count
    bets[small] = chips = min(rules.small_blind, left[small])
    if chips:
        left[small] -= chips
        facts.append(_new_tuple(BlindPosted, (PUBLIC, seats[small], "small", chips)))
    bets[big] = chips = min(rules.big_blind, left[big])
    if chips:
        left[big] -= chips
        facts.append(_new_tuple(BlindPosted, (PUBLIC, seats[big], "big", chips)))
    if ante and rules.ante_kind == "big_blind":
        dead = min(ante, left[big])
        if dead:
            left[big] -= dead
            facts.append(AntePosted(PUBLIC, seats[big], dead))

    hand = Hand.__new__(Hand)
    hand.rules = rules
    hand.seats = seats
    hand.button_seat = button_seat
    hand.starting_stacks = stacks
    hand.street = Street.PREFLOP
    hand.board = ()
    hand.stacks = tuple(left)
    hand.bets = tuple(bets)
    hand.invested = tuple(map(sub, stacks, left))
    hand.folded = hand.all_in = (False,) * count
    if 0 in left:
        hand.all_in = tuple([chips == 0 for chips in left])
    hand.to_act = None
    hand.history = ()
    hand.tabled = ()
    hand.awards = ()
    hand._deal = deal
    hand._button = button
    hand._dead = dead
    hand._price = rules.big_blind
    hand._price_is_posted = bets[big] == rules.big_blind
    hand._full_raise = rules.big_blind
    hand._acted = 0
    hand._pending = ORDERS[count][big]
    hand._actors = ORDERS[count][-1]
    if 0 in left:
        hand._pending = tuple([position for position in hand._pending if left[position]])
        hand._actors = tuple(sorted(hand._pending))
    hand._legal = None
    _move_on(hand, facts)
    return _new_tuple(Transition, (hand, tuple(facts)))


def apply(hand: Hand, action: Action) -> Transition:
    """Take the action of the player to act; raises IllegalAction and changes nothing if it is not legal."""
    kind, amount = action
    legal = hand._legal or hand.legal()
    if kind not in legal.kinds:
        raise refused_kind(kind, legal)
    position = hand.to_act
    assert position is not None, "a complete hand has no legal kinds"

    new = Hand.__new__(Hand)
    new.rules = hand.rules
    new.seats = hand.seats
    new.button_seat = hand.button_seat
    new.starting_stacks = hand.starting_stacks
    new.street = street = hand.street
    new.board = hand.board
    new.tabled = ()
    new.awards = ()
    new._deal = hand._deal
    new._button = hand._button
    new._dead = hand._dead
    new._legal = None
    new._acted = hand._acted | 1 << position
    after = position + 1

    if kind == _FOLD or kind == _CHECK:
        amount = None
        new.stacks = hand.stacks
        new.bets = hand.bets
        new.invested = hand.invested
        new.all_in = hand.all_in
        new._price = hand._price
        new._price_is_posted = hand._price_is_posted
        new._full_raise = hand._full_raise
        new._pending = hand._pending[1:]
        if kind == _FOLD:
            folded = hand.folded
            new.folded = (*folded[:position], True, *folded[after:])
            new._actors = tuple([other for other in hand._actors if other != position])
        else:
            new.folded = hand.folded
            new._actors = hand._actors
    else:
        bets = hand.bets
        stacks = hand.stacks
        invested = hand.invested
        if kind == _CALL:
            added = legal.to_call
            amount = bets[position] + added
        else:
            least, most = legal.min_raise_to, legal.max_raise_to
            assert least is not None and most is not None, "a legal raise has its bounds"
            if type(amount) is not int or not least <= amount <= most:
                raise refused_amount(action, legal)
            added = amount - bets[position]
        stack = stacks[position] - added
        new.stacks = (*stacks[:position], stack, *stacks[after:])
        new.bets = (*bets[:position], amount, *bets[after:])
        new.invested = (*invested[:position], invested[position] + added, *invested[after:])
        new.folded = hand.folded
        if stack:
            new.all_in = hand.all_in
            actors = new._actors = hand._actors
        else:
            all_in = hand.all_in
            new.all_in = (*all_in[:position], True, *all_in[after:])
            actors = new._actors = tuple([other for other in hand._actors if other != position])
        if kind == _CALL:
            new._price = hand._price
            new._price_is_posted = hand._price_is_posted or amount >= hand._price
            new._full_raise = hand._full_raise
            new._pending = hand._pending[1:]
        else:
            # Unlike `price_for` this is the uncapped price: a raise is always beyond it.
            raised_by = amount - hand._price
            new._price = amount
            new._price_is_posted = True
            new._full_raise = max(hand._full_raise, raised_by)
            order = ORDERS[len(bets)][position]
            new._pending = tuple(
                [other for other in order if other != position and other in actors]
            )

    acted = _new_tuple(Acted, (PUBLIC, street, hand.seats[position], kind, amount))
    new.history = (*hand.history, acted)
    if new._pending and len(new._actors) > 1:
        # By far the most frequent case: the next player's turn.
        new.to_act = new._pending[0]
        return _new_tuple(Transition, (new, (acted,)))
    facts: list[Fact] = [acted]
    _move_on(new, facts)
    return _new_tuple(Transition, (new, tuple(facts)))


def replay(
    rules: Rules,
    seats: tuple[int, ...],
    stacks: tuple[int, ...],
    button_seat: int,
    holes: Sequence[tuple[int, int]],
    board: Sequence[int],
    actions: Iterable[Action],
) -> Iterator[Transition]:
    """Yield every transition of a stored hand: its start, then one for each action.

    `board` may hold only the cards that were dealt. A record that does not follow the rules raises
    IllegalAction, and one that lacks board cards ValueError, at the step where it goes wrong.
    """
    step = start(rules, seats, stacks, button_seat, Deal(tuple(holes), tuple(board)))
    yield step
    for action in actions:
        step = apply(step.hand, action)
        yield step


def _move_on(hand: Hand, facts: list[Fact]) -> None:
    """Bring a hand under construction to its next decision, or to its end."""
    if hand.folded.count(False) == 1:
        end_without_showdown(hand, facts)
        return
    pending = hand._pending
    lone = len(hand._actors) < 2
    if pending:
        first = pending[0]
        # A player whom nobody can answer is asked only if there is something to call.
        if not lone or hand.price_for(first) > hand.bets[first]:
            hand.to_act = first
            return
    if lone:
        return_uncalled(hand, facts)
        # TDA: hands are tabled as soon as someone is all-in and the betting is over.
        table_hands(hand, facts)
        while hand.street != _RIVER:
            _deal_street(hand, facts)
    elif hand.street != _RIVER:
        _deal_street(hand, facts)
        hand.bets = (0,) * len(hand.seats)
        hand._price = 0
        hand._price_is_posted = True
        hand._full_raise = hand.rules.big_blind
        hand._acted = 0
        actors = hand._actors
        hand._pending = pending = tuple(
            [other for other in ORDERS[len(hand.seats)][hand._button] if other in actors]
        )
        hand.to_act = pending[0]
        return
    else:
        table_hands(hand, facts)
    end_by_showdown(hand, facts)


def _deal_street(hand: Hand, facts: list[Fact]) -> None:
    street = _STREETS[hand.street + 1]
    dealt = len(hand.board)
    board = hand._deal.board[: _BOARD_AFTER[street]]
    if len(board) < _BOARD_AFTER[street]:
        raise ValueError(
            f"The {street.text} needs {_BOARD_AFTER[street]} board cards,"
            f" and the deal has only {len(board)}."
        )
    hand.street = street
    hand.board = board
    facts.append(_new_tuple(BoardDealt, (PUBLIC, street, board[dealt:])))


def _check_start(
    seats: tuple[int, ...], stacks: tuple[int, ...], button_seat: int, deal: Deal
) -> None:
    count = len(seats)
    if not MIN_SEATS <= count <= MAX_SEATS:
        raise ValueError(f"A hand has {MIN_SEATS} to {MAX_SEATS} players, not {count}.")
    if seats[0] < 1 or sorted(set(seats)) != list(seats):
        raise ValueError(f"Seats must be ascending numbers from 1, and they are {seats}.")
    if button_seat not in seats:
        raise ValueError(f"The button must be at one of the seats {seats}, not at {button_seat}.")
    if len(stacks) != count:
        raise ValueError(f"{count} seats need {count} stacks, not {len(stacks)}.")
    if min(stacks) < 1 or max(stacks) > MAX_CHIPS:
        raise ValueError(f"A stack is 1 to {MAX_CHIPS} chips, and the stacks are {stacks}.")
    holes, board = deal
    if len(holes) != count:
        raise ValueError(f"A deal for {count} players has {count} holdings, not {len(holes)}.")
    if len(board) > BOARD_CARDS:
        raise ValueError(f"A board has at most {BOARD_CARDS} cards, not {len(board)}.")
    cards = set(board)
    for first, second in holes:
        cards.add(first)
        cards.add(second)
    if len(cards) != 2 * count + len(board) or not cards <= _DECK:
        raise ValueError("The cards of a deal must be different cards of one deck.")
