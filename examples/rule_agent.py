#!/usr/bin/env python3
"""A poker agent made of rules: the first one that fits decides, and says so in a note.

    python3 examples/rule_agent.py --port 9002

Each answer carries the name of its rule as a `note`. The arena shows notes to the agent's owner
next to every action of a replay, so one can read why the agent did what it did. The rules see a
`Spot`: a few things a player would notice at a glance. Change the list and play again.

HTTP and signatures are in python_http_agent.py, next to this file.
"""

from collections import Counter
from dataclasses import dataclass

import python_http_agent as basics
from python_http_agent import RANKS, arguments, check_or_call, check_or_fold, serve

# --- What we notice ----------------------------------------------------------------------------


@dataclass
class Spot:
    """The situation, in a player's words."""

    turn: dict
    preflop: bool
    late: bool  # we act among the last
    opponents: int  # still in the hand
    raises: int  # bets and raises on this street so far
    cheap: bool  # staying in costs little for what there is to win
    premium: bool  # before the flop: aces to jacks, ace-king
    playable: bool  # before the flop: pairs, high cards, suited neighbours
    made: str  # after the flop: "nothing", "weak pair", "good pair", "strong"
    draw: bool  # after the flop: four cards to a flush or to an open straight


def look(turn):
    ranks = sorted((RANKS.index(card[0]) for card in turn["hole_cards"]), reverse=True)
    suited = turn["hole_cards"][0][1] == turn["hole_cards"][1][1]
    pair, gap = ranks[0] == ranks[1], ranks[0] - ranks[1]
    seats = sorted(int(seat) for seat in turn["stacks"])
    button = seats.index(turn["button_seat"])
    order = seats[button + 1 :] + seats[: button + 1]  # who acts when after the flop
    street_actions = [entry for entry in turn["history"] if entry["street"] == turn["street"]]
    return Spot(
        turn=turn,
        preflop=turn["street"] == "preflop",
        late=order.index(turn["seat"]) >= len(order) - 2,
        opponents=len(seats) - len(turn["folded"]) - 1,
        raises=sum(entry["action"] in ("bet", "raise") for entry in street_actions),
        cheap=turn["to_call"] * 5 <= turn["pot"],
        premium=(pair and ranks[0] >= RANKS.index("J")) or ranks == [12, 11],
        playable=pair or ranks[1] >= RANKS.index("T") or (suited and (gap == 1 or ranks[0] == 12)),
        made=made_hand(turn, ranks),
        draw=has_draw(turn),
    )


def made_hand(turn, mine):
    board = sorted((RANKS.index(card[0]) for card in turn["board"]), reverse=True)
    if not board:
        return "nothing"
    counts = Counter(board + mine)
    hits = [rank for rank in set(mine) if counts[rank] >= 2]
    if flush_cards(turn) >= 5 or straight_cards(turn) >= 5:
        return "strong"
    if any(counts[rank] >= 3 for rank in hits) or len(hits) == 2:
        return "strong"
    if hits:
        return "good pair" if hits[0] >= board[0] else "weak pair"
    return "nothing"


def has_draw(turn):
    if len(turn["board"]) not in (3, 4):
        return False
    return flush_cards(turn) == 4 or straight_cards(turn) == 4


def flush_cards(turn):
    """Cards of the commonest suit, if at least one of them is ours."""
    suits = Counter(card[1] for card in turn["hole_cards"] + turn["board"])
    suit, count = suits.most_common(1)[0]
    return count if any(card[1] == suit for card in turn["hole_cards"]) else 0


def straight_cards(turn):
    """The longest run of neighbouring ranks; the ace counts at both ends."""
    ranks = {RANKS.index(card[0]) for card in turn["hole_cards"] + turn["board"]}
    if 12 in ranks:
        ranks.add(-1)
    longest = run = 0
    for rank in range(-1, 13):
        run = run + 1 if rank in ranks else 0
        longest = max(longest, run)
    return longest


# --- The rules ---------------------------------------------------------------------------------


def bet(share_of_pot):
    return lambda turn: basics.bet(turn, share_of_pot)


RULES = [
    # name, when it fits, what to do
    ("premium hand: raise", lambda s: s.preflop and s.premium and s.raises < 3, bet(1.0)),
    ("premium hand: stay in", lambda s: s.preflop and s.premium, check_or_call),
    ("open from late position", lambda s: s.preflop and s.playable and s.late and s.raises == 0,
     bet(0.75)),
    ("cheap look at the flop", lambda s: s.preflop and s.playable and s.cheap, check_or_call),
    ("call one raise", lambda s: s.preflop and s.playable and s.raises <= 1, check_or_call),
    ("strong hand: bet", lambda s: s.made == "strong" and s.raises < 3, bet(0.8)),
    ("strong hand: call", lambda s: s.made == "strong", check_or_call),
    ("good pair: bet", lambda s: s.made == "good pair" and s.raises == 0, bet(0.5)),
    ("good pair: call", lambda s: s.made == "good pair" and s.raises <= 2, check_or_call),
    ("draw: bet when last", lambda s: s.draw and s.late and s.raises == 0, bet(0.5)),
    ("draw: call when cheap", lambda s: s.draw and s.cheap, check_or_call),
    ("weak pair: call when cheap", lambda s: s.made == "weak pair" and s.cheap, check_or_call),
    ("one opponent, nobody bet: try it", lambda s: not s.preflop and s.late and s.opponents == 1
     and s.raises == 0, bet(0.5)),
    ("nothing to play for", lambda s: True, check_or_fold),
]  # fmt: skip


def decide(turn):
    spot = look(turn)
    name, act = next((name, act) for name, fits, act in RULES if fits(spot))
    return {**act(turn), "note": name}


if __name__ == "__main__":
    options = arguments(__doc__.splitlines()[0]).parse_args()
    serve(decide, options.host, options.port, options.secret, options.think_ms)
