"""Equity by simulation, vectorized with NumPy: how often do I win against random hands?

The random numbers of a decision come from its `decision_id`: the same question gets the same
answer, whatever was asked before it.
"""

import zlib

import numpy as np

from pokerarena_sdk import run

RANKS, SUITS = "23456789TJQKA", "cdhs"
SAMPLES = 400
PAIR, TWO_PAIR, TRIPS, STRAIGHT, FLUSH, FULL_HOUSE, QUADS, STRAIGHT_FLUSH = range(1, 9)
POWERS = 13 ** np.arange(4, -1, -1)


def number(card):
    return RANKS.index(card[0]) * 4 + SUITS.index(card[1])


def straight_high(present):
    """The top rank of the best straight in each row of a (rows, 13) table; -1 where there is none."""
    with_low_ace = np.concatenate([present[:, 12:], present], axis=1)
    best = np.full(len(present), -1)
    for low in range(10):
        best[with_low_ace[:, low : low + 5].all(axis=1)] = low + 3
    return best


def five_best(ranks, importance):
    """The ranks of the five cards that count, the most important first, as one number."""
    order = np.argsort(-(importance * 16 + ranks), axis=1)[:, :5]
    return np.take_along_axis(ranks, order, axis=1) @ POWERS


def scores(cards):
    """A number for each row of seven cards; the better hand has the higher one."""
    rows = np.arange(len(cards))
    ranks, suits = cards // 4, cards % 4
    counts = np.zeros((len(cards), 13), dtype=np.int64)
    np.add.at(counts, (rows[:, None], ranks), 1)
    by_suit = np.stack([(suits == suit).sum(axis=1) for suit in range(4)], axis=1)
    flush_suit = np.where(by_suit.max(axis=1) >= 5, by_suit.argmax(axis=1), -1)
    in_flush = (suits == flush_suit[:, None]).astype(np.int64)
    flush_counts = np.zeros_like(counts)
    np.add.at(flush_counts, (rows[:, None], ranks), in_flush)
    straight, straight_flush = straight_high(counts > 0), straight_high(flush_counts > 0)
    ordered = np.sort(counts, axis=1)[:, ::-1]
    most, second, third = ordered[:, 0], ordered[:, 1], ordered[:, 2]

    category = np.zeros(len(cards), dtype=np.int64)
    category[most == 2] = PAIR
    category[(most == 2) & (second == 2)] = TWO_PAIR
    category[most == 3] = TRIPS
    category[straight >= 0] = STRAIGHT
    category[flush_suit >= 0] = FLUSH
    category[(most == 3) & (second >= 2)] = FULL_HOUSE
    category[most == 4] = QUADS
    category[straight_flush >= 0] = STRAIGHT_FLUSH

    # Beside four of a kind, and beside two of three pairs, only the height of a card counts.
    quads = category == QUADS
    counts[quads] = np.where(counts[quads] == 4, 4, np.minimum(counts[quads], 1))
    three_pairs = np.flatnonzero((category == TWO_PAIR) & (third == 2))
    counts[three_pairs, (counts[three_pairs] == 2).argmax(axis=1)] = 1

    detail = five_best(ranks, np.take_along_axis(counts, ranks, axis=1))
    detail = np.where(category == FLUSH, five_best(ranks, in_flush), detail)
    detail = np.where(category == STRAIGHT, straight, detail)
    detail = np.where(category == STRAIGHT_FLUSH, straight_flush, detail)
    return category * 13**5 + detail


def equity(hole, board, opponents, seed):
    """The share of the pot that is mine on average, against this many random hands."""
    generator = np.random.default_rng(seed)
    known = [number(card) for card in hole + board]
    rest = np.setdiff1d(np.arange(52), known)
    missing = 5 - len(board)
    shuffled = generator.random((SAMPLES, len(rest))).argsort(axis=1)
    drawn = rest[shuffled[:, : missing + 2 * opponents]]
    shared = np.concatenate(
        [np.tile([number(card) for card in board], (SAMPLES, 1)), drawn[:, :missing]], axis=1
    ).astype(np.int64)
    mine = scores(
        np.concatenate([np.tile(known[:2], (SAMPLES, 1)), shared], axis=1).astype(np.int64)
    )
    won = np.ones(SAMPLES)
    for one in range(opponents):
        at = missing + 2 * one
        theirs = scores(np.concatenate([drawn[:, at : at + 2], shared], axis=1).astype(np.int64))
        won = np.where(theirs > mine, 0.0, np.where(theirs == mine, won / 2, won))
    return float(won.mean())


def act(view):
    seed = zlib.crc32(view.decision_id.encode())
    share = equity(list(view.hole_cards), list(view.board), max(1, len(view.opponents)), seed)
    fair = 1 / (len(view.opponents) + 1)
    if share > fair + 0.25:
        return view.raise_pot(0.75)
    if view.to_call == 0:
        return view.raise_pot(0.5) if share > fair + 0.1 else view.check()
    return view.call() if share > view.pot_odds + 0.03 else view.check_or_fold()


if __name__ == "__main__":
    run(act)
