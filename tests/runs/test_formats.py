"""What the next hand starts from, in each of the four formats."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pokerarena.runs.formats import (
    Level,
    Position,
    RunRules,
    first_position,
    next_unit,
    settle,
)
from pokerarena.tables.models import BustPolicy, Format


def rules(format_: Format, **changes: Any) -> RunRules:
    return RunRules(
        **{
            "format": format_,
            "small_blind": 50,
            "big_blind": 100,
            "starting_stack": 1_000,
            "action_time_ms": 2_000,
            **changes,
        }
    )


@given(
    st.sampled_from(Format),
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(10, 99), st.integers(0, 5)).map(
            lambda step: Level(*step)
        ),
        max_size=3,
    ),
    st.sampled_from(BustPolicy),
)
def test_rules_survive_the_way_through_the_database(
    format_: Format, schedule: list[Level], bust_policy: BustPolicy
) -> None:
    before = rules(format_, blind_schedule=tuple(schedule), bust_policy=bust_policy)
    assert RunRules.from_json(json.loads(json.dumps(before.to_json()))) == before


@given(st.dictionaries(st.integers(1, 10), st.integers(0, 10**12), min_size=2))
def test_a_position_survives_the_way_through_the_database(stacks: dict[int, int]) -> None:
    seats = tuple(sorted(stacks))
    before = Position(seats, tuple(stacks[seat] for seat in seats), seats[-1])
    assert Position.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_cash_carries_stacks_over_and_moves_the_button() -> None:
    cash = rules(Format.CASH)
    position = first_position(cash, [5, 1, 3])
    (first,) = next_unit(cash, position, 1)
    assert (first.seats, first.stacks, first.button_seat) == ((1, 3, 5), (1_000,) * 3, 1)
    position = settle(cash, position, first, (-50, 150, -100))
    (second,) = next_unit(cash, position, 2)
    assert (second.stacks, second.button_seat, second.rebuys) == ((950, 1_150, 900), 3, ())


def test_a_bust_seat_buys_in_again_for_the_starting_stack() -> None:
    cash = rules(Format.CASH)
    position = Position((1, 2, 3), (0, 2_500, 500), 3)
    (setup,) = next_unit(cash, position, 9)
    assert setup.stacks == (1_000, 2_500, 500)
    assert setup.rebuys == (1,)
    assert setup.button_seat == 1


def test_a_bust_seat_leaves_where_the_table_says_so_and_the_game_ends_with_one_seat() -> None:
    cash = rules(Format.CASH, bust_policy=BustPolicy.LEAVE)
    (setup,) = next_unit(cash, Position((1, 2, 3), (0, 2_500, 500), 3), 9)
    assert (setup.seats, setup.button_seat) == ((2, 3), 2)
    assert next_unit(cash, Position((1, 2, 3), (0, 3_000, 0), 2), 10) == ()


def test_reset_starts_every_hand_alike_with_the_button_one_seat_further() -> None:
    reset = rules(Format.RESET)
    position = first_position(reset, [1, 2, 4])
    buttons = []
    for hand_no in range(1, 8):
        (setup,) = next_unit(reset, position, hand_no)
        assert setup.stacks == (1_000,) * 3
        buttons.append(setup.button_seat)
        position = settle(reset, position, setup, (-100, 50, 50))
    assert buttons == [1, 2, 4, 1, 2, 4, 1]


def test_duplicate_plays_every_deal_once_with_the_button_at_each_seat() -> None:
    duplicate = rules(Format.DUPLICATE)
    unit = next_unit(duplicate, first_position(duplicate, [2, 3, 7]), 4)
    assert [(setup.hand_no, setup.button_seat) for setup in unit] == [(4, 2), (5, 3), (6, 7)]
    assert {setup.stacks for setup in unit} == {(1_000,) * 3}


def test_a_freezeout_follows_its_schedule_and_ends_with_one_seat() -> None:
    freezeout = rules(Format.FREEZEOUT, blind_schedule=(Level(2, 10, 20, 0), Level(3, 50, 100, 10)))
    levels = [freezeout.level_of(hand_no) for hand_no in range(1, 9)]
    assert levels == [0, 0, 1, 1, 1, 1, 1, 1]
    assert freezeout.at_level(1).ante == 10
    (setup,) = next_unit(freezeout, Position((1, 2, 3), (0, 1_200, 1_800), 2), 3)
    assert (setup.seats, setup.level, setup.button_seat) == ((2, 3), 1, 3)
    assert next_unit(freezeout, Position((1, 2, 3), (0, 3_000, 0), 2), 4) == ()


def test_a_freezeout_without_schedule_keeps_the_blinds_of_the_table() -> None:
    freezeout = rules(Format.FREEZEOUT)
    assert freezeout.at_level(freezeout.level_of(500)).big_blind == 100
