"""The formats: what the next hand starts from, given what the last one left.

Owns the rules of a run (the table's rules as they were when the run was made) and the four ways in
which stacks, button, blinds and deals go on. Pure: no clock, no I/O, no randomness, no agents.

- ``cash``: stacks carry over; a seat without chips is re-bought to the starting stack, or leaves.
- ``reset``: every hand starts from the starting stack, the button one seat further each hand.
- ``duplicate``: as reset, and every deal is played once with the button at each seat. These hands
  are one unit: they count together or not at all.
- ``freezeout``: stacks carry over, a seat without chips is out, blinds follow a schedule, and the
  run is complete when one seat has all chips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

from pokerarena.engine.rules import AnteKind, Rules
from pokerarena.tables.models import BustPolicy, Format, Table


class Level(NamedTuple):
    """One step of a blind schedule: what is posted for so many hands."""

    hands: int
    small_blind: int
    big_blind: int
    ante: int


@dataclass(frozen=True, slots=True)
class RunRules:
    """The rules that a run is played by, from its first hand to its last."""

    format: Format
    small_blind: int
    big_blind: int
    starting_stack: int
    action_time_ms: int
    ante: int = 0
    ante_kind: AnteKind = "each"
    time_bank_ms: int = 0
    bust_policy: BustPolicy = BustPolicy.REBUY
    blind_schedule: tuple[Level, ...] = ()

    @classmethod
    def of_table(cls, table: Table) -> RunRules:
        """The rules of a table as they are now."""
        return cls(
            format=Format(table.format),
            small_blind=table.small_blind,
            big_blind=table.big_blind,
            ante=table.ante,
            ante_kind=cast("AnteKind", table.ante_kind),
            starting_stack=table.starting_stack,
            action_time_ms=table.action_time_ms,
            time_bank_ms=table.time_bank_ms,
            bust_policy=BustPolicy(table.bust_policy),
            blind_schedule=_schedule(table.blind_schedule),
        )

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RunRules:
        """The inverse of `to_json`."""
        return cls(
            **{
                **stored,
                "format": Format(stored["format"]),
                "bust_policy": BustPolicy(stored["bust_policy"]),
                "blind_schedule": _schedule(stored["blind_schedule"]),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """What is stored with the run and shown to those who may see it."""
        return {
            **asdict(self),
            "format": self.format.value,
            "bust_policy": self.bust_policy.value,
            "blind_schedule": [level._asdict() for level in self.blind_schedule],
        }

    @property
    def several_in_flight(self) -> bool:
        """Whether a hand can begin before the one before it has ended."""
        return self.format in (Format.RESET, Format.DUPLICATE)

    def hands_per_deal(self, seat_count: int) -> int:
        """How many hands are played with one deal."""
        return seat_count if self.format is Format.DUPLICATE else 1

    def level_of(self, hand_no: int) -> int:
        """The index in the blind schedule of a hand; the last level has no end."""
        if self.format is not Format.FREEZEOUT:
            return 0
        last_hand = 0
        for index, level in enumerate(self.blind_schedule):
            last_hand += level.hands
            if hand_no <= last_hand:
                return index
        return max(0, len(self.blind_schedule) - 1)

    def at_level(self, level: int) -> Rules:
        """The stakes of a hand at this level."""
        if self.format is Format.FREEZEOUT and self.blind_schedule:
            step = self.blind_schedule[level]
            return Rules(step.small_blind, step.big_blind, step.ante, self.ante_kind)
        return Rules(self.small_blind, self.big_blind, self.ante, self.ante_kind)


class Position(NamedTuple):
    """Where a run stands between two hands: chips by seat, and where the button was last."""

    seats: tuple[int, ...]
    stacks: tuple[int, ...]
    button_seat: int | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Position:
        """The inverse of `to_json`."""
        chips = {int(seat): stack for seat, stack in stored["stacks"].items()}
        seats = tuple(sorted(chips))
        return cls(seats, tuple([chips[seat] for seat in seats]), stored["button_seat"])

    def to_json(self) -> dict[str, Any]:
        """What is stored with the run."""
        stacks = {str(seat): stack for seat, stack in zip(self.seats, self.stacks, strict=True)}
        return {"stacks": stacks, "button_seat": self.button_seat}


class HandSetup(NamedTuple):
    """What one hand starts from. `rebuys` are the seats that bought new chips just before it."""

    hand_no: int
    level: int
    seats: tuple[int, ...]
    stacks: tuple[int, ...]
    button_seat: int
    rebuys: tuple[int, ...] = ()


def first_position(rules: RunRules, seats: Sequence[int]) -> Position:
    """Where a run stands before its first hand."""
    ordered = tuple(sorted(seats))
    return Position(ordered, (rules.starting_stack,) * len(ordered))


def next_unit(rules: RunRules, position: Position, first_hand_no: int) -> tuple[HandSetup, ...]:
    """The hands that are played with the next deal; none when the game is over.

    In the formats with `several_in_flight` the answer depends on `first_hand_no` alone.
    """
    level = rules.level_of(first_hand_no)
    if rules.several_in_flight:
        seats = position.seats
        stacks = (rules.starting_stack,) * len(seats)
        if rules.format is Format.RESET:
            button_seat = seats[(first_hand_no - 1) % len(seats)]
            return (HandSetup(first_hand_no, level, seats, stacks, button_seat),)
        return tuple(
            [
                HandSetup(first_hand_no + turn, level, seats, stacks, button_seat)
                for turn, button_seat in enumerate(seats)
            ]
        )
    rebuys: tuple[int, ...] = ()
    chips = dict(zip(position.seats, position.stacks, strict=True))
    if rules.format is Format.CASH and rules.bust_policy is BustPolicy.REBUY:
        rebuys = tuple([seat for seat, stack in chips.items() if stack == 0])
        chips.update(dict.fromkeys(rebuys, rules.starting_stack))
    live = {seat: stack for seat, stack in chips.items() if stack > 0}
    if len(live) < 2:
        return ()
    seats = tuple(live)
    button_seat = _seat_after(seats, position.button_seat)
    return (HandSetup(first_hand_no, level, seats, tuple(live.values()), button_seat, rebuys),)


def settle(rules: RunRules, position: Position, setup: HandSetup, net: Sequence[int]) -> Position:
    """Where the run stands after a hand."""
    if rules.several_in_flight:
        return position._replace(button_seat=setup.button_seat)
    chips = dict(zip(position.seats, position.stacks, strict=True))
    for seat, stack, change in zip(setup.seats, setup.stacks, net, strict=True):
        chips[seat] = stack + change
    return Position(tuple(chips), tuple(chips.values()), setup.button_seat)


def _seat_after(seats: tuple[int, ...], button_seat: int | None) -> int:
    """The next live seat after the last button; the first seat for the first hand."""
    if button_seat is None:
        return seats[0]
    return next((seat for seat in seats if seat > button_seat), seats[0])


def _schedule(stored: Sequence[Mapping[str, Any]] | None) -> tuple[Level, ...]:
    return tuple(
        [
            Level(step["hands"], step["small_blind"], step["big_blind"], step.get("ante", 0))
            for step in stored or ()
        ]
    )
