"""Asks a language model behind any OpenAI-compatible endpoint, and plays on when that fails.

Set ENDPOINT and MODEL, and list the host in `agent.json` under `egress`: once an operator has
approved it, requests leave through the arena's proxy; until then the agent plays by rule. The key is
read from `api_key.txt` beside this file; everybody who can read your upload can read it, so make one
for this agent alone, with a budget.

The model's word is never trusted: its answer becomes one of the legal actions, or the agent falls
back to a rule of its own.
"""

import json
import os
import re
import sys
import urllib.request
from pathlib import Path

from pokerarena_sdk import egress, run

ENDPOINT = os.environ.get("LLM_ENDPOINT", "https://api.example.org/v1/chat/completions")
MODEL = os.environ.get("LLM_MODEL", "small")
OPENER = egress.opener()
KEY_FILE = Path(__file__).with_name("api_key.txt")
MARGIN_MS = 400
MAX_REPLY_BYTES = 65_536
PROMPT = (
    "You play No-Limit Texas Hold'em. Answer with one JSON object and nothing else: "
    '{"action": one of the legal actions, "amount": total chips on this street, for bet or raise}.'
)


def situation(view):
    """What the model is told: only what this seat may see."""
    return json.dumps(
        {
            "my_cards": view.hole_cards,
            "board": view.board,
            "street": view.street,
            "pot": view.pot,
            "to_call": view.to_call,
            "my_stack": view.my_stack,
            "opponents": len(view.opponents),
            "legal_actions": view.legal_actions,
            "min_raise_to": view.min_raise_to,
            "max_raise_to": view.max_raise_to,
            "history": [list(entry) for entry in view.history],
        }
    )


def ask_model(view):
    """The model's reply as text. Raises OSError or ValueError."""
    body = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": PROMPT},
            {"role": "user", "content": situation(view)},
        ],
        "max_tokens": 60,
        "temperature": 0,
    }
    headers = {"content-type": "application/json"}
    if KEY_FILE.exists():
        headers["authorization"] = f"Bearer {KEY_FILE.read_text().strip()}"
    request = urllib.request.Request(  # noqa: S310 - the endpoint is the author's own
        ENDPOINT, data=json.dumps(body).encode(), headers=headers
    )
    timeout_s = max(0.1, (view.action_deadline_ms - MARGIN_MS) / 1000)
    with OPENER.open(request, timeout=timeout_s) as response:
        reply = json.loads(response.read(MAX_REPLY_BYTES))
    return reply["choices"][0]["message"]["content"]


def legal_answer(view, text):
    """The first JSON object in the reply as a legal answer. Raises ValueError."""
    found = re.search(r"\{.*?\}", text, re.DOTALL)
    wanted = json.loads(found[0]) if found else {}
    action = str(wanted.get("action", "")).lower()
    if action in ("bet", "raise"):
        return view.raise_to(float(wanted.get("amount") or 0))
    if action in view.legal_actions:
        return {"fold": view.fold, "check": view.check, "call": view.call}[action]()
    raise ValueError(f"no legal action in {text[:80]!r}")


def by_rule(view):
    return view.check_or_call() if view.pot_odds <= 0.2 else view.check_or_fold()


def act(view):
    try:
        return legal_answer(view, ask_model(view)).with_note("the model's choice")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return by_rule(view).with_note(f"by rule: {type(error).__name__}")


if __name__ == "__main__":
    run(act)
