"""A match needs no server and no database, and the same seed gives the same hands."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from pokerkit.notation import HandHistory

from pokerarena.errors import Invalid
from pokerarena.runs.match import MatchOptions, play_match
from pokerarena.runs.seams import Control, Halt
from pokerarena.tables.models import Format

SEATS = ("house:equity", "house:tight", "house:random")


def lasting(result: Any) -> dict[str, Any]:
    timed = ("duration_s", "hands_per_s", "decisions_per_s")
    return {name: value for name, value in result.to_json().items() if name not in timed}


@pytest.mark.parametrize("format_", [Format.RESET, Format.CASH, Format.DUPLICATE])
async def test_the_same_seed_gives_the_same_hands(format_: Format, tmp_path: Path) -> None:
    exports = []
    results = []
    for name in ("a.phhs", "b.phhs"):
        options = MatchOptions(SEATS, hands=60, seed="7", format=format_, export=tmp_path / name)
        results.append(await play_match(options))
        exports.append((tmp_path / name).read_text())
    assert lasting(results[0]) == lasting(results[1])
    assert exports[0] == exports[1]
    other = await play_match(MatchOptions(SEATS, hands=60, seed="8", format=format_))
    assert lasting(other) != lasting(results[0])


async def test_the_result_adds_up_and_is_json() -> None:
    told: list[tuple[int, int]] = []
    result = await play_match(
        MatchOptions(SEATS, hands=50), progress=lambda done, of: told.append((done, of))
    )
    assert told[-1] == (50, 50)
    assert result.hands == 50
    assert sum(seat.chips for seat in result.seats) == 0
    assert [seat.name for seat in result.seats] == ["equity", "tight", "random"]
    for seat in result.seats:
        assert seat.bb_per_100 is not None
        assert seat.ci95 is not None
        assert seat.bb_per_100 == pytest.approx(seat.chips / 100 / 50 * 100)
        assert seat.ci95[0] <= seat.bb_per_100 <= seat.ci95[1]
        assert seat.fallbacks == {}
    assert result.hands_per_s > 0
    assert result.decisions_per_s > result.hands_per_s
    assert json.loads(json.dumps(result.to_json()))["seats"][0]["seat"] == 1


async def test_without_a_seed_one_is_drawn_and_told() -> None:
    first = await play_match(MatchOptions(SEATS, hands=5))
    second = await play_match(MatchOptions(SEATS, hands=5))
    assert first.seed != second.seed
    again = await play_match(MatchOptions(SEATS, hands=5, seed=first.seed))
    assert lasting(again) == lasting(first)


async def test_pokerkit_reads_the_export_of_a_match(tmp_path: Path) -> None:
    path = tmp_path / "x.phhs"
    await play_match(MatchOptions(SEATS, hands=80, seed="1", export=path))
    count = 0
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for history in HandHistory.load_all(file):
            *_, state = history
            assert list(state.stacks) == history.finishing_stacks
            count += 1
    assert count == 80


async def test_an_acpc_log_begins_and_ends_as_such_logs_do(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    result = await play_match(
        MatchOptions(("house:random", "house:random"), hands=10, seed="1", export=path)
    )
    header, *states, score = path.read_text().splitlines()
    assert header == "# name/game/hands/seed x holdem.nolimit.2p 10 1"
    assert len(states) == 10
    chips = [seat.chips for seat in result.seats]
    assert score == f"SCORE:{chips[0]}|{chips[1]}:random #1|random #2"


async def test_a_match_can_be_halted_and_says_how_far_it_came() -> None:
    control = Control()
    result = await play_match(
        MatchOptions(SEATS, hands=100_000),
        progress=lambda done, _: control.ask(Halt.STOP) if done == 12 else None,
        control=control,
    )
    assert result.hands == 12


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"seats": ("house:random",)}, "seat_count"),
        ({"seats": ("house:random",) * 11}, "seat_count"),
        ({"seats": ("house:random", "house:nobody")}, "house_agent_unknown"),
        ({"seats": ("house:random", "./agent.py")}, "seat_unknown"),
        ({"seats": ("house:random", "http://user@127.0.0.1/")}, "url"),
        ({"hands": 0}, "hands_out_of_range"),
        ({"hands": 10, "format": Format.DUPLICATE}, "hands_not_multiple"),
        ({"format": Format.FREEZEOUT}, "format"),
        ({"small_blind": 0}, "blinds"),
        ({"small_blind": 200}, "blinds"),
        ({"starting_stack": 99}, "starting_stack"),
        ({"time_ms": 0}, "time_ms"),
        ({"export": Path("x.txt")}, "export"),
        ({"export": Path("/nonexistent/x.phhs")}, "export"),
        ({"export": Path("x.log"), "ante": 5}, "acpc_without_antes"),
    ],
)
async def test_options_that_make_no_match_are_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as error:
        await play_match(MatchOptions(**{"seats": SEATS, **options}))
    assert error.value.code == code
