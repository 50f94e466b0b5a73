"""`pokerarena verify`: whether everything that was played is stored as it was played."""

from __future__ import annotations

from typing import Annotated

import typer


def verify(
    run: Annotated[
        str | None, typer.Argument(help="The id of one run; everything without it.")
    ] = None,
) -> None:
    """Check hands, chips, chains, deals and totals; a line for each finding, exit code 1 if any."""
    import asyncio

    from pokerarena.ops.verify import verify_database
    from pokerarena.settings import load_settings

    summary = asyncio.run(verify_database(load_settings(), run, typer.echo))
    typer.echo(summary.sentence(), err=True)
    if summary.findings:
        raise typer.Exit(1)
