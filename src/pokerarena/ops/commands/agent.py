"""`pokerarena agent`: tools for those who write agents."""

from __future__ import annotations

import typer

commands = typer.Typer(help="Tools for those who write agents.", no_args_is_help=True)


@commands.callback()
def group() -> None:
    """Keeps `check` a command of its own, although it is the only one."""
