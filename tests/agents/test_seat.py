"""A seat keeps time, judges answers, and acts for an agent that failed."""

import asyncio
import time
from random import Random

import pytest

from pokerarena.agents.player import Failure, FallbackReason, HandVoid
from pokerarena.agents.seat import HandIds, SeatedPlayer, SeatSettings, fallback_action, judge
from pokerarena.agents.watchdog import Watchdog
from pokerarena.engine.actions import Action, IllegalAction, Kind
from pokerarena.engine.transition import apply
from pokerarena.engine.view import Viewer, see
from pokerarena.protocol.messages import Answer
from tests.protocol.hands import moments, new_hand

CALL = Answer("call")


class Clock:
    def __init__(self):
        self.now_s = 500.0

    def __call__(self):
        return self.now_s


class Scripted:
    """Replies from a script of (reply, time it takes); the last one for ever."""

    max_in_flight = 10

    def __init__(self, clock, *script):
        self.clock, self.script, self.asked = clock, list(script), []

    async def decide(self, callback, deadline_ms):
        self.asked.append((callback, deadline_ms))
        step = self.script[min(len(self.asked), len(self.script)) - 1]
        reply, takes_ms = step if type(step) is tuple else (step, 1)
        self.clock.now_s += takes_ms / 1000
        if isinstance(reply, Exception):
            raise reply
        return reply


TIMEOUT = Failure(FallbackReason.TIMEOUT, "too late")
REFUSED = Failure(FallbackReason.CONNECT_FAILED, "refused")


def seat_with(*script, **settings):
    clock = Clock()
    player = Scripted(clock, *script)
    return SeatedPlayer(player, SeatSettings(**settings), clock), player, clock


async def decide(seat, hand=None, hand_no=1):
    hand = hand or new_hand(1, seat_count=3, stack=10_000)
    view = see(hand, Viewer.of_seats([hand.seat_to_act]))
    return await seat.decide(view, hand.legal(), HandIds("run_1", "tbl_1", "hand_1", hand_no))


async def test_a_legal_answer_is_the_decision():
    seat, player, _ = seat_with((Answer("raise", 300, note="top pair"), 12))
    decision = await decide(seat)
    assert decision == (Action(Kind.RAISE, 300), None, 12, "top pair", None)
    (callback, deadline_ms) = player.asked[0]
    assert deadline_ms == callback.action_deadline_ms == 2_000


@pytest.mark.parametrize("reason", [r for r in FallbackReason if r != "infrastructure"])
async def test_every_failure_becomes_a_fold_or_a_check_with_its_reason(reason):
    seat, _, _ = seat_with(Failure(reason, "because"))
    decision = await decide(seat)
    assert decision == (Action(Kind.FOLD), reason, 1, None, "because")


async def test_the_fallback_is_a_check_where_that_is_free():
    seat, _, _ = seat_with(REFUSED)
    hand = next(
        hand for hand in moments(3) if not hand.complete and Kind.CHECK in hand.legal().kinds
    )
    assert (await decide(seat, hand)).action == Action(Kind.CHECK)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer("check"), "answered check, which is not possible. Legal now: fold, call"),
        (Answer("bet", 300), "answered bet, which is not possible"),
        (Answer("raise", 150), "answered raise to 150 when min_raise_to was 200"),
        (Answer("raise", -1), "when min_raise_to was 200"),
        (Answer("raise", 10_001), "answered raise to 10001 when max_raise_to was 10000"),
    ],
)
async def test_an_illegal_answer_falls_back_and_says_what_was_legal(answer, says):
    seat, _, _ = seat_with(answer)
    decision = await decide(seat)
    assert decision.action == Action(Kind.FOLD)
    assert decision.fallback is FallbackReason.ILLEGAL_ACTION
    assert says in decision.detail


