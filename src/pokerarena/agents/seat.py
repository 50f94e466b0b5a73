"""A player in its seat: the arena's side of every decision.

Owns time (limit and bank), the judgement whether an answer is legal, the fallback when it is not,
and the circuit breaker. It turns every failure of an agent into a `Decision`; faults of ours leave
as `HandVoid`. It knows nothing of transports and nothing of storage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from pokerarena import metrics, tracing
from pokerarena.agents.breaker import CircuitBreaker
from pokerarena.agents.player import Failure, FallbackReason, HandVoid, Player, Reply
from pokerarena.agents.watchdog import Watchdog
from pokerarena.engine.actions import CHECK, FOLD, Action, Kind, LegalActions
from pokerarena.engine.view import HandView
from pokerarena.protocol.messages import (
    Answer,
    Callback,
    HandEnd,
    RunEnd,
    RunStart,
    callback_from_view,
)

MAX_ELAPSED_MS: Final = 65_535
_MAX_DETAIL_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class SeatSettings:
    """What the table grants every seat, and when the arena stops asking."""

    time_limit_ms: int = 2_000
    time_bank_ms: int = 0
    time_bank_refill_ms_per_hand: int = 0
    circuit_failure_limit: int = 5
    circuit_cooldown_s: float = 30.0
    # A player answers by its deadline; one that is silent for this much longer is broken itself.
    player_grace_ms: int = 5_000


class HandIds(NamedTuple):
    """The names of the hand a decision belongs to."""

    run_id: str
    table_id: str
    hand_id: str
    hand_no: int


class Decision(NamedTuple):
    """What the seat does, and how it came about."""

    action: Action
    fallback: FallbackReason | None
    elapsed_ms: int
    note: str | None
    detail: str | None


class SeatedPlayer:
    """One player in one seat of one run."""

    def __init__(
        self,
        player: Player,
        settings: SeatSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        kind: str = metrics.OTHER,
    ) -> None:
        self.player = player
        self._kind = kind
        for reason in FallbackReason:
            metrics.FALLBACKS.number(kind, reason.value)
        self._latency = metrics.CALLBACK_SECONDS.distribution(kind)
        self._settings = settings or SeatSettings()
        self._clock = clock
        self._bank_ms = self._settings.time_bank_ms
        self._refilled_hand_no = 0
        self._breaker = CircuitBreaker(
            self._settings.circuit_failure_limit, self._settings.circuit_cooldown_s
        )
        self._watchdog = Watchdog(self._settings.player_grace_ms / 1000)
        self._slots = asyncio.Semaphore(player.max_in_flight)

    @property
    def time_bank_left_ms(self) -> int:
        return self._bank_ms

    async def open(self, run_start: RunStart) -> None:
        await self.player.open(run_start)

    async def tell(self, message: HandEnd | RunEnd) -> None:
        await self.player.tell(message)

    async def close(self) -> None:
        await self.player.close()

    async def decide(self, view: HandView, legal: LegalActions, ids: HandIds) -> Decision:
        """Ask the player, and act for it when it fails. Raises `HandVoid` for faults of ours."""
        # Waiting for our own turn to ask comes before the clock starts.
        async with self._slots:
            started_s = self._clock()
            if not self._breaker.may_ask(started_s):
                self._count(FallbackReason.CIRCUIT_OPEN)
                return Decision(
                    fallback_action(legal),
                    FallbackReason.CIRCUIT_OPEN,
                    0,
                    None,
                    "not asked: too many failures in a row; the arena asks again after a pause",
                )
            self._refill_bank(ids.hand_no)
            deadline_ms = self._settings.time_limit_ms + self._bank_ms
            callback = callback_from_view(
                view,
                run_id=ids.run_id,
                table_id=ids.table_id,
                hand_id=ids.hand_id,
                hand_no=ids.hand_no,
                action_deadline_ms=deadline_ms,
            )
            try:
                if tracing.traces_hand(ids.hand_no):
                    with tracing.span(
                        "callback",
                        decision_id=callback.decision_id,
                        hand_id=ids.hand_id,
                        seat=callback.seat,
                        kind=self._kind,
                        deadline_ms=deadline_ms,
                    ) as traced:
                        reply = await self._ask(callback, deadline_ms)
                        if traced is not None and isinstance(reply, Failure):
                            traced.set_attribute("pokerarena.failure", reply.reason.value)
                else:
                    reply = await self._ask(callback, deadline_ms)
            except BaseException:
                self._breaker.abandoned()
                raise
            now_s = self._clock()
        self._latency.observe(now_s - started_s)
        elapsed_ms = max(0, round((now_s - started_s) * 1000))
        over_ms = elapsed_ms - self._settings.time_limit_ms
        if over_ms > 0:
            self._bank_ms = max(0, self._bank_ms - over_ms)
        return self._decision(reply, legal, min(elapsed_ms, MAX_ELAPSED_MS), now_s)

    async def _ask(self, callback: Callback, deadline_ms: int) -> Reply:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._watchdog.guard(task, (deadline_ms + self._settings.player_grace_ms) / 1000)
        try:
            reply = await self.player.decide(callback, deadline_ms)
        except asyncio.CancelledError:
            if self._watchdog.released_overdue(task):
                raise HandVoid("a player of ours did not keep its deadline") from None
            raise
        except HandVoid:
            raise
        except Exception as error:
            raise HandVoid(f"a player of ours failed: {type(error).__name__}: {error}") from error
        finally:
            self._watchdog.release(task)
        if isinstance(reply, Failure) and reply.reason is FallbackReason.INFRASTRUCTURE:
            raise HandVoid(reply.detail)
        return reply

    def _decision(
        self, reply: Reply, legal: LegalActions, elapsed_ms: int, now_s: float
    ) -> Decision:
        note = None
        if not isinstance(reply, Failure):
            note = reply.note
            judged = judge(reply, legal)
            if isinstance(judged, Action):
                self._breaker.succeeded()
                return Decision(judged, None, elapsed_ms, note, None)
            reply = Failure(FallbackReason.ILLEGAL_ACTION, judged)
        self._breaker.failed(now_s)
        self._count(reply.reason)
        return Decision(
            fallback_action(legal),
            reply.reason,
            elapsed_ms,
            note,
            reply.detail[:_MAX_DETAIL_CHARS],
        )

    def _count(self, reason: FallbackReason) -> None:
        metrics.FALLBACKS.number(self._kind, reason.value).add()

    def _refill_bank(self, hand_no: int) -> None:
        refill_ms = self._settings.time_bank_refill_ms_per_hand
        if refill_ms and hand_no > self._refilled_hand_no:
            # The first hand starts with a full bank as it is.
            if self._refilled_hand_no:
                self._bank_ms = min(self._settings.time_bank_ms, self._bank_ms + refill_ms)
            self._refilled_hand_no = hand_no


def fallback_action(legal: LegalActions) -> Action:
    """What the arena does for an agent that failed: check if that is legal, else fold."""
    return CHECK if Kind.CHECK in legal.kinds else FOLD


def judge(answer: Answer, legal: LegalActions) -> Action | str:
    """The action an answer stands for, or the sentence that says why it is illegal."""
    kind = Kind.of_text(answer.action)
    if kind not in legal.kinds:
        return f"answered {answer.action}, which is not possible. {legal.sentence()}"
    if kind is not Kind.BET and kind is not Kind.RAISE:
        return Action(kind)
    amount, least, most = answer.amount, legal.min_raise_to, legal.max_raise_to
    if amount is None or least is None or most is None:
        return f"answered {answer.action} without an amount. {legal.sentence()}"
    if amount < least:
        return f"answered {answer.action} to {amount} when min_raise_to was {least}"
    if amount > most:
        return f"answered {answer.action} to {amount} when max_raise_to was {most}"
    return Action(kind, amount)
