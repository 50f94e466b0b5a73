"""Budgets and freezing, on a meter that a test moves."""

import asyncio
import itertools

import pytest

from pokerarena.sandbox.turns import GRACE_S, PONDERING_MAX_NS, TAIL_NS, Turns

MS = 1_000_000


class FakeMeter:
    def __init__(self):
        self.used_ns = 0
        self.frozen = False
        self.log = []

    def cpu_ns(self):
        return self.used_ns

    def freeze(self):
        if not self.frozen:
            self.log.append("freeze")
        self.frozen = True

    def thaw(self):
        self.log.append("thaw")
        self.frozen = False


@pytest.fixture
async def table():
    class Table:
        meter = FakeMeter()
        over = 0

        def on_over(self):
            self.over += 1

    one = Table()
    one.meter = FakeMeter()
    one.turns = Turns(one.meter, 100, one.on_over, asyncio.get_running_loop())
    one.turns.rest()
    yield one
    one.turns.close()


async def test_it_is_frozen_before_after_and_never_within_a_turn(table):
    assert table.meter.frozen
    table.turns.begin()
    assert not table.meter.frozen
    await asyncio.sleep(GRACE_S * 5)
    assert not table.meter.frozen
    table.turns.end()
    await asyncio.sleep(GRACE_S * 5)
    assert table.meter.frozen


async def test_it_stays_thawed_while_any_callback_is_in_flight(table):
    table.turns.begin()
    table.turns.begin()
    table.turns.end()
    await asyncio.sleep(GRACE_S * 5)
    assert not table.meter.frozen


async def test_turns_in_quick_succession_cost_no_freeze(table):
    for _ in range(100):
        table.turns.begin()
        table.turns.end()
    assert table.meter.log.count("thaw") == 1


async def test_a_ponderer_is_frozen_at_once(table):
    for _ in range(2):
        table.turns.begin()
        table.turns.end()
        table.meter.used_ns += PONDERING_MAX_NS
        # Asked again too late for the grace.
        await asyncio.sleep(GRACE_S * 5)
    table.turns.begin()
    table.turns.end()
    assert table.turns.ponders
    assert table.meter.frozen


async def test_of_turns_in_quick_succession_every_eighth_is_looked_at_and_counts_for_all(
    table, monkeypatch
):
    draws = itertools.cycle(range(8))
    monkeypatch.setattr("pokerarena.sandbox.turns._chance", lambda bits: next(draws))
    for _ in range(1 + 8 * 4):
        table.turns.begin()
        table.turns.end()
        table.meter.used_ns += TAIL_NS + PONDERING_MAX_NS // 40
    # 4 of 32 were looked at, and count for 32 fortieths of what is too much.
    assert table.turns._pondered_ns == 32 * (PONDERING_MAX_NS // 40)
    assert not table.turns.ponders


async def test_one_that_ponders_between_fast_turns_is_found_soon(table):
    for _ in range(1_000):
        table.turns.begin()
        table.turns.end()
        if table.turns.ponders:
            break
        table.meter.used_ns += PONDERING_MAX_NS // 2
    assert table.meter.frozen


async def test_work_within_a_turn_is_not_pondering(table):
    for _ in range(100):
        table.turns.begin()
        table.meter.used_ns += 50 * MS
        table.turns.end()
    assert not table.turns.ponders
    assert table.turns.max_turn_ns == 50 * MS


async def test_more_than_the_budget_is_reported_once_within_a_turn(table):
    table.turns.begin()
    table.meter.used_ns += 101 * MS
    await asyncio.sleep(0.2)
    assert table.over == 1


async def test_callbacks_in_flight_pool_their_budgets(table):
    for _ in range(3):
        table.turns.begin()
    table.meter.used_ns += 299 * MS
    await asyncio.sleep(0.15)
    assert table.over == 0
    table.meter.used_ns += 2 * MS
    await asyncio.sleep(0.15)
    assert table.over == 1


async def test_an_endless_overlap_saves_no_budget_up(table):
    table.turns.begin()
    for _ in range(1_000):
        table.turns.begin()
        table.turns.end()
    table.meter.used_ns += 101 * MS
    await asyncio.sleep(0.15)
    assert table.over == 1
