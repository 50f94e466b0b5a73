"""Is an uploaded agent fit to play? A short check match in its sandbox, every mistake explained.

Owns what is tried with a hosted version before it may be used, and with an author's folder. It
judges protocol and quotas, never poker skill; it speaks in the same findings as the check of an
HTTP agent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from statistics import median
from typing import Final

from pokerarena.agents.conformance import Finding, Severity, Summary
from pokerarena.agents.house import HousePlayer
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.agents.seat import fallback_action, judge
from pokerarena.agents.situations import situations
from pokerarena.engine.actions import Action, Kind, LegalActions
from pokerarena.engine.deal import SEED_BYTES, deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see
from pokerarena.protocol.messages import (
    Answer,
    Callback,
    LineupSeat,
    RunEnd,
    RunStart,
    callback_from_view,
    encode,
)
from pokerarena.sandbox.player import HostedPlayer

_RUN_ID: Final = "run_check"
_TABLE_ID: Final = "tbl_check"
_SEED: Final = b"check match".ljust(SEED_BYTES, b".")
_GIVE_UP_AFTER: Final = 5
_BEFORE_IT_PLAYS: Final = (FallbackReason.SANDBOX_EXIT, FallbackReason.SANDBOX_CPU)


async def check_hosted(
    player: HostedPlayer, *, time_limit_ms: int = 2_000, hands: int = 20
) -> AsyncGenerator[Finding | Summary, None]:
    """Play with a hosted agent; yield each `Finding`, and a `Summary` at the end.

    The player is opened and closed here. Faults of ours leave as `Unavailable`.
    """
    check = _Check(player, time_limit_ms)
    errors = warnings = 0
    try:
        await player.open(_run_start(time_limit_ms))
        for part in (check.situations(), check.in_flight(), check.whole_hands(hands)):
            async for finding in part:
                errors += finding.severity is Severity.ERROR
                warnings += finding.severity is Severity.WARNING
                yield finding
            if check.gave_up:
                break
        await player.tell(_run_end(check.hands))
        if stray := player.usage().stray_lines:
            warnings += 1
            yield Finding(
                Severity.WARNING,
                "stray_output",
                "the whole check",
                f"printed {stray} lines that answered nothing; log to stderr instead of stdout",
            )
    finally:
        await player.close()
    times_ms = check.times_ms or [0.0]
    yield Summary(check.decisions, errors, warnings, check.hands, median(times_ms), max(times_ms))


class _Check:
    def __init__(self, player: HostedPlayer, time_limit_ms: int) -> None:
        self._player = player
        self._limit_ms = time_limit_ms
        self._failures = 0
        self.decisions = 0
        self.hands = 0
        self.times_ms: list[float] = []

    @property
    def gave_up(self) -> bool:
        """Whether it failed so often in a row that more questions are pointless."""
        return self._failures >= _GIVE_UP_AFTER

    async def situations(self) -> AsyncGenerator[Finding, None]:
        """The moments that every agent meets sooner or later, one after the other."""
        for number, (name, hand) in enumerate(situations(), start=1):
            finding, _ = await self._ask(name, self._callback(hand, number), hand.legal())
            if finding is not None:
                yield finding
            if self.gave_up:
                return

    async def in_flight(self) -> AsyncGenerator[Finding, None]:
        """As many at once as its manifest promises."""
        count = self._player.max_in_flight
        if count == 1:
            return
        moments = situations()
        asked = [
            (self._callback(moments[number % len(moments)].hand, 2_000 + number), number)
            for number in range(count)
        ]
        where = f"{count} callbacks in flight, as max_in_flight says"
        results = await asyncio.gather(
            *(
                self._ask(where, callback, moments[number % len(moments)].hand.legal())
                for callback, number in asked
            )
        )
        for finding, _ in results:
            if finding is not None:
                yield finding

    async def whole_hands(self, hands: int) -> AsyncGenerator[Finding, None]:
        """Hands from start to end, heads-up and with more, against opponents of all tempers."""
        opponents = [HousePlayer(name, _SEED) for name in ("caller", "random", "tight")]
        for number in range(1, hands + 1):
            count = 2 + number % 5
            button = number % count
            seats = tuple(range(1, count + 1))
            deal = deal_cards(_SEED, b"check", number, count, button)
            hand = start(Rules(50, 100), seats, (10_000,) * count, seats[button], deal).hand
            ours = 1 + number % count
            while not hand.complete:
                callback = self._callback(hand, 10_000 + number)
                if callback.seat == ours:
                    where = f"hand {number} of {hands}, {callback.street}, {count} players"
                    finding, action = await self._ask(where, callback, hand.legal())
                    if finding is not None:
                        yield finding
                    if self.gave_up:
                        return
                else:
                    opponent = opponents[(number + callback.seat) % len(opponents)]
                    move = opponent.move(callback)
                    action = Action(Kind.of_text(move.action), move.amount)
                hand = apply(hand, action).hand
            self.hands += 1

    async def _ask(
        self, where: str, callback: Callback, legal: LegalActions
    ) -> tuple[Finding | None, Action]:
        """What was wrong with one decision, if anything, and the action that the hand goes on with."""
        self.decisions += 1
        started_s = time.perf_counter()
        reply = await self._player.decide(callback, self._limit_ms)
        self.times_ms.append((time.perf_counter() - started_s) * 1000)
        verdict = self._judge(reply, legal)
        if isinstance(verdict, Action):
            self._failures = 0
            return None, verdict
        self._failures += 1
        code, sentence = verdict
        body = encode(callback)
        answer = encode(reply) if isinstance(reply, Answer) else b""
        return (
            Finding(Severity.ERROR, code, where, sentence, body, answer),
            fallback_action(legal),
        )

    def _judge(self, reply: Answer | Failure, legal: LegalActions) -> Action | tuple[str, str]:
        if isinstance(reply, Failure):
            sentence = reply.detail
            if reply.reason in _BEFORE_IT_PLAYS and (words := self._player.usage().stderr.strip()):
                sentence += f" (stderr ends with: {words.splitlines()[-1][:200]})"
            return reply.reason.value, sentence
        verdict = judge(reply, legal)
        return verdict if isinstance(verdict, Action) else ("illegal_action", verdict)

    def _callback(self, hand: Hand, hand_no: int) -> Callback:
        return callback_from_view(
            see(hand, Viewer.of_seats([hand.seat_to_act or 0])),
            run_id=_RUN_ID,
            table_id=_TABLE_ID,
            hand_id=f"hand_check_{hand_no}",
            hand_no=hand_no,
            action_deadline_ms=self._limit_ms,
        )


def _run_start(time_limit_ms: int) -> RunStart:
    return RunStart(
        run_id=_RUN_ID,
        table_id=_TABLE_ID,
        seat=1,
        lineup=(LineupSeat(1, "your agent"), LineupSeat(2, "the house")),
        format="reset",
        planned_hands=None,
        small_blind=50,
        big_blind=100,
        ante=0,
        ante_kind="each",
        starting_stack=10_000,
        time_limit_ms=time_limit_ms,
        time_bank_ms=0,
    )


def _run_end(hands: int) -> RunEnd:
    return RunEnd(
        run_id=_RUN_ID, table_id=_TABLE_ID, seat=1, status="completed", hands_played=hands, net=0
    )
