"""Playing a run, with scripted players and a recorder in memory."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from pokerarena.engine.deal import deal_cards
from pokerarena.history.record import HandRecord
from pokerarena.ids import new_id
from pokerarena.protocol.messages import HandEnd, RunEnd, RunStart
from pokerarena.runs.play import VOIDS_IN_A_ROW_MAX, play_run
from pokerarena.runs.seams import Clock, Control, Halt, PlayedUnit, RunFault, VoidReason
from pokerarena.tables.models import Format
from tests.runs.stages import SEED, Recorder, SteppingClock, Told, seat, spec


def told(*names: str, **options: Any) -> dict[int, Told]:
    return {number: Told(name, number, **options) for number, name in enumerate(names, start=1)}


def essence(hand: HandRecord) -> tuple[object, ...]:
    """A hand without what differs between two times it is played: its id and its times."""
    actions = tuple(action._replace(elapsed_ms=0) for action in hand.actions)
    return (
        hand.hand_no,
        hand.deal_no,
        hand.button_seat,
        hand.stacks,
        hand.net,
        hand.board,
        hand.holes,
        actions,
    )


@pytest.mark.parametrize("format_", list(Format))
async def test_every_hand_conserves_chips_and_replays_to_itself(format_: Format) -> None:
    players = told("random", "tight", "caller")
    recorder = Recorder()
    run = spec([1, 2, 3], 90, format_)
    outcome = await play_run(run, seat(players), recorder, Control(), Clock())
    assert outcome.end == "completed"
    hands = recorder.hands
    assert [hand.hand_no for hand in hands] == list(range(1, outcome.hands_done + 1))
    assert outcome.hands_done == 90 or format_ is Format.FREEZEOUT
    for hand in hands:
        assert sum(hand.net) == 0
        button = hand.seats.index(hand.button_seat)
        deal = deal_cards(SEED, run.run_id.bytes, hand.deal_no, len(hand.seats), button)
        assert hand.holes == deal.holes
        assert hand.board == deal.board[: len(hand.board)]
        final = hand.last_hand(run.rules.at_level(hand.level))
        assert final.complete
        assert final.net() == hand.net
        assert final.board == hand.board
    for seat_no, totals in outcome.totals.items():
        net = sum(dict(zip(hand.seats, hand.net, strict=True)).get(seat_no, 0) for hand in hands)
        assert totals.net == net
    assert all(player.closed for player in players.values())


@pytest.mark.parametrize("format_", [Format.RESET, Format.DUPLICATE])
async def test_several_hands_in_flight_are_recorded_as_if_played_one_by_one(
    format_: Format,
) -> None:
    run_id = new_id()
    one_by_one, at_once = Recorder(), Recorder()
    alone = told("random", "tight", "caller", max_in_flight=1)
    await play_run(
        spec([1, 2, 3], 60, format_, run_id=run_id), seat(alone), one_by_one, Control(), Clock()
    )
    many = told("random", "tight", "caller", dawdle=random.Random(1))
    await play_run(
        spec([1, 2, 3], 60, format_, run_id=run_id), seat(many), at_once, Control(), Clock()
    )
    assert {player.most_in_flight for player in alone.values()} == {1}
    assert max(player.most_in_flight for player in many.values()) > 1
    assert [essence(hand) for hand in at_once.hands] == [essence(hand) for hand in one_by_one.hands]
    assert at_once.units[-1].totals.keys() == one_by_one.units[-1].totals.keys()


async def test_as_many_hands_are_in_flight_as_the_slowest_player_takes() -> None:
    players = told("random", "random", dawdle=random.Random(2))
    players[2].max_in_flight = 3
    await play_run(spec([1, 2], 60, Format.RESET), seat(players), Recorder(), Control(), Clock())
    assert max(player.most_in_flight for player in players.values()) <= 3
    assert players[1].most_in_flight > 1


async def test_cash_is_played_hand_after_hand_whatever_the_players_take() -> None:
    players = told("random", "random", dawdle=random.Random(3))
    await play_run(spec([1, 2], 30, Format.CASH), seat(players), Recorder(), Control(), Clock())
    assert {player.most_in_flight for player in players.values()} == {1}


async def test_in_duplicate_every_seat_gets_every_holding_of_a_deal() -> None:
    recorder = Recorder()
    players = told("random", "tight", "caller")
    await play_run(
        spec([1, 2, 3], 12, Format.DUPLICATE), seat(players), recorder, Control(), Clock()
    )
    for unit in recorder.units:
        assert len({hand.deal_no for hand in unit.hands}) == 1
        by_seat = [{hand.holes[position] for hand in unit.hands} for position in range(3)]
        assert by_seat[0] == by_seat[1] == by_seat[2]
        assert len(by_seat[0]) == 3


async def test_a_fault_of_ours_voids_the_deal_and_the_hand_is_played_with_another() -> None:
    players = told("random", "caller")
    players[1]._void_hands = [3, 3, 5]
    recorder = Recorder()
    outcome = await play_run(
        spec([1, 2], 6, Format.CASH), seat(players), recorder, Control(), Clock()
    )
    assert [hand.hand_no for hand in recorder.hands] == [1, 2, 3, 4, 5, 6]
    assert [hand.deal_no for hand in recorder.hands] == [1, 2, 5, 6, 8, 9]
    assert [deal for deal, _ in recorder.voids] == [3, 4, 7]
    assert {reason for _, reason in recorder.voids} == {VoidReason.INFRASTRUCTURE}
    assert sum(sum(totals.fallbacks.values()) for totals in outcome.totals.values()) == 0


async def test_faults_without_end_fail_the_run_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pokerarena.runs.play.VOID_PAUSE_S", 0.0)
    players = told("random", "caller")
    players[2]._void_hands = [2] * 100
    recorder = Recorder()
    with pytest.raises(RunFault, match="the arena stumbled") as fault:
        await play_run(spec([1, 2], 6, Format.RESET), seat(players), recorder, Control(), Clock())
    assert fault.value.code == "infrastructure"
    assert len(recorder.voids) == VOIDS_IN_A_ROW_MAX
    assert all(player.closed for player in players.values())


@pytest.mark.parametrize("halt", list(Halt))
async def test_a_halt_begins_no_other_hand(halt: Halt) -> None:
    control, recorder = Control(), Recorder()

    def after_third(unit: PlayedUnit) -> None:
        if unit.hands[-1].hand_no == 3:
            control.ask(halt)

    recorder.after_each = after_third
    players = told("random", "caller")
    outcome = await play_run(
        spec([1, 2], 50, Format.CASH), seat(players), recorder, control, Clock()
    )
    assert outcome.end == {"stop": "stopped", "drain": "drained"}[halt.value]
    assert len(recorder.hands) == outcome.hands_done == 3


async def test_a_halt_within_a_duplicate_deal_voids_it_instead_of_playing_it_out() -> None:
    control, recorder = Control(), Recorder()
    players = told("caller", "caller", "caller")

    class Stopper(Told):
        async def decide(self, callback: Any, deadline_ms: int) -> Any:
            if callback.hand_no == 5:
                control.ask(Halt.STOP)
            return await super().decide(callback, deadline_ms)

    players[1] = Stopper("caller", 1, max_in_flight=1)
    outcome = await play_run(
        spec([1, 2, 3], 30, Format.DUPLICATE), seat(players), recorder, control, Clock()
    )
    assert (outcome.end, outcome.hands_done) == ("stopped", 3)
    assert recorder.voids == [(2, VoidReason.STOPPED)]
    assert max(callback.hand_no for callback in players[2].callbacks) == 5


async def test_a_stop_is_not_weakened_by_a_drain() -> None:
    control = Control()
    control.ask(Halt.STOP)
    control.ask(Halt.DRAIN)
    assert control.halt is Halt.STOP


async def test_players_that_want_events_are_told_what_their_seat_may_know() -> None:
    players = told("random", "tight", "caller")
    recorder = Recorder()
    run = spec([1, 2, 3], 20, Format.CASH)
    outcome = await play_run(run, seat(players, wants_events=True), recorder, Control(), Clock())
    for seat_no, player in players.items():
        first, *ends, last = player.messages
        assert isinstance(first, RunStart)
        assert first.seat == seat_no
        assert [end.hand_no for end in ends if isinstance(end, HandEnd)] == list(range(1, 21))
        assert isinstance(last, RunEnd)
        assert last.net == outcome.totals[seat_no].net
        for end, hand in zip(ends, recorder.hands, strict=True):
            assert isinstance(end, HandEnd)
            assert end.seat == seat_no
            final = hand.last_hand(run.rules.at_level(0))
            assert set(end.shown) == set(final.tabled)


async def test_a_busy_run_gives_way_to_others_every_few_milliseconds() -> None:
    """Each look at the clock takes a millisecond; a decision looks once."""
    decisions = 0
    most_at_a_stretch = 0
    seen = 0

    class Counting(Told):
        async def decide(self, callback: Any, deadline_ms: int) -> Any:
            nonlocal decisions
            decisions += 1
            return await super().decide(callback, deadline_ms)

    async def bystander() -> None:
        nonlocal most_at_a_stretch, seen
        while True:
            most_at_a_stretch = max(most_at_a_stretch, decisions - seen)
            seen = decisions
            await asyncio.sleep(0)

    players = {number: Counting("caller", number, max_in_flight=1) for number in (1, 2, 3)}
    watching = asyncio.create_task(bystander())
    clock = SteppingClock().clock()
    await play_run(spec([1, 2, 3], 40, Format.CASH), seat(players), Recorder(), Control(), clock)
    watching.cancel()
    assert decisions > 200
    assert most_at_a_stretch <= 4


async def test_every_state_of_a_watched_hand_is_offered_and_none_of_an_unwatched_one() -> None:
    watched, unwatched = Recorder(watched=True), Recorder()
    for recorder in (watched, unwatched):
        players = told("random", "caller")
        await play_run(spec([1, 2], 5, Format.CASH), seat(players), recorder, Control(), Clock())
    assert not unwatched.moments
    assert len(watched.moments) == sum(len(hand.actions) + 1 for hand in watched.hands)
    assert sum(moment.hand.complete for moment in watched.moments) == 5


class Inn:
    """A lodging that is full now and then, and says how often it was asked."""

    def __init__(self, *answers: bool) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def ready(self, within_s: float) -> bool:
        self.asked += 1
        return self._answers.pop(0) if self._answers else True


async def test_no_hand_begins_while_the_agents_have_no_place() -> None:
    players = {1: Told("tight", 1, void_hands=[2]), 2: Told("caller", 2)}
    recorder, inn = Recorder(), Inn(False, False, True, True, True, True, False, False, True)
    outcome = await play_run(
        spec([1, 2], 4, Format.CASH), seat(players), recorder, Control(), Clock(), inn
    )
    assert outcome.end == "completed"
    assert [void.value for _, void in recorder.voids] == ["infrastructure"]
    # One void hand, and no second one while there was no place.
    assert recorder.reserved == [1, 2, 3, 4, 5]
    assert inn.asked > 9


async def test_a_run_that_waits_for_a_place_can_be_stopped() -> None:
    control, players = Control(), {1: Told("tight", 1), 2: Told("caller", 2)}
    control.ask(Halt.STOP)
    outcome = await play_run(
        spec([1, 2], 4, Format.CASH), seat(players), Recorder(), control, Clock(), Inn(*[False] * 9)
    )
    assert (outcome.end, outcome.hands_done) == ("stopped", 0)
    assert all(player.messages == [] and player.closed for player in players.values())
