"""The conformance check finds what is wrong with an agent, and says it so that one can act."""

import pytest

from pokerarena.agents.conformance import Severity, Summary, check_agent
from pokerarena.agents.dial import Dialer
from pokerarena.agents.situations import situations
from pokerarena.egress.policy import EgressPolicy
from pokerarena.engine.actions import Kind
from pokerarena.protocol.signing import new_secret
from tests.agents.misbehaving import Misbehaving


async def check(url, **options):
    dialer = Dialer(EgressPolicy(allow_private=True))
    options = {"time_limit_ms": 10_000, "hands": 2} | options
    results = [result async for result in check_agent(url, dialer, **options)]
    await dialer.close()
    *findings, summary = results
    assert isinstance(summary, Summary)
    assert summary.errors == sum(f.severity is Severity.ERROR for f in findings)
    assert summary.warnings == sum(f.severity is Severity.WARNING for f in findings)
    return findings, summary


@pytest.fixture
async def server():
    async with Misbehaving() as server:
        yield server


async def test_an_agent_that_falls_over_one_way_messages_is_warned(server):
    findings, summary = await check(server.url("good"))
    # This agent reads `legal_actions` of every message, and such messages have none.
    assert {(f.severity, f.where) for f in findings} == {
        (Severity.WARNING, f"a {name} message") for name in ("run_start", "hand_end", "run_end")
    }
    assert summary.passed


@pytest.mark.parametrize(
    ("habit", "code", "says"),
    [
        ("illegal", "illegal_action", "answered raise to 1 when min_raise_to was 200"),
        ("malformed", "malformed", "not JSON"),
        ("wrong-id", "malformed", "answered decision_id another, asked was hand_conformance_1-0"),
        ("server-error", "http_status", "HTTP 500"),
        ("big", "too_large", "larger than 16384 bytes"),
        ("redirect", "http_status", "HTTP 307"),
    ],
)
async def test_a_mistake_is_explained_with_the_request_that_caused_it(server, habit, code, says):
    findings, summary = await check(server.url(habit))
    first = findings[0]
    assert (first.severity, first.code) == (Severity.ERROR, code)
    assert says in first.sentence
    assert first.where == "heads-up, preflop, on the button"
    assert b'"hole_cards":["Ah","Kh"]' in first.request
    assert not summary.passed


async def test_an_answer_that_is_too_late_is_told_by_how_much(server):
    findings, summary = await check(server.url("slow"), time_limit_ms=100, hands=0)
    late = [f for f in findings if f.code == "timeout"]
    assert late
    took, _, limit = late[0].sentence.removeprefix("took ").partition(" ms of ")
    assert (limit, int(took) > 140) == ("100", True)
    assert summary.median_ms > 100


@pytest.mark.parametrize(
    ("habit", "says"),
    [("hang", "no complete answer after 500 ms"), ("hang-up", "closed")],
)
async def test_an_agent_that_says_nothing_is_given_up_soon(server, habit, says):
    findings, summary = await check(server.url(habit), time_limit_ms=100)
    assert len(findings) == summary.decisions == 3
    assert says in findings[0].sentence
    assert not summary.passed


async def test_an_address_where_nobody_listens_is_one_clear_finding():
    findings, summary = await check("http://127.0.0.1:9/")
    assert not summary.passed
    assert "port 9 is not allowed" in findings[0].sentence
    assert summary.decisions == 1


async def test_batches_are_checked_where_the_version_declares_them(server):
    findings, _ = await check(server.url("batch-half"), max_batch=4, hands=0)
    missing = [f for f in findings if "no answer to decision_id" in f.sentence]
    assert len(missing) == 2


async def test_an_agent_that_believes_anybody_is_warned(server):
    findings, summary = await check(server.url("good"), secret=new_secret())
    said = [f.sentence for f in findings if f.where == "signatures"]
    assert said[0].startswith("signature not verified: accepted a forged request")
    assert len(said) == 3
    assert summary.passed


def test_the_situations_cover_what_they_promise():
    hands = dict(situations())
    legal = {name: hand.legal() for name, hand in hands.items()}
    assert {hand.street.text for hand in hands.values()} == {"preflop", "flop", "turn", "river"}
    assert {len(hand.seats) for hand in hands.values()} >= {2, 3, 6, 10}
    assert {kind for one in legal.values() for kind in one.kinds} == set(Kind)
    assert any(one.kinds == (Kind.FOLD, Kind.CALL) for one in legal.values())
    assert any(
        one.min_raise_to is not None and one.min_raise_to == one.max_raise_to
        for one in legal.values()
    )
    assert any(hand.rules.ante_kind == "big_blind" for hand in hands.values())
    assert any(sum(hand.all_in) >= 2 for hand in hands.values())
