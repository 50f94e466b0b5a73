"""Random hands for the tests of the engine: stakes, stacks, deals and actions from a seeded source.

Stacks are small and unequal on purpose, so that short all-ins, side pots and short blinds are
common rather than rare.
"""

from __future__ import annotations

import os
from random import Random
from typing import NamedTuple

from pokerarena.engine.actions import Action, Kind, LegalActions
from pokerarena.engine.deal import Deal, deal_from_deck
from pokerarena.engine.rules import Rules

SCALE = float(os.environ.get("POKERARENA_TEST_SCALE", "1"))
"""Multiplies how many random hands the tests play."""


def scaled(hands: int) -> int:
    """Return how many random hands to play."""
    return max(1, int(hands * SCALE))


class Table(NamedTuple):
    """All that a hand is started from."""

    rules: Rules
    seats: tuple[int, ...]
    stacks: tuple[int, ...]
    button_seat: int
    deal: Deal

    @property
    def button(self) -> int:
        return self.seats.index(self.button_seat)


def random_table(random: Random, most_players: int = 10) -> Table:
    """Return a table with two to `most_players` players; few players are likelier than many."""
    players = range(2, most_players + 1)
    count = random.choices(players, [1 / (players_ + 1) for players_ in players])[0]
    small, big = random.choice(((1, 2), (1, 2), (5, 10), (3, 7), (10, 10), (25, 50)))
    ante = random.choice((0, 0, 0, 1, big // 2, big, 2 * big))
    rules = Rules(small, big, ante, random.choice(("each", "big_blind")))
    stacks = []
    for _ in range(count):
        depth = random.choice((1, 3, 3, 6, 6, 12, 40, 100))
        stacks.append(random.randint(1 if depth == 1 else big // 2, depth * big))
    seats = tuple(sorted(random.sample(range(1, 11), count)))
    cards = tuple(random.sample(range(52), 2 * count + 5))
    button = random.randrange(count)
    return Table(rules, seats, tuple(stacks), seats[button], deal_from_deck(cards, count, button))


def random_action(random: Random, legal: LegalActions) -> Action:
    """Return a legal action: folds are rare, and amounts tend to the least, the most, or small."""
    kinds = legal.kinds
    kind = kinds[0] if random.random() < 0.12 else random.choice(kinds[1:] or kinds)
    least, most = legal.min_raise_to, legal.max_raise_to
    if kind not in {Kind.BET, Kind.RAISE} or least is None or most is None:
        return Action(kind)
    chance = random.random()
    if chance < 0.35:
        return Action(kind, least)
    if chance < 0.5:
        return Action(kind, most)
    if chance < 0.8:
        return Action(kind, random.randint(least, min(most, 3 * least)))
    return Action(kind, random.randint(least, most))


def describe(table: Table, history: object) -> str:
    """Say everything needed to play a failing hand again."""
    return f"{table}\nhistory: {history}"
