"""Hands per second of our rules engine, PokerKit and RLCard, in one run and under one policy.

Every engine deals its own cards and offers the same five choices (fold when there is something to
call, check or call, raise by half the pot, by the pot, all-in; only the legal ones), and a choice is
taken at random. Nobody folds for free, because PokerKit does not let them by default. Ours deals
from a seed, as in a run. RLCard makes an observation at every decision, so it is compared with ours
making the view an agent would get; PokerKit makes none.

The engines take turns in short rounds and are compared round by round, by the processor time they
took, so that a busy machine is as unfair to one as to another.

Run it with `python -m bench.engine`.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import median
from time import process_time
from typing import NamedTuple

import rlcard
from pokerkit import Automation, NoLimitTexasHoldem

from pokerarena.engine.actions import CALL, CHECK, FOLD, Action
from pokerarena.engine.deal import deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see

SMALL_BLIND, BIG_BLIND, STACK = 1, 2, 100
ROUNDS = 20
WARM_UP_S = 0.5
OURS, OURS_WITH_VIEWS = "pokerarena", "with views"


class Peer(NamedTuple):
    """Whom we are compared with: which of our two ways does the same work, and how much faster."""

    compared_with: str
    at_least: float


PEERS = {"PokerKit": Peer(OURS, 20.0), "RLCard": Peer(OURS_WITH_VIEWS, 3.0)}

RLCARD_FOLD = 0

Play = Callable[[int], int]
"""Plays that many hands and returns how many decisions they took."""


class Measure(NamedTuple):
    """Speeds of one engine."""

    hands_per_s: float
    decisions_per_hand: float


def ours(player_count: int, random: Random, *, with_views: bool = False) -> Play:
    rules = Rules(SMALL_BLIND, BIG_BLIND)
    seats = tuple(range(1, player_count + 1))
    stacks = (STACK,) * player_count
    viewers = [Viewer.of_seats({seat}) for seat in seats]
    seed = random.randbytes(32)
    run_id = random.randbytes(16)
    played = 0

    def play(hands: int) -> int:
        nonlocal played
        decisions = 0
        for deal_no in range(played, played + hands):
            button = deal_no % player_count
            deal = deal_cards(seed, run_id, deal_no, player_count, button)
            hand = start(rules, seats, stacks, seats[button], deal).hand
            while (position := hand.to_act) is not None:
                decisions += 1
                if with_views:
                    see(hand, viewers[position])
                kinds, to_call, least, most = hand.legal()
                choices = [0, -1] if to_call else [0]
                if least is not None and most is not None:
                    bet, pot = hand.bets[position], hand.pot
                    if least <= bet + pot // 2 <= most:
                        choices.append(bet + pot // 2)
                    if least <= bet + pot <= most:
                        choices.append(bet + pot)
                    choices.append(most)
                choice = choices[int(random.random() * len(choices))]
                if choice == -1:
                    action = FOLD
                elif choice == 0:
                    action = CALL if to_call else CHECK
                else:
                    action = Action(kinds[-1], choice)
                hand = apply(hand, action).hand
        played += hands
        return decisions

    return play


def pokerkit(player_count: int, random: Random) -> Play:
    automations = tuple(Automation)
    stacks = (STACK,) * player_count
    chips = STACK * player_count

    def play(hands: int) -> int:
        decisions = 0
        for _ in range(hands):
            state = NoLimitTexasHoldem.create_state(
                automations,
                True,
                0,
                (SMALL_BLIND, BIG_BLIND),
                BIG_BLIND,
                stacks,
                player_count,
            )
            while (player := state.actor_index) is not None:
                decisions += 1
                choices = [0, -1] if state.checking_or_calling_amount else [0]
                least = state.min_completion_betting_or_raising_to_amount
                most = state.max_completion_betting_or_raising_to_amount
                if least is not None and most is not None:
                    bet, pot = state.bets[player], chips - sum(state.stacks)
                    if least <= bet + pot // 2 <= most:
                        choices.append(bet + pot // 2)
                    if least <= bet + pot <= most:
                        choices.append(bet + pot)
                    choices.append(most)
                choice = choices[int(random.random() * len(choices))]
                if choice == -1:
                    state.fold()
                elif choice == 0:
                    state.check_or_call()
                else:
                    state.complete_bet_or_raise_to(choice)
        return decisions

    return play


def rlcard_holdem(player_count: int, random: Random) -> Play:
    environment = rlcard.make(
        "no-limit-holdem",
        config={
            "seed": random.randrange(2**31),
            "game_num_players": player_count,
            "chips_for_each": STACK,
        },
    )

    def play(hands: int) -> int:
        decisions = 0
        for _ in range(hands):
            state, _player = environment.reset()
            while not environment.is_over():
                decisions += 1
                choices = list(state["legal_actions"])
                raw = state["raw_obs"]
                if raw["my_chips"] == max(raw["all_chips"]):
                    choices.remove(RLCARD_FOLD)
                state, _player = environment.step(choices[int(random.random() * len(choices))])
            environment.get_payoffs()
        return decisions

    return play


ENGINES: dict[str, Callable[[int, Random], Play]] = {
    OURS: ours,
    OURS_WITH_VIEWS: partial(ours, with_views=True),
    "PokerKit": pokerkit,
    "RLCard": rlcard_holdem,
}


def measure(player_count: int, seconds: float) -> dict[str, list[Measure]]:
    """Return the speeds of each engine in every round; the engines take turns."""
    random = Random(player_count)
    plays = {name: make(player_count, random) for name, make in ENGINES.items()}
    # What the imports left on the heap is nobody's garbage, and is not to be searched for any.
    gc.collect()
    gc.freeze()
    batches = {}
    for name, play in plays.items():
        hands, begun = 0, process_time()
        while process_time() - begun < WARM_UP_S:
            play(10)
            hands += 10
        batches[name] = max(1, int(hands / WARM_UP_S * seconds / ROUNDS))
    rounds: dict[str, list[Measure]] = {name: [] for name in plays}
    for _ in range(ROUNDS):
        for name, play in plays.items():
            begun = process_time()
            decisions = play(batches[name])
            took = process_time() - begun
            rounds[name].append(Measure(batches[name] / took, decisions / batches[name]))
    return rounds


def typical(rounds: list[Measure]) -> Measure:
    """Return the medians over rounds."""
    return Measure(*map(median, zip(*rounds, strict=True)))


def ratio(ours_: list[Measure], theirs: list[Measure]) -> float:
    """Return how many times faster ours is: the median over rounds, each a pair side by side."""
    return median(
        mine.hands_per_s / other.hands_per_s for mine, other in zip(ours_, theirs, strict=True)
    )


def main() -> int:
    """Print the speeds and ratios; return 1 if a ratio is below what we promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="seconds for each engine and table"
    )
    seconds = parser.parse_args().seconds
    reached = True
    print(
        f"{'engine':<12}{'seats':>6}{'hands/s':>12}{'decisions/hand':>16}{'ours is':>10}{'at least':>10}"
    )
    for player_count in (2, 6):
        rounds = measure(player_count, seconds)
        for name, of in rounds.items():
            hands_per_s, decisions = typical(of)
            line = f"{name:<12}{player_count:>6}{hands_per_s:>12,.0f}{decisions:>16.1f}"
            if name in PEERS:
                compared_with, at_least = PEERS[name]
                faster = ratio(rounds[compared_with], of)
                reached = reached and faster >= at_least
                line += f"{faster:>9.1f}x{at_least:>9.0f}x"
            print(line)
    print("reached" if reached else "NOT reached")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
