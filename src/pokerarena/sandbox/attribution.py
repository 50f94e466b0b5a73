"""Which question does this line answer?

Owns the matching of an agent's lines to the callbacks in flight: by `decision_id`, or by order for
agents that give none. A late answer is never taken for the next one. It knows nothing of processes.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Collection
from enum import Enum
from typing import Final, NamedTuple

from pokerarena.agents.player import Failure, FallbackReason, Reply
from pokerarena.protocol.answers import MalformedAnswer, decode_answer

_LATE_IDS_KEPT: Final = 1_024
_MAX_ERROR_CHARS: Final = 240
_NO_ID: Final = "answered without a decision_id while several callbacks were in flight"


class Ignored(Enum):
    """Lines that settle nothing."""

    LATE = "answers a question that is no longer waited for"
    STRAY = "answers nothing that was asked"


class Settled(NamedTuple):
    """A question and what its seat gets."""

    decision_id: str
    reply: Reply


class Attribution:
    """Remembers the questions that were given up, as long as their answers may still come."""

    def __init__(self, answer_max_bytes: int) -> None:
        self._max_bytes = answer_max_bytes
        self._late: deque[str] = deque(maxlen=_LATE_IDS_KEPT)
        self._late_without_id = 0

    def give_up(self, decision_id: str) -> None:
        """Nobody waits for this answer any more."""
        self._late.append(decision_id)
        self._late_without_id += 1

    def forget(self) -> None:
        """The process is gone, and whatever it still owed with it."""
        self._late.clear()
        self._late_without_id = 0

    def read(self, line: bytes, asked: Collection[str]) -> Settled | Ignored:
        """What one line does. `asked` are the questions in flight, the oldest first."""
        try:
            answer = decode_answer(line, max_bytes=self._max_bytes)
        except MalformedAnswer as error:
            decision_id, problem = _loosely(line, str(error))
            return self._attribute(
                decision_id, Failure(FallbackReason.MALFORMED, problem), asked, readable=False
            )
        return self._attribute(answer.decision_id, answer, asked, readable=True)

    def _attribute(
        self, decision_id: str | None, reply: Reply, asked: Collection[str], *, readable: bool
    ) -> Settled | Ignored:
        if decision_id is not None and decision_id in asked:
            return Settled(decision_id, reply)
        if decision_id is not None and decision_id in self._late:
            self._late_without_id = max(0, self._late_without_id - 1)
            return Ignored.LATE
        if decision_id is not None and readable:
            return Ignored.STRAY
        if self._late_without_id:
            # An agent that gives no ids answers in order: this is the answer that came too late.
            self._late_without_id -= 1
            return Ignored.LATE
        if not asked:
            return Ignored.STRAY
        oldest = next(iter(asked))
        if readable and len(asked) > 1:
            return Settled(oldest, Failure(FallbackReason.MALFORMED, _NO_ID))
        return Settled(oldest, reply)


def _loosely(line: bytes, problem: str) -> tuple[str | None, str]:
    """Whom a malformed line may have meant, and what is wrong in its author's own words."""
    with contextlib.suppress(ValueError, RecursionError):
        fields = json.loads(line)
        if isinstance(fields, dict):
            # What the SDK writes when the agent's own code raised.
            if isinstance(error := fields.get("error"), str) and error:
                problem = error[:_MAX_ERROR_CHARS]
            if isinstance(decision_id := fields.get("decision_id"), str):
                return decision_id, problem
    return None, problem
