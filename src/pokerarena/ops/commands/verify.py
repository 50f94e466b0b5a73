"""`pokerarena verify`: whether everything that was played is stored as it was played."""

from __future__ import annotations

from typing import Annotated

import typer

from pokerarena.ops.commands.options import DataDir


def verify(
    run: Annotated[
        str | None, typer.Argument(help="The id of one run; everything without it.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Check hands, chips, chains, deals and totals; a line for each finding, exit code 1 if any."""
    import asyncio

    from pokerarena.ops.data_directory import settings_of
    from pokerarena.ops.verify import verify_database

    summary = asyncio.run(verify_database(settings_of(data_dir), run, typer.echo))
    typer.echo(summary.sentence(), err=True)
    if summary.findings:
        raise typer.Exit(1)