def test_judging_agrees_with_the_rules_at_every_moment():
    random, judged = Random(5), 0
    for number in range(150):
        for hand in moments(number):
            if hand.complete:
                continue
            legal = hand.legal()
            amounts = {1, 99, 100, 199, 200, random.randint(1, 20_000)}
            amounts |= {legal.min_raise_to or 1, (legal.min_raise_to or 1) - 1}
            amounts |= {legal.max_raise_to or 1, (legal.max_raise_to or 1) + 1}
            for answer in (
                Answer("fold"),
                Answer("check"),
                Answer("call"),
                *(Answer(kind, amount) for kind in ("bet", "raise") for amount in amounts),
            ):
                verdict = judge(answer, legal)
                try:
                    apply(hand, Action(Kind.of_text(answer.action), answer.amount))
                except IllegalAction:
                    assert isinstance(verdict, str), (hand.legal(), answer)
                else:
                    assert isinstance(verdict, Action), (hand.legal(), answer)
                judged += 1
            apply(hand, fallback_action(legal))
    assert judged > 5_000


class TestTimeBank:
    async def test_it_is_drawn_only_after_the_normal_time(self):
        seat, player, _ = seat_with(
            (CALL, 900), (CALL, 1_400), time_limit_ms=1_000, time_bank_ms=700
        )
        await decide(seat)
        assert seat.time_bank_left_ms == 700
        await decide(seat)
        assert seat.time_bank_left_ms == 300
        await decide(seat)
        assert [deadline for _, deadline in player.asked] == [1_700, 1_700, 1_300]

    async def test_a_timeout_uses_all_of_it_and_it_never_becomes_negative(self):
        seat, _, _ = seat_with((TIMEOUT, 1_750), time_limit_ms=1_000, time_bank_ms=700)
        assert (await decide(seat)).fallback is FallbackReason.TIMEOUT
        assert seat.time_bank_left_ms == 0

    async def test_it_is_not_refilled_within_a_run(self):
        seat, _, _ = seat_with((CALL, 1_700), (CALL, 1), time_limit_ms=1_000, time_bank_ms=700)
        for hand_no in range(1, 20):
            await decide(seat, hand_no=hand_no)
        assert seat.time_bank_left_ms == 0

    async def test_it_is_refilled_per_hand_where_configured_up_to_its_size(self):
        seat, _, _ = seat_with(
            (CALL, 1_500),
            (CALL, 1),
            time_limit_ms=1_000,
            time_bank_ms=600,
            time_bank_refill_ms_per_hand=200,
        )
        left = []
        for hand_no in (1, 1, 2, 3, 4, 5):
            await decide(seat, hand_no=hand_no)
            left.append(seat.time_bank_left_ms)
        assert left == [100, 100, 300, 500, 600, 600]


class TestCircuit:
    async def test_after_so_many_failures_the_agent_is_asked_again_only_after_the_pause(self):
        seat, player, clock = seat_with(REFUSED, circuit_failure_limit=3, circuit_cooldown_s=10.0)
        reasons = [(await decide(seat)).fallback for _ in range(5)]
        assert reasons == [FallbackReason.CONNECT_FAILED] * 3 + [FallbackReason.CIRCUIT_OPEN] * 2
        assert len(player.asked) == 3
        clock.now_s += 10.1
        reasons = [(await decide(seat)).fallback for _ in range(2)]
        assert reasons == [FallbackReason.CONNECT_FAILED, FallbackReason.CIRCUIT_OPEN]

    async def test_a_success_after_the_pause_closes_it(self):
        seat, player, clock = seat_with(
            REFUSED, REFUSED, CALL, circuit_failure_limit=2, circuit_cooldown_s=10.0
        )
        for _ in range(3):
            await decide(seat)
        clock.now_s += 10.1
        assert [(await decide(seat)).fallback for _ in range(4)] == [None] * 4
        assert len(player.asked) == 6

    async def test_failures_count_in_a_row_only(self):
        script = [REFUSED, REFUSED, CALL] * 5
        seat, player, _ = seat_with(*script, circuit_failure_limit=3)
        for _ in range(15):
            await decide(seat)
        assert len(player.asked) == 15

    async def test_while_open_one_question_only_tries_whether_it_works_again(self):
        seat, _, clock = seat_with(REFUSED, circuit_failure_limit=1, circuit_cooldown_s=1.0)
        await decide(seat)
        clock.now_s += 1.1
        decisions = await asyncio.gather(*(decide(seat) for _ in range(8)))
        asked = [d for d in decisions if d.fallback is not FallbackReason.CIRCUIT_OPEN]
        assert len(asked) == 1


