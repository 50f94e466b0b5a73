"""Follows a table's live stream and draws it.

Owns: the stream's beginning, its interruptions and its end. Must never: ask the server more often
than needed; a lost stream is asked for again with a growing pause, for a bounded time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.live import Live

from pokerarena.errors import Unavailable
from pokerarena.ops.api_client import ApiClient, Event
from pokerarena.ops.table_picture import LiveTable, one_line, picture

RECONNECT_FOR_S: Final = 30.0
RECONNECT_PAUSE_S: Final = 1.0
# Said by the server in an `end` event: everything else ends the watching.
REASON_TO_GO_ON: Final = "limit"
ENDINGS: Final = {
    "shutdown": "the server stops",
    "not_found": "the table can be seen no more",
}


def watch(client: ApiClient, table_id: str, console: Console, *, once: bool) -> None:
    """Draws the table until it can be seen no more; `once` draws one picture."""
    table = _look_up(client, table_id)
    if once:
        for event in client.events(_live(table_id)):
            _take(table, event)
            if event.name in ("hand", "keep-alive", "end"):
                break
        console.print(picture(table))
    elif console.is_terminal:
        with Live(picture(table), console=console, screen=True, auto_refresh=False) as screen:
            ending = _follow(
                client, table_id, table, lambda: screen.update(picture(table), refresh=True)
            )
        console.print(ending)
    else:
        printed: set[str] = set()

        def print_complete() -> None:
            hand = table.hand
            if hand is not None and hand["view"]["complete"] and hand["hand_id"] not in printed:
                printed.clear()
                printed.add(hand["hand_id"])
                console.print(one_line(table), markup=False, highlight=False, soft_wrap=True)

        console.print(_follow(client, table_id, table, print_complete))


def _follow(client: ApiClient, table_id: str, table: LiveTable, draw: Callable[[], None]) -> str:
    for event in _events(client, table_id):
        if event.name == "end":
            return ENDINGS.get(event.data["reason"], f"the stream ended: {event.data['reason']}")
        _take(table, event)
        draw()
    return "the stream ended"


def _events(client: ApiClient, table_id: str) -> Iterator[Event]:
    """The stream's events, over interruptions."""
    lost_at: float | None = None
    while True:
        try:
            for event in client.events(_live(table_id)):
                lost_at = None
                if event.name == "end" and event.data["reason"] == REASON_TO_GO_ON:
                    break
                yield event
                if event.name == "end":
                    return
        except Unavailable:
            now = time.monotonic()
            lost_at = lost_at or now
            if now - lost_at > RECONNECT_FOR_S:
                raise
        time.sleep(RECONNECT_PAUSE_S)


def _look_up(client: ApiClient, table_id: str) -> LiveTable:
    shown = client.get(f"/v1/tables/{table_id}")
    seats = client.get(f"/v1/tables/{table_id}/seats")["items"]
    return LiveTable(shown["name"], {seat["seat_no"]: seat["agent_name"] for seat in seats})


def _take(table: LiveTable, event: Event) -> None:
    if event.name == "hand":
        table.hand = event.data
    elif event.name == "run":
        table.run = event.data


def _live(table_id: str) -> str:
    return f"/v1/tables/{table_id}/live"
