"""Random hands for tests: every moment of a hand played with arbitrary legal actions."""

from collections.abc import Iterator
from random import Random

from pokerarena.engine.actions import Action, Kind, LegalActions
from pokerarena.engine.deal import deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see
from pokerarena.protocol.messages import Callback, callback_from_view

SEED = bytes(range(32))


def random_action(random: Random, legal: LegalActions) -> Action:
    # Folding is rare, so that hands reach the river often.
    kinds = [kind for kind in legal.kinds if kind is not Kind.FOLD] or [Kind.FOLD]
    kind = Kind.FOLD if random.random() < 0.12 else random.choice(kinds)
    if kind in (Kind.BET, Kind.RAISE):
        least, most = legal.min_raise_to, legal.max_raise_to
        return Action(kind, random.choice([least, most, random.randint(least, most)]))
    return Action(kind)


def new_hand(number: int, seat_count: int | None = None, stack: int | None = None) -> Hand:
    random = Random(number)
    seat_count = seat_count or random.randint(2, 10)
    seats = tuple(sorted(random.sample(range(1, 11), seat_count)))
    stacks = tuple(stack or random.choice([30, 250, 1_000, 10_000]) for _ in seats)
    rules = Rules(50, 100, random.choice([0, 0, 10]), random.choice(["each", "big_blind"]))
    button = random.randrange(seat_count)
    deal = deal_cards(SEED, b"test", number, seat_count, button)
    return start(rules, seats, stacks, seats[button], deal).hand


def moments(number: int) -> Iterator[Hand]:
    """Every moment of random hand `number`, the complete one last."""
    random = Random(number)
    hand = new_hand(number)
    yield hand
    while not hand.complete:
        hand = apply(hand, random_action(random, hand.legal())).hand
        yield hand


def callback_of(hand: Hand, action_deadline_ms: int = 2_000, hand_no: int = 1) -> Callback:
    """The question to whoever is to act in `hand`."""
    return callback_from_view(
        see(hand, Viewer.of_seats([hand.seat_to_act])),
        run_id="run_1",
        table_id="tbl_1",
        hand_id=f"hand_{hand_no}",
        hand_no=hand_no,
        action_deadline_ms=action_deadline_ms,
    )


def a_callback(number: int = 1, **changes: int) -> Callback:
    return callback_of(new_hand(number, stack=10_000), **changes)
