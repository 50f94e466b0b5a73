"""A match on this machine: the same play as a run's, without server, queue or database.

Owns the way from what a person typed to a result. The same seed and the same deterministic agents
give the same hands. It must never need a setting, a secret or a connection of the arena.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from pokerarena.agents.dial import Dialer
from pokerarena.agents.house import STRATEGIES, HousePlayer
from pokerarena.agents.http import HttpLimits, HttpPlayer
from pokerarena.agents.player import Player
from pokerarena.agents.seat import SeatedPlayer, SeatSettings
from pokerarena.egress.policy import EgressPolicy
from pokerarena.engine.rules import MAX_SEATS, MIN_SEATS, AnteKind
from pokerarena.engine.view import Viewer
from pokerarena.errors import Invalid, Unavailable
from pokerarena.history.export import HandFile, open_hand_file
from pokerarena.runs.formats import RunRules, first_position
from pokerarena.runs.play import play_run
from pokerarena.runs.seams import (
    Clock,
    Control,
    Moment,
    PlayedUnit,
    RunSpec,
    Seating,
    VoidReason,
)
from pokerarena.runs.totals import SeatTotals
from pokerarena.sandbox.local import DEFAULT_ROOTFS, bare_player, local_sandboxes
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.stats.results import SeatTotals as CountedSeat
from pokerarena.stats.results import seat_result
from pokerarena.tables.models import Format

MAX_HANDS: Final = 10_000_000
_HOUSE: Final = "house:"
_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class MatchOptions:
    """What is played. `in_flight` is how many hands an agent over HTTP or from a file gets at once,
    where the format allows it; one at a time keeps its time limit honest. Without `sandbox` an agent
    from a file runs with the rights of whoever plays the match."""

    seats: tuple[str, ...]
    hands: int = 1_000
    seed: str | None = None
    format: Format = Format.RESET
    small_blind: int = 50
    big_blind: int = 100
    ante: int = 0
    ante_kind: AnteKind = "each"
    starting_stack: int = 10_000
    time_ms: int = 2_000
    in_flight: int = 1
    export: Path | None = None
    sandbox: bool = True
    rootfs: Path = DEFAULT_ROOTFS


@dataclass(frozen=True, slots=True)
class MatchSeat:
    """One seat's result; `ci95` is the 95 % interval of `bb_per_100`."""

    seat: int
    name: str
    chips: int
    bb_per_100: float | None
    ci95: tuple[float, float] | None
    fallbacks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MatchResult:
    """What came out of a match."""

    hands: int
    seed: str
    format: str
    seats: tuple[MatchSeat, ...]
    duration_s: float
    hands_per_s: float
    decisions_per_s: float

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return asdict(self)


Progress = Callable[[int, int], None]


async def play_match(
    options: MatchOptions, *, progress: Progress | None = None, control: Control | None = None
) -> MatchResult:
    """Play a match to its end, or to a halt; `progress` is told of hands done and hands in all.

    Raises `Invalid` for options that make no match, before the first hand.
    """
    rules = _rules(options)
    seed_text = options.seed if options.seed is not None else secrets.token_hex(8)
    seed = hashlib.sha256(b"pokerarena match\x00" + seed_text.encode()).digest()
    run_id = UUID(bytes=hashlib.sha256(b"run" + seed).digest()[:16])
    names = dict(enumerate(_names(options.seats), start=1))
    # One's own machine and network are exactly where one's agents are.
    dialer = Dialer(EgressPolicy(allow_private=True))
    async with AsyncExitStack() as open_until_the_end:
        open_until_the_end.push_async_callback(dialer.close)
        hosted = await _from_files(options, open_until_the_end)
        players = {
            seat_no: hosted(Path(text))
            if _is_file(text)
            else _player(text, seat_no, seed, dialer, options)
            for seat_no, text in enumerate(options.seats, start=1)
        }
        limits = SeatSettings(time_limit_ms=options.time_ms)
        seating = {
            seat_no: Seating(
                names[seat_no],
                SeatedPlayer(player, limits),
                isinstance(player, HostedPlayer) and player.wants_events,
            )
            for seat_no, player in players.items()
        }
        waits = any(not isinstance(player, HousePlayer) for player in players.values())
        spec = RunSpec(
            run_id=run_id,
            table_id=run_id,
            seed=seed,
            rules=rules,
            hands_target=options.hands,
            position=first_position(rules, tuple(players)),
            totals={seat_no: SeatTotals() for seat_no in players},
            in_flight_max=max(1, options.in_flight) if waits else 1,
        )
        with ExitStack() as stack:
            export = None
            if options.export is not None:
                export = stack.enter_context(
                    open_hand_file(
                        options.export,
                        rules,
                        names=names,
                        viewer=Viewer.EVERYTHING,
                        hands=options.hands,
                        seed=seed_text,
                    )
                )
            recorder = MemoryRecorder(export, progress, options.hands)
            began_s = time.monotonic()
            outcome = await play_run(spec, seating, recorder, control or Control(), Clock())
            duration_s = time.monotonic() - began_s
            if export is not None:
                export.end({seat: totals.net for seat, totals in outcome.totals.items()})
    decisions = sum([totals.decisions for totals in outcome.totals.values()])
    return MatchResult(
        hands=outcome.hands_done,
        seed=seed_text,
        format=rules.format.value,
        seats=tuple(
            [
                _seat(seat_no, names[seat_no], totals, rules)
                for seat_no, totals in sorted(outcome.totals.items())
            ]
        ),
        duration_s=round(duration_s, 3),
        hands_per_s=round(outcome.hands_done / duration_s, 1) if duration_s else 0.0,
        decisions_per_s=round(decisions / duration_s, 1) if duration_s else 0.0,
    )


