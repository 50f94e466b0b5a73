"""Reading what an agent answered: strict, bounded, and with a sentence for every mistake.

Owns the line between an answer and a malformed answer. It never judges poker: an answer that is
well formed may still be illegal, and that is for the seat to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Final

import msgspec

from pokerarena.protocol.messages import (
    ACTION_NAMES,
    MAX_AMOUNT,
    MAX_DECISION_ID_CHARS,
    MAX_NOTE_BYTES,
    Answer,
)

DEFAULT_MAX_ANSWER_BYTES: Final = 16_384

_decode: Final = msgspec.json.Decoder(Answer).decode
_decode_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_FIELD_IN_ERROR: Final = re.compile(r"at `\$\.(\w+)`$")
_WANTED: Final = {
    "action": 'action must be one of "fold", "check", "call", "bet", "raise"',
    "amount": f"amount must be a whole number of chips from -{MAX_AMOUNT} to {MAX_AMOUNT}, or null",
    "decision_id": f"decision_id must be a string of at most {MAX_DECISION_ID_CHARS} characters",
    "note": "note must be a string",
}
_EXAMPLE: Final = 'such as {"action": "call"}'
_SHOWN_CHARS: Final = 60


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as they came, repetitions included."""


class MalformedAnswer(Exception):
    """An answer that breaks the protocol; the message tells its author what to change."""


def decode_answer(body: bytes, *, max_bytes: int = DEFAULT_MAX_ANSWER_BYTES) -> Answer:
    """The one answer in `body`, or `MalformedAnswer` with a sentence."""
    if len(body) > max_bytes:
        raise MalformedAnswer(f"the answer has {len(body)} bytes; at most {max_bytes} are allowed")
    if not body.isascii():
        # The decoder does not look inside fields it skips, and half-read text is not an answer.
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise MalformedAnswer(f"the answer is not UTF-8 at byte {error.start}") from None
    try:
        answer = _decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise MalformedAnswer(_explain(body, error)) from None
    if _may_repeat_a_key(body):
        _refuse_repeated_keys(body)
    if answer.note is not None:
        _check_note(answer.note)
    if answer.amount is None and answer.action in ("bet", "raise"):
        raise MalformedAnswer(
            f'a {answer.action} needs an amount: {{"action": "{answer.action}", "amount": 200}} '
            "means 200 chips in all on this street"
        )
    return answer


def decode_batch(
    body: bytes, asked: Collection[str], *, max_bytes: int = DEFAULT_MAX_ANSWER_BYTES
) -> dict[str, Answer | MalformedAnswer]:
    """The answer to each decision in `asked`; one bad answer spoils no other.

    `max_bytes` bounds the whole array. `MalformedAnswer` is raised when there is no array at all,
    and stands in place of an answer that is missing, repeated or malformed.
    """
    if len(body) > max_bytes:
        raise MalformedAnswer(f"the answers have {len(body)} bytes; {max_bytes} are allowed")
    try:
        items = _decode_array(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError):
        raise MalformedAnswer(
            f"a request with an array of {len(asked)} callbacks is answered by a JSON array, one "
            "object with a decision_id for each"
        ) from None
    if len(items) > len(asked):
        raise MalformedAnswer(f"{len(items)} answers to {len(asked)} callbacks")
    answers: dict[str, Answer | MalformedAnswer] = {}
    lost = ""
    for item in items:
        decision_id, answer = _decode_item(bytes(item), max_bytes)
        if decision_id is None or decision_id not in asked:
            # Whose it was meant to be is unknown; the sentence goes to those left without one.
            if isinstance(answer, Answer):
                answer = MalformedAnswer(f"nobody asked for decision_id {_shown(decision_id)}")
            lost = lost or f" ({answer})"
        elif decision_id in answers:
            answers[decision_id] = MalformedAnswer(
                f"two answers to decision_id {_shown(decision_id)}"
            )
        else:
            answers[decision_id] = answer
    for decision_id in asked:
        if decision_id not in answers:
            answers[decision_id] = MalformedAnswer(
                f"no answer to decision_id {_shown(decision_id)}{lost}"
            )
    return answers


def _decode_item(item: bytes, max_bytes: int) -> tuple[str | None, Answer | MalformedAnswer]:
    """One answer of an array, and the decision it is for as far as one can tell."""
    try:
        answer = decode_answer(item, max_bytes=max_bytes)
    except MalformedAnswer as error:
        return _addressee(item), error
    if answer.decision_id is None:
        return None, MalformedAnswer("an answer in the array has no decision_id")
    return answer.decision_id, answer


def _may_repeat_a_key(body: bytes) -> bool:
    """False only when no known key can stand twice: a cheap test before the thorough one."""
    count = body.count
    return (
        count(b'"action"') > 1
        or count(b'"amount"') > 1
        or count(b'"decision_id"') > 1
        or count(b'"note"') > 1
        # An escaped letter hides a key from the counts.
        or b"\\" in body
    )


def _refuse_repeated_keys(body: bytes) -> None:
    """Two values for one field would mean different things to different readers.

    Only our own fields count: whatever an agent puts into others is ignored, repeated or not.
    """
    try:
        fields = json.loads(body, object_pairs_hook=_Pairs, parse_int=str)
    except (ValueError, RecursionError):
        raise MalformedAnswer("the answer is not readable JSON") from None
    seen = set()
    for name, _ in fields:
        if name in seen and name in _WANTED:
            raise MalformedAnswer(f"the field {_shown(name)} stands twice")
        seen.add(name)


def _check_note(note: str) -> None:
    if len(note) > MAX_NOTE_BYTES or len(note.encode()) > MAX_NOTE_BYTES:
        raise MalformedAnswer(f"note is longer than {MAX_NOTE_BYTES} bytes")
    if "\0" in note:
        raise MalformedAnswer("note contains a NUL character")


def _addressee(item: bytes) -> str | None:
    try:
        loose = json.loads(item)
    except (ValueError, RecursionError):
        return None
    decision_id = loose.get("decision_id") if isinstance(loose, dict) else None
    return decision_id if isinstance(decision_id, str) else None


def _explain(body: bytes, error: Exception) -> str:
    if not body.strip():
        return f"the answer is empty; expected a JSON object {_EXAMPLE}"
    if isinstance(error, RecursionError):
        return "the answer is nested too deeply"
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        if (field := _FIELD_IN_ERROR.search(text)) and field[1] in _WANTED:
            return f"{_WANTED[field[1]]}; got {_got(body, field[1])}"
        if "missing required field" in text:
            return f"the answer has no action; expected {_EXAMPLE}"
        return f"the answer must be a JSON object {_EXAMPLE}"
    return f"the answer is not JSON: {text.removeprefix('JSON is malformed: ')}"


def _got(body: bytes, field: str) -> str:
    """The offending value as its author wrote it, cut to a length that fits a log line."""
    try:
        # Numbers stay text: a huge one must cost nothing and be shown as it came.
        value = json.loads(body, parse_int=str, parse_float=str)[field]
    except (ValueError, RecursionError, KeyError, TypeError):
        return "something else"
    if isinstance(value, str) and field == "amount" and f'"{value}"'.encode() not in body:
        return _cut(value)
    if isinstance(value, str) and field == "action" and value.lower() in ACTION_NAMES:
        return f"{_shown(value)} (lower case, please)"
    return _shown(value)


def _shown(value: object) -> str:
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
