"""Does an agent speak the protocol? Plays with it, and explains every mistake.

Owns the logic of `pokerarena agent check`: situations, whole hands, delivery and signatures. It
judges protocol, never poker skill: an agent that folds aces passes. Findings come as they are made,
each with the request that caused it, so that an author can replay it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any, Final

import msgspec

from pokerarena.agents.dial import Dialer
from pokerarena.agents.house import HousePlayer
from pokerarena.agents.http import HttpPlayer
from pokerarena.agents.player import Failure, FallbackReason
from pokerarena.agents.seat import fallback_action, judge
from pokerarena.agents.situations import situations
from pokerarena.engine.actions import Action, Kind, LegalActions
from pokerarena.engine.deal import SEED_BYTES, deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see
from pokerarena.protocol.answers import (
    DEFAULT_MAX_ANSWER_BYTES,
    MalformedAnswer,
    decode_answer,
    decode_batch,
)
from pokerarena.protocol.messages import (
    Callback,
    LineupSeat,
    RunEnd,
    RunStart,
    callback_from_view,
    encode,
    hand_end_from_view,
)
from pokerarena.protocol.signing import new_secret

PATIENCE: Final = 5
"""How many times the time limit we wait, to be able to say by how much it was missed."""
PARALLEL: Final = 8
_SILENT_AFTER: Final = 3
_RUN_ID: Final = "run_conformance"
_TABLE_ID: Final = "tbl_conformance"
_SEED: Final = b"conformance".ljust(SEED_BYTES, b".")
_OLD_S: Final = 3_600


class Severity(StrEnum):
    """Errors cost hands at a real table; warnings may one day."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake: where, what, and the exchange that shows it."""

    severity: Severity
    code: str
    where: str
    sentence: str
    request: bytes = b""
    answer: bytes = b""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was tried and how it went. Always the last thing that comes."""

    decisions: int
    errors: int
    warnings: int
    hands: int
    median_ms: float
    slowest_ms: float

    @property
    def passed(self) -> bool:
        return self.errors == 0 and self.decisions > 0


async def check_agent(
    url: str,
    dialer: Dialer,
    *,
    secret: str | None = None,
    time_limit_ms: int = 2_000,
    max_batch: int = 1,
    hands: int = 20,
) -> AsyncGenerator[Finding | Summary, None]:
    """Play with the agent at `url`; yield each `Finding`, and a `Summary` at the end."""
    check = _Check(url, dialer, secret, time_limit_ms)
    parts = [
        check.plays_every_situation(),
        check.plays_whole_hands(hands),
        check.ignores_unknown_fields(),
        check.takes_events(),
        check.answers_in_parallel(),
        check.knows_who_asks(),
    ]
    if max_batch > 1:
        parts.append(check.answers_batches(max_batch))
    errors = warnings = 0
    for part in parts:
        async for finding in part:
            errors += finding.severity is Severity.ERROR
            warnings += finding.severity is Severity.WARNING
            yield finding
        if check.gave_up:
            break
    for part in parts:
        await part.aclose()
    await check.player.close()
    times_ms = check.times_ms or [0.0]
    yield Summary(check.decisions, errors, warnings, check.hands, median(times_ms), max(times_ms))


class _Check:
    def __init__(self, url: str, dialer: Dialer, secret: str | None, time_limit_ms: int) -> None:
        self._url = url
        self._dialer = dialer
        self._secret = secret
        self._limit_ms = time_limit_ms
        self.player = HttpPlayer(url, dialer, secret=secret)
        self.decisions = 0
        self.hands = 0
        self.times_ms: list[float] = []
        self._silences = 0

    @property
    def gave_up(self) -> bool:
        """Whether the agent said nothing so often in a row that more questions are pointless."""
        return self._silences >= _SILENT_AFTER

    # --- the parts of the check --------------------------------------------------------------

    async def plays_every_situation(self) -> AsyncGenerator[Finding, None]:
        for number, (name, hand) in enumerate(situations(), start=1):
            callback = _callback(hand, number, self._limit_ms)
            findings, _ = await self._ask(name, callback, hand.legal())
            for finding in findings:
                yield finding
            if self.gave_up:
                return

    async def plays_whole_hands(self, hands: int) -> AsyncGenerator[Finding, None]:
        """Hands from start to end, heads-up and with more, against opponents of all tempers."""
        opponents = [HousePlayer(name, _SEED) for name in ("caller", "random", "tight")]
        for number in range(1, hands + 1):
            count = 2 + number % 5
            button = number % count
            deal = deal_cards(_SEED, b"conformance", number, count, button)
            seats = tuple(range(1, count + 1))
            stack = (2_000, 10_000, 1_000)[number % 3]
            hand = start(Rules(50, 100), seats, (stack,) * count, seats[button], deal).hand
            ours = 1 + number % count
            while not hand.complete:
                callback = _callback(hand, 1_000 + number, self._limit_ms)
                if callback.seat == ours:
                    where = f"hand {number} of {hands}, {callback.street}, {count} players"
                    findings, action = await self._ask(where, callback, hand.legal())
                    for finding in findings:
                        yield finding
                    if self.gave_up:
                        return
                else:
                    opponent = opponents[(number + callback.seat) % len(opponents)]
                    move = opponent.move(callback)
                    action = Action(Kind.of_text(move.action), move.amount)
                hand = apply(hand, action).hand
            self.hands += 1

    async def ignores_unknown_fields(self) -> AsyncGenerator[Finding, None]:
        """Later versions of the protocol add fields; an agent that chokes on one would break."""
        where = "a request with fields from the future"
        hand = situations()[3].hand
        callback = _callback(hand, 2_001, self._limit_ms)
        message = msgspec.json.decode(encode(callback))
        message |= {"weather": {"rain": [True, None, 1.5]}, "zzz_future_field": "x" * 200}
        for entry in message["history"]:
            entry["mood"] = "calm"
        body = msgspec.json.encode(message)
        findings, _ = await self._ask(where, callback, hand.legal(), body)
        for finding in findings:
            yield finding

    async def takes_events(self) -> AsyncGenerator[Finding, None]:
        """One-way messages may come to any agent; they need no answer, only no disaster."""
        for name, body in _events(self._limit_ms):
            started = time.perf_counter()
            reply = await self.player.post(
                f"conformance-{name}", body, self._limit_ms, DEFAULT_MAX_ANSWER_BYTES
            )
            took_ms = (time.perf_counter() - started) * 1000
            if isinstance(reply, Failure):
                yield Finding(
                    Severity.WARNING,
                    f"event_{reply.reason.value}",
                    f"a {name} message",
                    f"{reply.detail}; answer one-way messages with HTTP 200 and ignore them",
                    body,
                )
            elif took_ms > self._limit_ms / 2:
                yield Finding(
                    Severity.WARNING,
                    "event_slow",
                    f"a {name} message",
                    f"took {took_ms:,.0f} ms to be taken; messages queue up and are dropped",
                    body,
                )

    async def answers_in_parallel(self) -> AsyncGenerator[Finding, None]:
        """Several tables may ask at once; one connection at a time would make them wait."""
        where = f"{PARALLEL} callbacks at once"
        questions = [
            (_callback(hand, 3_000 + number, self._limit_ms), hand.legal())
            for number, (_, hand) in enumerate(situations()[:PARALLEL])
        ]
        results = await asyncio.gather(
            *(self._ask(where, callback, legal) for callback, legal in questions)
        )
        for findings, _ in results:
            for finding in findings:
                yield finding

    async def knows_who_asks(self) -> AsyncGenerator[Finding, None]:
        """Anybody can send a request to a URL; the signature says that it was the arena."""
        if self._secret is None:
            return
        now_s = time.time()
        impostors = [
            ("forged", HttpPlayer(self._url, self._dialer, secret=new_secret()), "a forged"),
            ("unsigned", HttpPlayer(self._url, self._dialer), "an unsigned"),
            (
                "replayed",
                HttpPlayer(
                    self._url,
                    self._dialer,
                    secret=self._secret,
                    wall_clock=lambda: now_s - _OLD_S,
                ),
                "an hour old",
            ),
        ]
        for code, player, words in impostors:
            callback = _callback(situations()[0].hand, 4_000, self._limit_ms)
            body = encode(callback)
            reply = await player.post(
                callback.decision_id, body, self._limit_ms, DEFAULT_MAX_ANSWER_BYTES
            )
            if isinstance(reply, bytes):
                yield Finding(
                    Severity.WARNING,
                    f"signature_{code}",
                    "signatures",
                    f"signature not verified: accepted {words} request; answer those with 401",
                    body,
                    reply,
                )

    async def answers_batches(self, max_batch: int) -> AsyncGenerator[Finding, None]:
        """A version that declares `max_batch` gets arrays."""
        callbacks = [
            _callback(situation.hand, 5_000 + number, self._limit_ms)
            for number, situation in enumerate(situations()[:max_batch])
        ]
        where = f"a request with {len(callbacks)} callbacks"
        body = b"[" + b",".join(map(encode, callbacks)) + b"]"
        max_bytes = DEFAULT_MAX_ANSWER_BYTES * len(callbacks)
        reply = await self.player.post("conformance-batch", body, self._limit_ms, max_bytes)
        if isinstance(reply, Failure):
            yield Finding(Severity.ERROR, reply.reason.value, where, reply.detail, body)
            return
        ids = [callback.decision_id for callback in callbacks]
        try:
            answers = decode_batch(reply, ids, max_bytes=max_bytes)
        except MalformedAnswer as error:
            yield Finding(Severity.ERROR, "malformed", where, str(error), body, reply)
            return
        for decision_id, answer in answers.items():
            self.decisions += 1
            if isinstance(answer, MalformedAnswer):
                yield Finding(
                    Severity.ERROR, "malformed", f"{where}, {decision_id}", str(answer), body, reply
                )

    # --- one decision ------------------------------------------------------------------------

    async def _ask(
        self, where: str, callback: Callback, legal: LegalActions, body: bytes | None = None
    ) -> tuple[list[Finding], Action]:
        """The findings about one decision, and the action with which the hand goes on."""
        self.decisions += 1
        body = body or encode(callback)
        started = time.perf_counter()
        reply = await self.player.post(
            callback.decision_id, body, PATIENCE * self._limit_ms, DEFAULT_MAX_ANSWER_BYTES
        )
        took_ms = (time.perf_counter() - started) * 1000
        instead = fallback_action(legal)
        if isinstance(reply, Failure):
            return [self._no_answer(where, reply, body)], instead
        self._silences = 0
        self.times_ms.append(took_ms)
        findings = []

        def found(severity: Severity, code: str, sentence: str) -> None:
            findings.append(Finding(severity, code, where, sentence, body, reply))

        if took_ms > self._limit_ms:
            found(Severity.ERROR, "timeout", f"took {took_ms:,.0f} ms of {self._limit_ms:,}")
        try:
            answer = decode_answer(reply)
        except MalformedAnswer as malformed:
            found(Severity.ERROR, "malformed", str(malformed))
            return findings, instead
        if answer.decision_id not in (None, callback.decision_id):
            found(
                Severity.ERROR,
                "malformed",
                f"answered decision_id {answer.decision_id}, asked was {callback.decision_id}",
            )
            return findings, instead
        verdict = judge(answer, legal)
        if isinstance(verdict, str):
            found(Severity.ERROR, "illegal_action", verdict)
            return findings, instead
        if answer.amount is not None and answer.action not in ("bet", "raise"):
            found(
                Severity.WARNING,
                "amount_ignored",
                f"answered {answer.action} with amount {answer.amount}; only a bet or raise has "
                "one, and it is ignored",
            )
        return findings, verdict

    def _no_answer(self, where: str, failure: Failure, body: bytes) -> Finding:
        sentence = failure.detail
        if failure.reason in (FallbackReason.CONNECT_FAILED, FallbackReason.TIMEOUT):
            self._silences += 1
        elif failure.reason is FallbackReason.EGRESS_DENIED:
            self._silences = _SILENT_AFTER
        if failure.reason is FallbackReason.TIMEOUT:
            sentence = f"no complete answer after {PATIENCE * self._limit_ms:,} ms"
        return Finding(Severity.ERROR, failure.reason.value, where, sentence, body)


def _callback(hand: Hand, hand_no: int, time_limit_ms: int) -> Callback:
    return callback_from_view(
        see(hand, Viewer.of_seats([hand.seat_to_act or 0])),
        run_id=_RUN_ID,
        table_id=_TABLE_ID,
        hand_id=f"hand_conformance_{hand_no}",
        hand_no=hand_no,
        action_deadline_ms=time_limit_ms,
    )


def _events(time_limit_ms: int) -> list[tuple[str, bytes]]:
    hand = situations()[7].hand
    hand = apply(hand, Action(Kind.CALL)).hand
    common: dict[str, Any] = {"run_id": _RUN_ID, "table_id": _TABLE_ID, "seat": 1}
    run_start = RunStart(
        **common,
        lineup=(LineupSeat(1, "your agent"), LineupSeat(2, "an opponent")),
        format="reset",
        planned_hands=100,
        small_blind=50,
        big_blind=100,
        ante=0,
        ante_kind="each",
        starting_stack=10_000,
        time_limit_ms=time_limit_ms,
        time_bank_ms=0,
    )
    hand_end = hand_end_from_view(
        see(hand, Viewer.of_seats([1])), **common, hand_id="hand_conformance_1", hand_no=1
    )
    run_end = RunEnd(**common, status="completed", hands_played=100, net=-250)
    return [
        ("run_start", encode(run_start)),
        ("hand_end", encode(hand_end)),
        ("run_end", encode(run_end)),
    ]
