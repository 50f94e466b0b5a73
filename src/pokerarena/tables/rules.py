"""The rules of a table: everything its owner decides, and whether it can be played by.

Pure. It must never know who owns or sees a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from pokerarena.errors import Invalid
from pokerarena.settings import Settings
from pokerarena.tables.models import BustPolicy, Format, RevealPolicy, Visibility

STACK_MAX_CHIPS = 1_000_000_000
TIME_BANK_MAX_MS = 3_600_000
LEVELS_MAX = 100
LEVEL_HANDS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class BlindLevel:
    """One level of a freezeout: these blinds for this many hands; the last one stays."""

    hands: int
    small_blind: int
    big_blind: int
    ante: int = 0


@dataclass(frozen=True, slots=True)
class TableRules:
    """Everything that a table's owner decides."""

    name: str
    seat_count: int
    small_blind: int
    big_blind: int
    starting_stack: int
    ante: int = 0
    ante_kind: str = "each"
    format: Format = Format.CASH
    bust_policy: BustPolicy = BustPolicy.REBUY
    visibility: Visibility = Visibility.PRIVATE
    reveal_policy: RevealPolicy = RevealPolicy.SHOWDOWN
    blind_schedule: tuple[BlindLevel, ...] | None = None
    action_time_ms: int = 2_000
    time_bank_ms: int = 0
    sandbox_runtime: str | None = None


def check_rules(rules: TableRules, settings: Settings) -> None:
    """Raise `Invalid` for rules that no game can be played by."""
    _check_bounds("seat_count", rules.seat_count, 2, 10)
    _check_blinds("", rules.small_blind, rules.big_blind, rules.ante)
    _check_bounds("starting_stack", rules.starting_stack, rules.big_blind, STACK_MAX_CHIPS)
    _check_bounds("action_time_ms", rules.action_time_ms, 1, settings.action_time_max_ms)
    _check_bounds("time_bank_ms", rules.time_bank_ms, 0, TIME_BANK_MAX_MS)
    check_runtime(rules.sandbox_runtime, settings)
    _check_schedule(rules)


def check_runtime(runtime: str | None, settings: Settings) -> None:
    """Raise `Invalid` for a sandbox runtime that this deployment does not have."""
    if runtime is not None and runtime not in settings.sandbox_runtimes:
        raise _wrong(
            "runtime_not_available",
            "sandbox_runtime",
            f"Hosted agents play in {' or '.join(settings.sandbox_runtimes)} here, not in {runtime}.",
        )


def _check_schedule(rules: TableRules) -> None:
    levels = rules.blind_schedule
    if levels is None:
        return
    if rules.format is not Format.FREEZEOUT:
        raise _wrong(
            "blind_schedule_unexpected", "blind_schedule", "Only a freezeout has a blind schedule."
        )
    if not 1 <= len(levels) <= LEVELS_MAX:
        raise _wrong(
            "blind_schedule_length",
            "blind_schedule",
            f"A blind schedule has 1 to {LEVELS_MAX} levels.",
        )
    before = rules.big_blind
    for number, level in enumerate(levels):
        where = f"blind_schedule.{number}."
        _check_bounds(f"{where}hands", level.hands, 1, LEVEL_HANDS_MAX)
        _check_blinds(where, level.small_blind, level.big_blind, level.ante)
        if level.big_blind < before:
            raise _wrong(
                "blinds_fall",
                f"{where}big_blind",
                "Blinds never fall: a level's big blind is at least that of the level before.",
            )
        before = level.big_blind


def _check_blinds(where: str, small_blind: int, big_blind: int, ante: int) -> None:
    _check_bounds(f"{where}small_blind", small_blind, 1, STACK_MAX_CHIPS)
    _check_bounds(f"{where}big_blind", big_blind, 1, STACK_MAX_CHIPS)
    if big_blind < small_blind:
        raise _wrong(
            "blinds_order", f"{where}big_blind", "The big blind is at least the small blind."
        )
    _check_bounds(f"{where}ante", ante, 0, big_blind)


def _check_bounds(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _wrong("out_of_range", name, f"{name} must be from {least} to {most}.")


def _wrong(code: str, name: str, message: str) -> Invalid:
    return Invalid(code, message, field=name)