def _rules(options: MatchOptions) -> RunRules:
    seats = len(options.seats)
    if not MIN_SEATS <= seats <= MAX_SEATS:
        raise Invalid("seat_count", f"A match has {MIN_SEATS} to {MAX_SEATS} seats, not {seats}.")
    if options.format is Format.FREEZEOUT:
        raise Invalid("format", "A match is played as reset, cash or duplicate.")
    if not 1 <= options.hands <= MAX_HANDS:
        raise Invalid("hands_out_of_range", f"A match has 1 to {MAX_HANDS} hands.")
    if options.format is Format.DUPLICATE and options.hands % seats:
        raise Invalid(
            "hands_not_multiple",
            f"In duplicate every deal is played once by each of the {seats} seats: "
            f"the number of hands must be a multiple of {seats}.",
        )
    if options.time_ms < 1:
        raise Invalid("time_ms", "An agent needs at least 1 ms.")
    if options.starting_stack < options.big_blind:
        raise Invalid("starting_stack", "A stack must hold at least one big blind.")
    rules = RunRules(
        format=options.format,
        small_blind=options.small_blind,
        big_blind=options.big_blind,
        ante=options.ante,
        ante_kind=options.ante_kind,
        starting_stack=options.starting_stack,
        action_time_ms=options.time_ms,
    )
    try:
        rules.at_level(0)
    except ValueError as error:
        raise Invalid("blinds", str(error)) from None
    return rules


def _names(seats: Sequence[str]) -> list[str]:
    """What each seat is called: the same agent in two seats gets numbers."""
    plain = [
        Path(text).resolve().name if _is_file(text) else text.removeprefix(_HOUSE) for text in seats
    ]
    counts = Counter(plain)
    numbers: Counter[str] = Counter()
    names = []
    for name in plain:
        numbers[name] += 1
        names.append(f"{name} #{numbers[name]}" if counts[name] > 1 else name)
    return names


def _is_file(text: str) -> bool:
    """Whether a seat names an agent's file or folder on this machine."""
    return (
        not text.startswith(_HOUSE)
        and urlsplit(text).scheme not in _SCHEMES
        and Path(text).exists()
    )


async def _from_files(
    options: MatchOptions, open_until_the_end: AsyncExitStack
) -> Callable[[Path], Player]:
    """How an agent from a file becomes a player. Raises `Unavailable` where nothing can hold it."""
    if not options.sandbox or not any(map(_is_file, options.seats)):
        return bare_player
    try:
        sandboxes = await open_until_the_end.enter_async_context(
            local_sandboxes(tree=options.rootfs)
        )
    except Unavailable as error:
        raise Unavailable(
            error.code, f"{error.message} For an agent of your own there is --no-sandbox."
        ) from None
    # One callback at a time, and nobody else who waits for this loop: see `HostedPlayer`.
    sequential = options.in_flight <= 1 and all(
        urlsplit(text).scheme not in _SCHEMES for text in options.seats
    )
    alone = (lambda: True) if sequential else None
    return lambda path: sandboxes.player(path, alone=alone)


def _player(text: str, seat_no: int, seed: bytes, dialer: Dialer, options: MatchOptions) -> Player:
    if text.startswith(_HOUSE):
        name = text.removeprefix(_HOUSE)
        if name not in STRATEGIES:
            raise Invalid(
                "house_agent_unknown",
                f"There is no house agent '{name}'; there are {', '.join(STRATEGIES)}.",
            )
        return HousePlayer(name, hashlib.sha256(b"house" + seed + bytes((seat_no,))).digest())
    if urlsplit(text).scheme in _SCHEMES:
        if problems := dialer.policy.check_url(text):
            raise Invalid("url", f"The agent at {text} cannot be asked: {'; '.join(problems)}.")
        return HttpPlayer(text, dialer, limits=HttpLimits(max_in_flight=max(1, options.in_flight)))
    raise Invalid(
        "seat_unknown",
        f"'{text}' names no agent: write house:NAME ({', '.join(STRATEGIES)}), the http:// "
        "address of one, or a file or folder that is there.",
    )


def _seat(seat_no: int, name: str, totals: SeatTotals, rules: RunRules) -> MatchSeat:
    result = seat_result(
        CountedSeat(
            seat_no,
            totals.hands,
            totals.net,
            totals.units,
            totals.unit_sum,
            totals.unit_sum_squares,
        ),
        big_blind=rules.big_blind,
    )
    return MatchSeat(
        seat=seat_no,
        name=name,
        chips=totals.net,
        bb_per_100=result.bb_per_100.mean,
        ci95=result.bb_per_100.interval(),
        fallbacks=dict(totals.fallbacks),
    )


class MemoryRecorder:
    """A recorder that forgets: totals are in the outcome, hands go to the export."""

    watched = False

    def __init__(
        self, export: HandFile | None, progress: Progress | None, hands_target: int
    ) -> None:
        self._export = export
        self._progress = progress
        self._hands_target = hands_target
        self._hands_done = 0

    async def reserve(self, deal_no: int) -> None:
        """Nothing survives a match: there is nothing to reserve."""

    async def record(self, unit: PlayedUnit) -> None:
        self._hands_done += len(unit.hands)
        if self._export is not None:
            for hand in unit.hands:
                self._export.write(hand)
        if self._progress is not None:
            self._progress(self._hands_done, self._hands_target)
        # The house never waits for anybody: let a halt or a progress bar have its turn.
        await asyncio.sleep(0)

    async def void(self, deal_no: int, reason: VoidReason) -> None:
        """A void deal is played again with other cards, and leaves no trace in a match."""

    async def flush(self) -> None:
        """Nothing waits."""

    def show(self, moment: Moment) -> None:
        """Nobody watches."""
