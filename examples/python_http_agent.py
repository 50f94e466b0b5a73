#!/usr/bin/env python3
"""A complete poker agent in one file. Python's standard library is all it needs.

    python3 examples/python_http_agent.py --port 9001 --strategy steady

The arena asks over HTTP whenever it is your turn, and you answer with one action:

    →  {"type": "callback", "hole_cards": ["As", "Kd"], "to_call": 100,
        "legal_actions": ["fold", "call", "raise"], "min_raise_to": 200, …}
    ←  {"action": "raise", "amount": 300}

`amount` is your total for this street (raise *to* 300, not *by* 300). Every field is explained in
docs/protocol.md. To write your own agent, write your own `decide` function: everything below the
line "The server" can stay as it is. `pokerarena agent check http://127.0.0.1:9001/` then plays a
few hands against it and tells you what it got wrong.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import random
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RANKS = "23456789TJQKA"

# --- The poker ---------------------------------------------------------------------------------


def steady(turn):
    """Play good cards, bet good hands, and pay only what the hand is worth."""
    strength = hand_strength(turn)
    if strength > 0.8:
        return bet(turn, 0.66)
    if strength > price(turn) + 0.15:
        return check_or_call(turn)
    return check_or_fold(turn)


def caller(turn):
    """Never fold, never raise. Surprisingly hard to bluff."""
    return check_or_call(turn)


def bluffer(turn):
    """Play as steadily as the others, but represent a big hand one time in five."""
    if dice(turn) < 0.2:
        return bet(turn, 1.0)
    return steady(turn)


def pusher(turn):
    """Wait for a strong hand, then put everything in at once."""
    if hand_strength(turn) > 0.75:
        return raise_to(turn, turn["max_raise_to"] or 0)
    return check_or_fold(turn)


STRATEGIES = {"steady": steady, "caller": caller, "bluffer": bluffer, "pusher": pusher}


def hand_strength(turn):
    """A rough guess at how good our hand is: 0.0 is hopeless, 1.0 is excellent."""
    mine = [RANKS.index(card[0]) for card in turn["hole_cards"]]
    board = [RANKS.index(card[0]) for card in turn["board"]]
    high, low = max(mine), min(mine)
    suited = turn["hole_cards"][0][1] == turn["hole_cards"][1][1]
    if not board:
        if high == low:
            return 0.5 + high / 24
        return (high + low) / 34 + 0.06 * suited + 0.05 * (high - low <= 2)
    # After the flop, count how our own cards pair with the board.
    pairs = sum(1 for rank in mine if rank in board)
    if any(board.count(rank) >= 2 for rank in mine) or (high == low and high in board):
        return 0.95  # three of a kind or better
    if pairs == 2:
        return 0.9  # two pair
    suits = [card[1] for card in turn["hole_cards"] + turn["board"]]
    if suited and suits.count(turn["hole_cards"][0][1]) >= 5:
        return 0.95  # a flush
    if high == low and high > max(board):
        return 0.82  # a pair above everything on the board
    if pairs == 1:
        return 0.75 if max(mine) >= max(board) else 0.55
    return 0.45 if high == low else high / 40


def price(turn):
    """The share of the pot we must pay to stay in; 0 when checking is free."""
    return turn["to_call"] / (turn["pot"] + turn["to_call"]) if turn["to_call"] else 0.0


def dice(turn):
    """A number from 0 to 1: random to opponents, and the same whenever we replay the hand."""
    return random.Random(turn["decision_id"]).random()  # noqa: S311 - a game, not a secret


def bet(turn, pot_share):
    """Bet or raise by a share of the pot (as it is after calling)."""
    highest = max(turn["bets"].values())
    return raise_to(turn, highest + round(pot_share * (turn["pot"] + turn["to_call"])))


def raise_to(turn, amount):
    """Bet or raise to about `amount`, kept within what is legal; call if raising is not."""
    for action in ("bet", "raise"):
        if action in turn["legal_actions"]:
            amount = max(turn["min_raise_to"], min(amount, turn["max_raise_to"]))
            return {"action": action, "amount": amount}
    return check_or_call(turn)


def check_or_call(turn):
    return {"action": "check" if "check" in turn["legal_actions"] else "call"}


def check_or_fold(turn):
    return {"action": "check" if "check" in turn["legal_actions"] else "fold"}


# --- The server --------------------------------------------------------------------------------

MAX_BODY_BYTES = 1_000_000


def serve(decide, host, port, secret=None, think_ms=0):
    """Answer the arena's callbacks with `decide(turn)` until the process is told to stop."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps the connection open between callbacks
        disable_nagle_algorithm = True  # small answers leave at once
        wbufsize = -1  # and in one piece
        timeout = 300  # seconds until an idle connection is closed

        def do_POST(self):
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                self.close_connection = True
                return self.reply(411, {"error": "a body with a Content-Length is needed"})
            body = self.rfile.read(int(length))
            if secret and not is_signed(self.headers, body, secret):
                return self.reply(401, {"error": "the signature is wrong or too old"})
            try:
                message = json.loads(body)
            except ValueError:
                return self.reply(400, {"error": "the body is not JSON"})
            if isinstance(message, list):  # several parallel hands in one request
                return self.reply(200, [answer(turn) for turn in message])
            return self.reply(200, answer(message))

        def reply(self, status, value):
            body = json.dumps(value).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *args):
            pass

    def answer(message):
        if message.get("type", "callback") != "callback":
            return {}  # run_start, hand_end, run_end: for information, no answer expected
        time.sleep(think_ms / 1000)
        return {**decide(message), "decision_id": message["decision_id"]}

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, port), Handler) as server:
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: sys.exit(0))
        shown = f"[{host}]" if ":" in host else host
        print(f"agent ready http://{shown}:{server.server_port}/", flush=True)
        server.serve_forever(poll_interval=0.1)


def is_signed(headers, body, secret):
    """Whether the arena sent this, as in the Standard Webhooks specification."""
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    offered = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in offered)


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--secret",
        default=os.environ.get("AGENT_SECRET"),
        help="signing secret (whsec_…), else from AGENT_SECRET; refuses unsigned requests",
    )
    parser.add_argument(
        "--think-ms", type=int, default=0, help="pause before each answer, to be watched by people"
    )
    return parser


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--strategy", choices=STRATEGIES, default="steady")
    options = parser.parse_args()
    decide = STRATEGIES[options.strategy]
    serve(decide, options.host, options.port, options.secret, options.think_ms)


if __name__ == "__main__":
    main()
