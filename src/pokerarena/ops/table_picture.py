"""A table drawn in characters: seats around it, cards in colour, the pot in the middle.

Owns: turning what the API says of a live hand into text. Pure: the same state gives the same
picture. Must never: know more of a hand than the API said, or where the picture goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from rich.text import Text

WIDTH: Final = 78
HEIGHT: Final = 19
SEAT_WIDTH: Final = 18
LAST_ACTIONS: Final = 6
SUITS: Final = {
    "s": ("♠", "bold white"),
    "h": ("♥", "bold red"),
    "d": ("♦", "bold bright_blue"),
    "c": ("♣", "bold green"),
}
HIDDEN: Final = "▒▒ ▒▒"


@dataclass(slots=True)
class LiveTable:
    """What is known of a table now; `hand` and `run` as the live stream says them."""

    name: str
    names: dict[int, str] = field(default_factory=dict)
    hand: dict[str, Any] | None = None
    run: dict[str, Any] | None = None

    def name_of(self, seat_no: int) -> str:
        return self.names.get(seat_no, f"seat {seat_no}")


class Canvas:
    """A rectangle of characters, each with a style."""

    def __init__(self, width: int, height: int) -> None:
        self._rows = [[(" ", "")] * width for _ in range(height)]
        self._width = width

    def put(self, x: int, y: int, text: str, style: str = "") -> int:
        """Writes, cut off at the edges; returns the column after the text."""
        for offset, character in enumerate(text):
            if 0 <= y < len(self._rows) and 0 <= x + offset < self._width:
                self._rows[y][x + offset] = (character, style)
        return x + len(text)

    def text(self) -> Text:
        picture = Text(no_wrap=True)
        for number, row in enumerate(self._rows):
            if number:
                picture.append("\n")
            for character, style in row:
                picture.append(character, style)
        return picture


def picture(table: LiveTable) -> Text:
    """The whole picture."""
    parts = [_headline(table)]
    if table.hand is None:
        parts.append(Text("\n  no hand is being played here just now\n", style="dim"))
    else:
        parts += [_table(table, table.hand["view"]), _last_actions(table, table.hand["view"])]
    return Text("\n").join(parts)


def one_line(table: LiveTable) -> str:
    """A complete hand in one line, for a log rather than a screen."""
    if table.hand is None:
        return f"{table.name}: no hand"
    view = table.hand["view"]
    board = " ".join(view["board"]) or "no board"
    nets = ", ".join(
        f"{table.name_of(seat['seat_no'])} {seat['net']:+,}"
        for seat in view["seats"]
        if seat["net"]
    )
    return f"hand {table.hand['hand_no']:,}  {board}  pot {_pot(view):,}  {nets or 'nobody won'}"


def _headline(table: LiveTable) -> Text:
    line = Text(f" {table.name} ", style="bold reverse")
    if table.hand is not None:
        view = table.hand["view"]
        line.append(f"  hand {table.hand['hand_no']:,}", "bold")
        line.append(f"   blinds {view['small_blind']:,}/{view['big_blind']:,}", "dim")
        if view["ante"]:
            line.append(f" ante {view['ante']:,}", "dim")
    if table.run is not None:
        done, target = table.run["hands_done"], table.run["hands_target"]
        line.append(f"   {table.run['status']} {done:,} of {target:,}", "dim")
    return line


def _table(table: LiveTable, view: dict[str, Any]) -> Text:
    canvas = Canvas(WIDTH, HEIGHT)
    middle_x, middle_y = WIDTH // 2, HEIGHT // 2
    _felt(canvas, middle_x, middle_y)
    _board(canvas, middle_x, middle_y - 1, view)
    for place, seat in enumerate(view["seats"]):
        # From the bottom, clockwise, as one sits at a table.
        angle = math.pi / 2 + 2 * math.pi * place / len(view["seats"])
        x = middle_x + round((WIDTH - SEAT_WIDTH) / 2 * math.cos(angle))
        y = middle_y + round((HEIGHT - 4) / 2 * math.sin(angle))
        _seat(canvas, x - SEAT_WIDTH // 2, y - 1, table, view, seat)
    return canvas.text()


def _felt(canvas: Canvas, middle_x: int, middle_y: int) -> None:
    for step in range(400):
        angle = 2 * math.pi * step / 400
        x = middle_x + round(21 * math.cos(angle))
        y = middle_y + round(4 * math.sin(angle))
        canvas.put(x, y, "·", "green")


def _board(canvas: Canvas, middle_x: int, y: int, view: dict[str, Any]) -> None:
    cards: list[str] = view["board"]
    x = middle_x - 7
    for place in range(5):
        if place < len(cards):
            x = _card(canvas, x, y, cards[place]) + 1
        else:
            x = canvas.put(x, y, "··", "dim") + 1
    pot = f"pot {_pot(view):,}"
    canvas.put(middle_x - len(pot) // 2, y + 1, pot, "bold yellow")
    street = "showdown" if view["complete"] and _tabled(view) else view["street"]
    canvas.put(middle_x - len(street) // 2, y + 2, street, "dim")


def _seat(
    canvas: Canvas, x: int, y: int, table: LiveTable, view: dict[str, Any], seat: dict[str, Any]
) -> None:
    seat_no = seat["seat_no"]
    # Blank what lies below: seats lie on top of the felt.
    for line in range(3):
        canvas.put(x, y + line, " " * SEAT_WIDTH)
    acts = view["seat_to_act"] == seat_no
    column = canvas.put(x, y, "▶ " if acts else "  ", "bold yellow")
    style = "dim" if seat["folded"] else "bold yellow" if acts else "bold"
    column = canvas.put(column, y, table.name_of(seat_no)[: SEAT_WIDTH - 7], style)
    if view["button_seat"] == seat_no:
        canvas.put(column + 1, y, " D ", "black on white")
    column = x + 2
    if seat["cards"] is not None:
        for card in seat["cards"]:
            column = _card(canvas, column, y + 1, card) + 1
    elif not seat["folded"]:
        column = canvas.put(column, y + 1, HIDDEN, "cyan") + 1
    word = "folded" if seat["folded"] else "all-in" if seat["all_in"] else ""
    canvas.put(column, y + 1, word, "dim" if seat["folded"] else "bold red")
    column = canvas.put(x + 2, y + 2, f"{seat['stack']:,}", "dim" if seat["folded"] else "")
    if view["complete"] and seat["net"]:
        canvas.put(column + 1, y + 2, f"{seat['net']:+,}", "green" if seat["net"] > 0 else "red")
    elif seat["bet"]:
        canvas.put(column + 1, y + 2, f"bet {seat['bet']:,}", "yellow")


def _card(canvas: Canvas, x: int, y: int, card: str) -> int:
    sign, style = SUITS[card[1]]
    return canvas.put(x, y, card[0] + sign, style)


def _last_actions(table: LiveTable, view: dict[str, Any]) -> Text:
    lines = Text()
    for entry in view["history"][-LAST_ACTIONS:]:
        amount = "" if entry["amount"] is None else f" {entry['amount']:,}"
        lines.append(f"  {entry['street']:<8}", "dim")
        lines.append(f"{table.name_of(entry['seat_no'])} {entry['action']}{amount}\n")
    for award in view["pots"]:
        for seat_no, share in zip(award["seats"], award["shares"], strict=True):
            lines.append(f"  {table.name_of(seat_no)} wins {share:,}\n", "bold green")
    return lines


def _pot(view: dict[str, Any]) -> int:
    """A complete hand's pot was paid out; what it held is the sum of what was won."""
    if view["complete"]:
        return sum(award["chips"] for award in view["pots"])
    pot: int = view["pot"]
    return pot


def _tabled(view: dict[str, Any]) -> bool:
    return any(seat["tabled"] for seat in view["seats"])
