"""A table of agents of every kind, bad ones among them: each fails for itself, and play goes on."""

import sys
from collections import Counter, defaultdict
from subprocess import PIPE, Popen

import pytest

from pokerarena.agents.dial import Dialer
from pokerarena.agents.house import HousePlayer
from pokerarena.agents.http import HttpPlayer
from pokerarena.agents.seat import HandIds, SeatedPlayer, SeatSettings
from pokerarena.egress.policy import EgressPolicy
from pokerarena.engine.deal import deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see
from tests.agents.misbehaving import Misbehaving
from tests.protocol.hands import SEED

HANDS = 40
STACK = 5_000


class Agent:
    """The misbehaving server as a process of its own, with one habit."""

    def __init__(self, habit):
        command = [sys.executable, "-m", "tests.agents.misbehaving", "--habit", habit]
        self.process = Popen(command, stdout=PIPE, text=True)
        self.url = self.process.stdout.readline().split()[-1]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def agents():
    started = {habit: Agent(habit) for habit in ("good", "illegal", "drip", "big")}
    yield started
    for agent in started.values():
        agent.kill()


async def play(players, hands, settings, before_hand=lambda number: None):
    """Fallbacks by seat; fails unless every hand ends and conserves its chips."""
    count = len(players)
    seats = {
        seat: SeatedPlayer(player, of_seat)
        for seat, (player, of_seat) in enumerate(zip(players, settings, strict=True), start=1)
    }
    fallbacks = defaultdict(Counter)
    for number in range(1, hands + 1):
        before_hand(number)
        deal = deal_cards(SEED, b"table", number, count, number % count)
        hand = start(Rules(50, 100), tuple(seats), (STACK,) * count, 1 + number % count, deal).hand
        while not hand.complete:
            seat = hand.seat_to_act
            ids = HandIds("run_1", "tbl_1", f"hand_{number}", number)
            view = see(hand, Viewer.of_seats([seat]))
            decision = await seats[seat].decide(view, view.legal, ids)
            fallbacks[seat][decision.fallback and decision.fallback.value] += 1
            hand = apply(hand, decision.action).hand
        assert sum(hand.stacks) == count * STACK
    return fallbacks


async def test_bad_agents_fail_under_their_own_reasons_and_disturb_nobody(agents):
    dialer = Dialer(EgressPolicy(allow_private=True))
    players = [
        HttpPlayer(agents["good"].url, dialer),
        HttpPlayer(agents["illegal"].url, dialer),
        HttpPlayer(agents["drip"].url, dialer),
        HttpPlayer(agents["big"].url, dialer),
        HousePlayer("tight", b"seed"),
        HousePlayer("random", b"seed"),
    ]

    def kill_half_way(number):
        if number == HANDS // 2:
            agents["good"].kill()

    # A circuit that never opens, so that every decision is asked for. Only who drips has little
    # time: the others must not fail under another's reason on a busy machine.
    patient = SeatSettings(time_limit_ms=20_000, circuit_failure_limit=10_000)
    short = SeatSettings(time_limit_ms=150, circuit_failure_limit=10_000)
    settings = [patient, patient, short, patient, patient, patient]
    fallbacks = await play(players, HANDS, settings, kill_half_way)
    await dialer.close()
    assert set(fallbacks[1]) == {None, "connect_failed"}
    assert set(fallbacks[2]) == {"illegal_action"}
    assert set(fallbacks[3]) == {"timeout"}
    assert set(fallbacks[4]) == {"too_large"}
    assert set(fallbacks[5]) == set(fallbacks[6]) == {None}


async def test_a_dead_agent_costs_a_few_timeouts_and_then_no_time_at_all():
    async with Misbehaving() as server:
        dialer = Dialer(EgressPolicy(allow_private=True))
        players = [HttpPlayer(server.url("hang"), dialer), HousePlayer("caller", b"seed")]
        settings = SeatSettings(time_limit_ms=50, circuit_failure_limit=4, circuit_cooldown_s=3_600)
        fallbacks = await play(players, 200, [settings, SeatSettings()])
        await dialer.close()
    assert fallbacks[1]["timeout"] == 4
    assert fallbacks[1]["circuit_open"] >= 100
    assert set(fallbacks[1]) == {"timeout", "circuit_open"}
