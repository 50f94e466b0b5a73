"""The example agents run as they are, as processes of their own, and play without a mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pokerarena.agents.conformance import Finding, Summary, check_agent
from pokerarena.agents.dial import Dialer
from pokerarena.egress.policy import EgressPolicy
from pokerarena.protocol.messages import encode
from pokerarena.protocol.signing import new_secret
from tests.protocol.hands import a_callback

EXAMPLES = Path(__file__).parents[2] / "examples"
AGENTS = [
    ["python_http_agent.py", "--strategy", "steady"],
    ["python_http_agent.py", "--strategy", "caller"],
    ["python_http_agent.py", "--strategy", "bluffer"],
    ["python_http_agent.py", "--strategy", "pusher"],
    ["rule_agent.py"],
]


class Running:
    """An example as a process; leaves nothing behind."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLES / arguments[0]), *arguments[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        assert re.fullmatch(r"agent ready http://127\.0\.0\.1:\d+/\n", line), line
        self.url = line.split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


async def check(url, **options):
    dialer = Dialer(EgressPolicy(allow_private=True))
    results = [result async for result in check_agent(url, dialer, **options)]
    await dialer.close()
    assert isinstance(results[-1], Summary)
    return results[:-1], results[-1]


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent[-1])
async def test_every_example_passes_the_conformance_check_without_a_finding(agent):
    secret = new_secret()
    with Running(*agent, "--secret", secret) as running:
        findings, summary = await check(running.url, secret=secret, max_batch=8, hands=15)
    assert findings == []
    assert summary.passed
    assert summary.hands == 15
    assert summary.decisions > 50


async def test_an_example_without_a_secret_warns_that_it_believes_anybody():
    with Running(*AGENTS[0]) as running:
        findings, summary = await check(running.url, secret=new_secret(), hands=1)
    assert {finding.code for finding in findings} == {
        "signature_forged",
        "signature_unsigned",
        "signature_replayed",
    }
    assert summary.passed
    assert all(isinstance(finding, Finding) for finding in findings)


def post(url, body, **headers):
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_rule_agent_names_the_rule_it_followed():
    with Running("rule_agent.py") as running:
        status, answer = post(running.url, encode(a_callback()))
    assert status == 200
    assert answer["note"]


def test_what_is_no_callback_is_refused_and_the_agent_goes_on():
    with Running(*AGENTS[0]) as running:
        assert post(running.url, b"not json")[0] == 400
        assert post(running.url, encode(a_callback()))[0] == 200


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_an_example_stops_quietly_when_told_to(stop):
    with Running(*AGENTS[0]) as running:
        post(running.url, encode(a_callback()))
        os.kill(running.process.pid, stop)
        _, errors = running.process.communicate(timeout=10)
        assert (running.process.returncode, errors) == (0, "")
