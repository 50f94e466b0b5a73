"""The hosted examples: real agents, in the sandbox, on whole positions and honest arithmetic."""

import importlib.util
import json
import random
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from pokerarena.agents.player import Failure
from pokerarena.engine.cards import parse_card
from pokerarena.engine.ranking import rank_hand
from pokerarena.protocol.messages import Answer
from pokerarena.sandbox.limits import SandboxLimits
from pokerarena_sdk import View, project
from pokerarena_sdk.practice import positions
from pokerarena_sdk.view import mistakes

HOSTED = Path(__file__).parents[2] / "examples" / "hosted"
POSITIONS = dict(positions())


@pytest.fixture(scope="session")
def native(tmp_path_factory):
    folder = tmp_path_factory.mktemp("native")
    for name in ("agent.json", "bot.c", "Makefile"):
        (folder / name).write_bytes((HOSTED / "native" / name).read_bytes())
    subprocess.run(["make", "-s", "-C", folder], check=True)
    (folder / "bot.c").unlink()
    return folder


def load(name):
    path = HOSTED / name / "bot.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["rules", "native", "llm"])
async def test_an_example_answers_every_position_legally_in_the_sandbox(name, home, hosted, native):
    folder = native if name == "native" else HOSTED / name
    async with hosted(home, project.pack(str(folder)), SandboxLimits()) as agent:
        replies = [await agent.ask(3_000, **callback) for callback in POSITIONS.values()]
    for (position, callback), reply in zip(POSITIONS.items(), replies, strict=True):
        assert isinstance(reply, Answer), (position, reply)
        answer = {"action": reply.action, "amount": reply.amount}
        assert mistakes(View(callback), answer) is None, (position, answer)


async def test_the_numpy_example_plays_in_the_sandbox_and_repeats_itself(home, hosted):
    callback = POSITIONS["river with the nuts"]
    for _ in range(2):
        async with hosted(home, project.pack(str(HOSTED / "equity")), SandboxLimits()) as agent:
            reply = await agent.ask(3_000, **callback)
            assert not isinstance(reply, Failure), reply
            assert reply.action == "bet"


def test_the_numpy_examples_scores_order_hands_as_the_rules_do():
    import numpy as np

    module = load("equity")
    generator = random.Random(5)
    hands = [generator.sample(range(52), 7) for _ in range(4_000)]
    # The rare ones, more often than chance brings them.
    for _ in range(1_000):
        ranks = generator.sample(range(13), 4)
        hands.append([rank * 4 + suit for rank in ranks for suit in (0, 1)][:7])
        quads = [ranks[0] * 4 + suit for suit in range(4)]
        hands.append([*quads, ranks[1] * 4, ranks[1] * 4 + 1, ranks[2] * 4])
        low = generator.randrange(9)
        run_of = [(low + step) * 4 + 2 for step in range(5)]
        hands.append(run_of + generator.sample([c for c in range(52) if c not in run_of], 2))
    ours = module.scores(np.array(hands))
    theirs = [rank_hand(hand) for hand in hands]
    order = sorted(range(len(hands)), key=lambda at: theirs[at])
    for one, other in pairwise(order):
        if theirs[one] == theirs[other]:
            assert ours[one] == ours[other], (hands[one], hands[other])
        else:
            assert ours[one] < ours[other], (hands[one], hands[other])
    assert module.number("As") == parse_card("As")


class _Model(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        content = json.dumps({"choices": [{"message": {"content": self.server.says}}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("says", "action", "amount"),
    [
        ('Sure! {"action": "call"} is best.', "call", None),
        ('{"action": "raise", "amount": 999999}', "raise", 10_000),
        ('{"action": "RAISE", "amount": "300"}', "raise", 300),
        ("I fold? No idea.", "fold", None),
        ('{"action": "check"}', "fold", None),
        ('{"action": "raise", "amount": "many"}', "fold", None),
    ],
)
def test_the_model_is_asked_for_what_the_seat_sees_and_never_trusted(
    says, action, amount, monkeypatch, capsys
):
    server = HTTPServer(("127.0.0.1", 0), _Model)
    server.seen, server.says = [], says
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        module = load("llm")
        monkeypatch.setattr(module, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}/")
        view = View(POSITIONS["seven deuce"])
        answer = module.act(view)
    finally:
        server.shutdown()
        server.server_close()
    told = json.loads(server.seen[0]["messages"][1]["content"])
    assert told["my_cards"] == ["7c", "2d"]
    assert (answer.name, answer.amount) == (action, amount)


async def test_a_whole_new_agent_goes_from_init_to_an_answer(tmp_path, home, hosted, monkeypatch):
    from pokerarena_sdk.__main__ import _command

    monkeypatch.chdir(tmp_path)
    assert _command(["init", "mybot"]) == 0
    assert _command(["check", "mybot"]) == 0
    assert _command(["pack", "mybot", "--out", "mybot.tar.gz"]) == 0
    async with hosted(home, Path("mybot.tar.gz").read_bytes(), SandboxLimits()) as agent:
        replies = await agent.many(12)
        assert not [reply for reply in replies if isinstance(reply, Failure)]
    assert _command(["push", "mybot", "--server", "https://x", "--agent", "a"]) == 1
