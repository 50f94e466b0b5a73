"""Hands per second of our rules engine, PokerKit and RLCard, in one run and under one policy.

Every engine deals its own cards and offers the same five choices (fold when there is something to
call, check or call, raise by half the pot, by the pot, all-in; only the legal ones), and a choice is
taken at random. Nobody folds for free, because PokerKit does not let them by default. Ours deals from
a seed and also makes the view that an agent would get, once a decision, because RLCard makes its
observation too. The engines take turns, so that a busy machine is as unfair to one as to another.

Run it with `python -m bench.engine`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from random import Random
from statistics import median
from time import perf_counter
from typing import NamedTuple

import rlcard
from pokerkit import Automation, NoLimitTexasHoldem

from pokerarena.engine.actions import CALL, CHECK, FOLD, Action
from pokerarena.engine.deal import deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see

SMALL_BLIND, BIG_BLIND, STACK = 1, 2, 100
ROUNDS = 5
AT_LEAST = {"PokerKit": 20.0, "RLCard": 3.0}

RLCARD_FOLD = 0

Play = Callable[[int], int]
"""Plays that many hands and returns how many decisions they took."""


class Measure(NamedTuple):
    """Speeds of one engine."""

    hands_per_s: float
    decisions_per_hand: float


def ours(player_count: int, random: Random) -> Play:
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
                view = see(hand, viewers[position])
                _kinds, to_call, least, most = view.legal
                choices = [0, -1] if to_call else [0]
                if least is not None and most is not None:
                    bet, pot = view.bets[position], view.pot
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
                    action = Action(view.legal.kinds[-1], choice)
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


ENGINES = {"pokerarena": ours, "PokerKit": pokerkit, "RLCard": rlcard_holdem}


def measure(player_count: int, seconds: float) -> dict[str, Measure]:
    """Return the median speed of each engine over rounds taken in turn."""
    random = Random(player_count)
    plays = {name: make(player_count, random) for name, make in ENGINES.items()}
    batches = {}
    for name, play in plays.items():
        play(20)
        begun = perf_counter()
        play(20)
        batches[name] = max(20, int(20 * seconds / ROUNDS / (perf_counter() - begun)))
    speeds: dict[str, list[Measure]] = {name: [] for name in plays}
    for _ in range(ROUNDS):
        for name, play in plays.items():
            begun = perf_counter()
            decisions = play(batches[name])
            took = perf_counter() - begun
            speeds[name].append(Measure(batches[name] / took, decisions / batches[name]))
    return {name: Measure(*map(median, zip(*of, strict=True))) for name, of in speeds.items()}


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
        measures = measure(player_count, seconds)
        fastest = measures["pokerarena"].hands_per_s
        for name, (hands_per_s, decisions) in measures.items():
            line = f"{name:<12}{player_count:>6}{hands_per_s:>12,.0f}{decisions:>16.1f}"
            if name in AT_LEAST:
                ratio = fastest / hands_per_s
                reached = reached and ratio >= AT_LEAST[name]
                line += f"{ratio:>9.1f}x{AT_LEAST[name]:>9.0f}x"
            print(line)
    print("reached" if reached else "NOT reached")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