class TestFaultsOfOurs:
    @pytest.mark.parametrize(
        "fault",
        [
            Failure(FallbackReason.INFRASTRUCTURE, "no descriptors left"),
            RuntimeError("a bug"),
            HandVoid("the host is gone"),
        ],
    )
    async def test_they_make_the_hand_void_and_count_against_nobody(self, fault):
        seat, player, _ = seat_with(fault, fault, fault, CALL, circuit_failure_limit=1)
        for _ in range(3):
            with pytest.raises(HandVoid):
                await decide(seat)
        assert (await decide(seat)).fallback is None
        assert len(player.asked) == 4

    async def test_a_player_that_never_returns_is_one(self):
        class Stuck(Scripted):
            async def decide(self, callback, deadline_ms):
                await asyncio.sleep(60)

        seat = SeatedPlayer(Stuck(None), SeatSettings(time_limit_ms=10, player_grace_ms=20))
        with pytest.raises(HandVoid, match="deadline"):
            await decide(seat)

    async def test_a_trial_that_ends_void_leaves_the_next_one_to_try(self):
        seat, _, clock = seat_with(
            REFUSED,
            Failure(FallbackReason.INFRASTRUCTURE, "ours"),
            CALL,
            circuit_failure_limit=1,
            circuit_cooldown_s=1.0,
        )
        await decide(seat)
        clock.now_s += 1.1
        with pytest.raises(HandVoid):
            await decide(seat)
        assert (await decide(seat)).fallback is None


async def test_elapsed_time_fits_two_bytes():
    seat, _, _ = seat_with((CALL, 90_000), time_limit_ms=100_000)
    assert (await decide(seat)).elapsed_ms == 65_535


async def test_no_more_decisions_are_in_flight_than_the_player_allows_and_waiting_costs_no_time():
    class Counting(Scripted):
        max_in_flight = 2
        now = most = 0

        async def decide(self, callback, deadline_ms):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.05)
            self.now -= 1
            return CALL

    player = Counting(None)
    seat = SeatedPlayer(player, SeatSettings(time_limit_ms=10_000), time.monotonic)
    decisions = await asyncio.gather(*(decide(seat) for _ in range(8)))
    assert player.most == 2
    # Four rounds of 50 ms: only the round of one's own counts.
    assert max(decision.elapsed_ms for decision in decisions) < 190


def test_the_codes_of_the_reasons_are_one_to_twelve_in_the_order_of_the_design():
    assert [(reason.code, reason.value) for reason in FallbackReason] == [
        (1, "timeout"),
        (2, "connect_failed"),
        (3, "egress_denied"),
        (4, "http_status"),
        (5, "too_large"),
        (6, "malformed"),
        (7, "illegal_action"),
        (8, "sandbox_cpu"),
        (9, "sandbox_memory"),
        (10, "sandbox_exit"),
        (11, "circuit_open"),
        (12, "infrastructure"),
    ]
    assert all(FallbackReason.from_code(reason.code) is reason for reason in FallbackReason)
    assert FallbackReason.from_code(0) is None


class TestWatchdog:
    async def test_a_cancellation_from_outside_stays_one(self):
        class Waiting(Scripted):
            async def decide(self, callback, deadline_ms):
                await asyncio.sleep(60)

        seat = SeatedPlayer(Waiting(None), SeatSettings(player_grace_ms=10))
        task = asyncio.create_task(decide(seat))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_it_bites_only_who_is_overdue_and_rests_when_nobody_waits(self):
        watchdog = Watchdog(0.01)

        async def wait(for_s, allowed_s):
            task = asyncio.current_task()
            watchdog.guard(task, allowed_s)
            try:
                await asyncio.sleep(for_s)
            except asyncio.CancelledError:
                assert watchdog.released_overdue(task)
                return "bitten"
            finally:
                watchdog.release(task)
            return "done"

        results = await asyncio.gather(wait(0.05, 5), wait(5, 0.02), wait(0.03, 1), wait(9, 0))
        assert results == ["done", "bitten", "done", "bitten"]
        await asyncio.sleep(0.03)
        assert watchdog._timer is None
