"""`pokerarena match`: a match on this machine, without server or database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from pokerarena.ops.commands.agent import Rootfs

FORMATS = ("reset", "cash", "duplicate")
BLINDS = re.compile(r"([0-9]{1,10})/([0-9]{1,10})")
EXIT_INTERRUPTED = 130


def _blinds(text: str) -> tuple[int, int]:
    found = BLINDS.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text} is not like 50/100", param_hint="--blinds")
    return int(found[1]), int(found[2])


def match(
    seats: Annotated[
        list[str],
        typer.Argument(
            metavar="SEAT SEAT …",
            help="house:random, house:caller, house:tight, house:equity, an agent's http URL, or "
            "its file or folder, which plays in a sandbox.",
            show_default=False,
        ),
    ],
    hands: Annotated[int, typer.Option(help="How many hands.")] = 1_000,
    seed: Annotated[
        str | None,
        typer.Option(help="Any text: the same gives the same hands.", show_default=False),
    ] = None,
    format: Annotated[str, typer.Option(help=f"One of: {', '.join(FORMATS)}.")] = "reset",  # noqa: A002 - the option's name
    blinds: Annotated[str, typer.Option(help="Small and big blind.")] = "50/100",
    ante: Annotated[int, typer.Option(min=0, help="Ante of each player.")] = 0,
    stack: Annotated[int, typer.Option(help="Starting stack.")] = 10_000,
    time_ms: Annotated[int, typer.Option(help="Time for a decision.")] = 2_000,
    in_flight: Annotated[
        int, typer.Option(min=1, max=64, help="Hands at once with an agent of yours, in reset.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the hands: .phhs for PHH, .log for ACPC.", show_default=False),
    ] = None,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox/--no-sandbox",
            help="Whether an agent from a file plays in a sandbox; without one it has your rights.",
        ),
    ] = True,
    rootfs: Rootfs = None,
) -> None:
    """Play a match on this machine, without server or database."""
    from pokerarena.errors import Invalid
    from pokerarena.ops.match_report import run_match
    from pokerarena.runs.match import MatchOptions
    from pokerarena.sandbox.local import DEFAULT_ROOTFS
    from pokerarena.tables.models import Format

    if format not in FORMATS:
        raise typer.BadParameter(f"{format} is none of {', '.join(FORMATS)}", param_hint="--format")
    small_blind, big_blind = _blinds(blinds)
    options = MatchOptions(
        seats=tuple(seats),
        hands=hands,
        seed=seed,
        format=Format(format),
        small_blind=small_blind,
        big_blind=big_blind,
        ante=ante,
        starting_stack=stack,
        time_ms=time_ms,
        in_flight=in_flight,
        export=export,
        sandbox=sandbox,
        rootfs=rootfs or DEFAULT_ROOTFS,
    )
    try:
        complete = run_match(options, as_json=as_json)
    except Invalid as error:
        # Every refusal comes before the first hand, and is about what was typed.
        raise typer.BadParameter(str(error), param_hint="the match") from None
    raise typer.Exit(0 if complete else EXIT_INTERRUPTED)
