"""The agent's end of the pipe: one JSON object a line in, one a line out.

Owns stdin and stdout while an agent runs hosted. Everything that waits is read before the first
answer is computed, so that one system call serves many parallel hands. What the agent prints goes
to stderr: a stray line must never be taken for an answer.
"""

from __future__ import annotations

import json
import os
import sys
import time

from pokerarena_sdk.view import BadAction, View, answer_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

READ_BYTES = 1 << 20
# Answers that are ready do not wait longer than this for slower ones of the same batch.
HOLD_ANSWERS_S = 0.002
_MAX_ERROR_CHARS = 300


def claim_stdout() -> int:
    """Keep the real stdout for the protocol and send everybody else's to stderr."""
    protocol_fd = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return protocol_fd


def serve_pipe(
    act: Callable[[View], Any],
    on_event: Callable[[dict[str, Any]], None] | None = None,
    in_fd: int = 0,
    out_fd: int | None = None,
) -> None:
    """Answer callbacks until stdin ends."""
    if out_fd is None:
        out_fd = claim_stdout()
    loads, read, monotonic = json.loads, os.read, time.monotonic
    rest = b""
    while True:
        data = read(in_fd, READ_BYTES)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        out: list[bytes] = []
        flushed_s = monotonic()
        for line in lines:
            if not line:
                continue
            message = loads(line)
            if message.get("type", "callback") != "callback":
                _tell(on_event, message)
                continue
            out.append(_answer_line(act, message))
            if len(lines) > 1 and monotonic() - flushed_s > HOLD_ANSWERS_S:
                _write_all(out_fd, b"".join(out))
                out.clear()
                flushed_s = monotonic()
        if out:
            _write_all(out_fd, b"".join(out))


def decide(act: Callable[[View], Any], message: dict[str, Any]) -> dict[str, Any]:
    """One answer, or an object with `error` that the arena shows to the agent's owner."""
    decision_id = message.get("decision_id")
    try:
        return answer_of(act(View(message)), decision_id)
    except BadAction as error:
        text = str(error)
        print(f"pokerarena_sdk: {text}", file=sys.stderr)
    except Exception as error:
        import traceback

        traceback.print_exc(file=sys.stderr)
        text = f"act raised {type(error).__name__}: {error}"
    return {"decision_id": decision_id, "error": text[:_MAX_ERROR_CHARS]}


def _answer_line(act: Callable[[View], Any], message: dict[str, Any]) -> bytes:
    answer = decide(act, message)
    decision_id = answer["decision_id"]
    if len(answer) == 2 and "action" in answer and _plain(decision_id):
        # The commonest answer, written by hand: the encoder would take as long as a simple agent.
        return f'{{"action": "{answer["action"]}", "decision_id": "{decision_id}"}}\n'.encode()
    return json.dumps(answer).encode() + b"\n"


def _plain(text: Any) -> bool:
    return (
        isinstance(text, str)
        and text.isascii()
        and text.replace("-", "").replace("_", "").isalnum()
    )


def _tell(on_event: Callable[[dict[str, Any]], None] | None, message: dict[str, Any]) -> None:
    if on_event is None:
        return
    try:
        on_event(message)
    except Exception:
        import traceback

        traceback.print_exc(file=sys.stderr)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
