"""How a hand begins and moves on: each function takes a hand and returns the next one with its facts.

Owns the order of play: posting, turns, the end of a street, the run-out, the showdown. It never
changes a hand it was given, and it reads no clock and no randomness: all cards are in the `Deal`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from pokerarena.engine.actions import Action, Kind, refused_amount, refused_kind
from pokerarena.engine.cards import DECK_SIZE
from pokerarena.engine.deal import BOARD_CARDS, Deal
from pokerarena.engine.facts import (
    PUBLIC,
    Acted,
    AntePosted,
    BlindPosted,
    BoardDealt,
    Fact,
    HandEnded,
    HandTabled,
    HoleCardsDealt,
    PotAwarded,
    UncalledReturned,
)
from pokerarena.engine.pots import build_pots, split, uncalled
from pokerarena.engine.ranking import rank_holdings
from pokerarena.engine.rules import MAX_CHIPS, MAX_SEATS, MIN_SEATS, Rules
from pokerarena.engine.state import Hand, Street

_BOARD_AFTER: Final = (0, 3, 4, 5)
"""How many board cards lie on the table on each street."""

_STREETS: Final = tuple(Street)

_FOLD: Final = Kind.FOLD
_CHECK: Final = Kind.CHECK
_CALL: Final = Kind.CALL
_RIVER: Final = Street.RIVER


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
        HoleCardsDealt(seat, seat, cards) for seat, cards in zip(seats, deal.holes, strict=True)
    ]
    left = list(stacks)
    bets = [0] * count
    dead = 0
    ante = rules.ante
    if ante and rules.ante_kind == "each":
        for position in (*range(button + 1, count), *range(button + 1)):
            chips = min(ante, left[position])
            left[position] -= chips
            facts.append(AntePosted(PUBLIC, seats[position], chips))
    for position, blind, owed in (
        (small, "small", rules.small_blind),
        (big, "big", rules.big_blind),
    ):
        chips = min(owed, left[position])
        if chips:
            left[position] -= chips
            bets[position] = chips
            facts.append(BlindPosted(PUBLIC, seats[position], blind, chips))
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
    hand.invested = tuple([before - now for before, now in zip(stacks, left, strict=True)])
    hand.folded = (False,) * count
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
    hand._actors = tuple([position for position in range(count) if left[position]])
    hand._pending = _in_turn(hand._actors, big)
    hand._legal = None
    _move_on(hand, facts)
    return Transition(hand, tuple(facts))


def apply(hand: Hand, action: Action) -> Transition:
    """Take the action of the player to act; raises IllegalAction and changes nothing if it is not legal."""
    kind, amount = action
    legal = hand.legal()
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
            new._pending = tuple(
                [other for other in actors if other > position]
                + [other for other in actors if other < position]
            )

    acted = Acted(PUBLIC, street, hand.seats[position], kind, amount)
    new.history = (*hand.history, acted)
    facts: list[Fact] = [acted]
    _move_on(new, facts)
    return Transition(new, tuple(facts))


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


def _in_turn(positions: tuple[int, ...], after: int) -> tuple[int, ...]:
    """Return ascending positions in the order of play that begins to the left of `after`."""
    return tuple(
        [position for position in positions if position > after]
        + [position for position in positions if position <= after]
    )


def _move_on(hand: Hand, facts: list[Fact]) -> None:
    """Bring a hand under construction to its next decision, or to its end."""
    if hand.folded.count(False) == 1:
        _return_uncalled(hand, facts)
        winner = hand.folded.index(False)
        chips = sum(hand.invested)
        seat = hand.seats[winner]
        _finish(hand, facts, (PotAwarded(PUBLIC, 0, chips, (seat,), (chips,)),))
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
        _return_uncalled(hand, facts)
        # TDA: hands are tabled as soon as someone is all-in and the betting is over.
        _table(hand, facts)
        while hand.street != _RIVER:
            _deal_street(hand, facts)
    elif hand.street != _RIVER:
        _deal_street(hand, facts)
        hand.bets = (0,) * len(hand.seats)
        hand._price = 0
        hand._price_is_posted = True
        hand._full_raise = hand.rules.big_blind
        hand._acted = 0
        hand._pending = _in_turn(hand._actors, hand._button)
        hand.to_act = hand._pending[0]
        return
    else:
        _table(hand, facts)
    _show_down(hand, facts)


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
    facts.append(BoardDealt(PUBLIC, street, board[dealt:]))


def _table(hand: Hand, facts: list[Fact]) -> None:
    holes = hand._deal.holes
    seats = hand.seats
    live = [position for position, out in enumerate(hand.folded) if not out]
    in_order = _in_turn(tuple(live), hand._button)
    hand.tabled = tuple([seats[position] for position in in_order])
    for position in in_order:
        facts.append(HandTabled(PUBLIC, seats[position], holes[position]))


def _contributed(hand: Hand) -> tuple[int, ...]:
    """Return what each player put in that counts towards a share of the pots."""
    dead = hand._dead
    if not dead:
        return hand.invested
    count = len(hand.seats)
    big = (hand._button + (1 if count == 2 else 2)) % count
    contributed = list(hand.invested)
    contributed[big] -= dead
    return tuple(contributed)


def _return_uncalled(hand: Hand, facts: list[Fact]) -> None:
    position, chips = uncalled(_contributed(hand))
    if not chips:
        return
    after = position + 1
    stacks, invested, all_in = hand.stacks, hand.invested, hand.all_in
    hand.stacks = (*stacks[:position], stacks[position] + chips, *stacks[after:])
    hand.invested = (*invested[:position], invested[position] - chips, *invested[after:])
    hand.all_in = (*all_in[:position], False, *all_in[after:])
    facts.append(UncalledReturned(PUBLIC, hand.seats[position], chips))


def _show_down(hand: Hand, facts: list[Fact]) -> None:
    folded = hand.folded
    holes = hand._deal.holes
    live = [position for position, out in enumerate(folded) if not out]
    strengths = [0] * len(folded)
    ranked = rank_holdings(hand.board, [holes[position] for position in live])
    for position, strength in zip(live, ranked, strict=True):
        strengths[position] = strength
    seats = hand.seats
    awards = []
    for number, pot in enumerate(build_pots(_contributed(hand), folded, hand._dead)):
        winners, shares = split(pot, strengths, hand._button, len(seats))
        winning_seats = tuple([seats[position] for position in winners])
        awards.append(PotAwarded(PUBLIC, number, pot.chips, winning_seats, shares))
    _finish(hand, facts, tuple(awards))


def _finish(hand: Hand, facts: list[Fact], awards: tuple[PotAwarded, ...]) -> None:
    stacks = list(hand.stacks)
    for award in awards:
        for seat, share in zip(award.seats, award.shares, strict=True):
            stacks[hand.seats.index(seat)] += share
    hand.stacks = tuple(stacks)
    hand.bets = (0,) * len(stacks)
    hand.awards = awards
    hand.to_act = None
    hand._pending = ()
    facts.extend(awards)
    facts.append(HandEnded(PUBLIC, hand.seats, hand.stacks, hand.net()))


def _check_start(
    seats: tuple[int, ...], stacks: tuple[int, ...], button_seat: int, deal: Deal
) -> None:
    count = len(seats)
    if not MIN_SEATS <= count <= MAX_SEATS:
        raise ValueError(f"A hand has {MIN_SEATS} to {MAX_SEATS} players, not {count}.")
    if seats[0] < 1 or any(left >= right for left, right in pairwise(seats)):
        raise ValueError(f"Seats must be ascending numbers from 1, and they are {seats}.")
    if button_seat not in seats:
        raise ValueError(f"The button must be at one of the seats {seats}, not at {button_seat}.")
    if len(stacks) != count:
        raise ValueError(f"{count} seats need {count} stacks, not {len(stacks)}.")
    if min(stacks) < 1 or max(stacks) > MAX_CHIPS:
        raise ValueError(f"A stack is 1 to {MAX_CHIPS} chips, and the stacks are {stacks}.")
    cards = list(deal.board)
    for holding in deal.holes:
        cards += holding
    if len(deal.holes) != count or len(cards) != 2 * count + len(deal.board):
        raise ValueError(f"A deal for {count} players has two cards for each of them.")
    if len(deal.board) > BOARD_CARDS:
        raise ValueError(f"A board has at most {BOARD_CARDS} cards, not {len(deal.board)}.")
    if len(set(cards)) != len(cards) or min(cards) < 0 or max(cards) >= DECK_SIZE:
        raise ValueError("The cards of a deal must be different cards of one deck.")
