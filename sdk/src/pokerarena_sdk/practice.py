"""Practice positions: a first look at what an agent does, with every mistake explained.

Owns a dozen situations that cover each street, each legal set and the edges of the amounts. They
are examples, not a game: the arena's own check plays whole hands.
"""

from __future__ import annotations

import json
import sys
import time

from pokerarena_sdk.hosted import decide
from pokerarena_sdk.view import View, mistakes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def _position(
    name: str,
    hole: str,
    board: str,
    stacks: dict[str, int],
    bets: dict[str, int],
    pot: int,
    to_call: int,
    raises: tuple[Any, Any],
    legal: str,
    folded: tuple[int, ...] = (),
    all_in: tuple[int, ...] = (),
    history: tuple[tuple[str, int, str, Any], ...] = (),
) -> dict[str, Any]:
    cards = board.split()
    return {
        "type": "callback",
        "protocol_version": 1,
        "decision_id": f"practice-{name.replace(' ', '-')}",
        "run_id": "run_practice",
        "table_id": "table_practice",
        "hand_id": "hand_practice",
        "hand_no": 1,
        "seat": 1,
        "button_seat": 1,
        "small_blind": 50,
        "big_blind": 100,
        "ante": 0,
        "street": {0: "preflop", 3: "flop", 4: "turn", 5: "river"}[len(cards)],
        "hole_cards": hole.split(),
        "board": cards,
        "pot": pot,
        "to_call": to_call,
        "min_raise_to": raises[0],
        "max_raise_to": raises[1],
        "stacks": stacks,
        "bets": bets,
        "folded": list(folded),
        "all_in": list(all_in),
        "legal_actions": legal.split(),
        "history": [
            {"street": street, "seat": seat, "action": action, "amount": amount}
            for street, seat, action, amount in history
        ],
        "action_deadline_ms": 2000,
    }


def positions() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and callback of every practice position."""
    deep = {"1": 9950, "2": 9900}
    post = {"1": 9900, "2": 9900}
    blinds = {"1": 50, "2": 100}
    none = {"1": 0, "2": 0}
    limped = (("preflop", 1, "call", 100), ("preflop", 2, "check", None))
    for name, rest in (
        (
            "aces first to act",
            ("As Ah", "", deep, blinds, 150, 50, (200, 10000), "fold call raise"),
        ),
        ("seven deuce", ("7c 2d", "", deep, blinds, 150, 50, (200, 10000), "fold call raise")),
        (
            "facing a big raise",
            (
                "Kd Qd",
                "",
                {"1": 9900, "2": 8500},
                {"1": 100, "2": 1500},
                1600,
                1400,
                (2900, 10000),
                "fold call raise",
                (),
                (),
                (("preflop", 1, "call", 100), ("preflop", 2, "raise", 1500)),
            ),
        ),
        (
            "facing all-in",
            (
                "Tc Td",
                "",
                {"1": 9900, "2": 0},
                {"1": 100, "2": 10000},
                10100,
                9900,
                (None, None),
                "fold call",
                (),
                (2,),
                (("preflop", 1, "call", 100), ("preflop", 2, "raise", 10000)),
            ),
        ),
        (
            "short stack",
            ("Ad 4c", "", {"1": 120, "2": 9900}, blinds, 150, 50, (170, 170), "fold call raise"),
        ),
        (
            "call takes all",
            (
                "9h 8h",
                "",
                {"1": 300, "2": 8000},
                {"1": 100, "2": 2000},
                2100,
                300,
                (None, None),
                "fold call",
                (),
                (),
                (("preflop", 1, "call", 100), ("preflop", 2, "raise", 2000)),
            ),
        ),
        (
            "flop in position",
            (
                "Qh Jh",
                "Th 9h 2c",
                post,
                none,
                200,
                0,
                (100, 9900),
                "check bet",
                (),
                (),
                (*limped, ("flop", 2, "check", None)),
            ),
        ),
        (
            "flop facing a bet",
            (
                "Kc 4d",
                "Ts 9h 2c",
                {"1": 9900, "2": 9700},
                {"1": 0, "2": 200},
                400,
                200,
                (400, 9900),
                "fold call raise",
                (),
                (),
                (*limped, ("flop", 2, "bet", 200)),
            ),
        ),
        (
            "turn, nothing to win with",
            ("4c 3d", "As Kh 9d Jc", post, none, 200, 0, (100, 9900), "check bet", (), (), limped),
        ),
        (
            "river with the nuts",
            (
                "As Ks",
                "Qs Js Ts 2h 3d",
                post,
                none,
                200,
                0,
                (100, 9900),
                "check bet",
                (),
                (),
                limped,
            ),
        ),
        (
            "river facing a small bet",
            (
                "8s 7s",
                "Ah Kd 7c 4h 2s",
                {"1": 9900, "2": 9800},
                {"1": 0, "2": 100},
                300,
                100,
                (200, 9900),
                "fold call raise",
                (),
                (),
                (*limped, ("river", 2, "bet", 100)),
            ),
        ),
        (
            "six seats, four folded",
            (
                "Ac Kc",
                "",
                {str(seat): 10000 for seat in range(1, 5)} | {"5": 9950, "6": 9900},
                {"1": 0, "2": 0, "3": 0, "4": 0, "5": 50, "6": 100},
                150,
                100,
                (200, 10000),
                "fold call raise",
                (2, 3, 4),
                (),
                (
                    ("preflop", 2, "fold", None),
                    ("preflop", 3, "fold", None),
                    ("preflop", 4, "fold", None),
                ),
            ),
        ),
    ):
        yield name, _position(name, *rest)


def practise(act: Callable[[View], Any], out: Any = None) -> int:
    """Print what the agent does in every position; returns the number of mistakes."""
    out = out or sys.stdout
    wrong = 0
    for name, callback in positions():
        started_s = time.perf_counter()
        # Through JSON, as it would come: what the agent changes stays its own.
        answer = decide(act, json.loads(json.dumps(callback)))
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        problem = answer.get("error") or mistakes(View(callback), answer)
        if problem is None and elapsed_ms > callback["action_deadline_ms"]:
            problem = f"took {elapsed_ms:.0f} ms of {callback['action_deadline_ms']}"
        cards = " ".join(callback["hole_cards"])
        board = " ".join(callback["board"]) or "-"
        if problem:
            wrong += 1
            said = f"WRONG: {problem}"
        else:
            amount = answer.get("amount")
            said = answer["action"] if amount is None else f"{answer['action']} to {amount}"
        print(f"{name:28} {cards:6} {board:15} {elapsed_ms:7.1f} ms  {said}", file=out)
    print(f"{wrong} mistakes" if wrong else "no mistakes", file=out)
    return wrong
