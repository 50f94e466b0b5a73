"""A rule-based agent: tight before the flop, bets what it made, folds to strength.

It decides from its view alone, so that the order in which parallel hands ask changes nothing.
"""

from pokerarena_sdk import run

RANKS = "23456789TJQKA"


def rank(card):
    return RANKS.index(card[0])


def preflop_strength(cards):
    """Chen's formula, roughly: 20 for a pair of aces, below 0 for the worst."""
    high, low = sorted((rank(card) for card in cards), reverse=True)
    points = {12: 10, 11: 8, 10: 7, 9: 6}.get(high, (high + 2) / 2)
    if high == low:
        return max(5, points * 2)
    gap = high - low - 1
    points -= {0: 0, 1: 1, 2: 2, 3: 4}.get(gap, 5)
    if gap <= 1 and high < RANKS.index("Q"):
        points += 1
    return points + (2 if cards[0][1] == cards[1][1] else 0)


def made_hand(view):
    """0 nothing, 1 a weak pair or draw, 2 top pair or better, 3 two pair or better."""
    board = [rank(card) for card in view.board]
    mine = [rank(card) for card in view.hole_cards]
    paired = [r for r in set(mine) if r in board]
    if mine[0] == mine[1]:
        if mine[0] in board:
            return 3
        return 2 if mine[0] > max(board) else 1
    if len(paired) == 2 or any(board.count(r) >= 2 for r in paired):
        return 3
    suits = [card[1] for card in view.board + view.hole_cards]
    best = max(suits.count(card[1]) for card in view.hole_cards)
    if best >= 5:
        return 3
    if paired:
        return 2 if paired[0] == max(board) else 1
    return 1 if best == 4 and len(view.board) < 5 else 0


def before_the_flop(view):
    strength = preflop_strength(view.hole_cards)
    raises = sum(entry.action == "raise" for entry in view.history)
    if strength >= 10 or (strength >= 8 and raises == 0):
        return view.raise_pot(1.0) if raises < 3 else view.check_or_call()
    if strength >= 5 and view.to_call <= 3 * view.big_blind:
        return view.check_or_call()
    return view.check_or_fold()


def act(view):
    if view.street == "preflop":
        return before_the_flop(view)
    hand = made_hand(view)
    if hand == 3:
        return view.raise_pot(0.75)
    if hand == 2:
        return view.raise_pot(0.5) if view.to_call == 0 else view.check_or_call()
    if hand == 1 and view.pot_odds <= 0.25:
        return view.check_or_call()
    return view.check_or_fold()


if __name__ == "__main__":
    run(act)
