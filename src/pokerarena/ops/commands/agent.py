"""`pokerarena agent`: tools for those who write agents."""

from __future__ import annotations

from typing import Annotated

import typer

commands = typer.Typer(help="Tools for those who write agents.", no_args_is_help=True)


@commands.callback()
def group() -> None:
    """Keeps `check` a command of its own, although it is the only one."""


@commands.command("check")
def check(
    url: Annotated[str, typer.Argument(help="Where the agent listens.")],
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="AGENT_SECRET",
            help="Its signing secret (whsec_…), if it verifies signatures.",
            show_default=False,
        ),
    ] = None,
    hands: Annotated[int, typer.Option(min=1, max=10_000, help="Whole hands to play.")] = 20,
    time_ms: Annotated[
        int, typer.Option(min=1, max=120_000, help="Time limit of an answer.")
    ] = 2_000,
    max_batch: Annotated[
        int, typer.Option(min=1, max=64, help="Callbacks in one request, if it takes several.")
    ] = 1,
) -> None:
    """Play conformance hands with an agent and explain every mistake; exit code 1 on errors."""
    from pokerarena.errors import Invalid
    from pokerarena.ops.agent_check import run_check

    try:
        passed = run_check(
            url,
            secret=secret,
            time_limit_ms=time_ms,
            hands=hands,
            max_batch=max_batch,
            write=typer.echo,
        )
    except Invalid as error:
        raise typer.BadParameter(str(error), param_hint="URL") from None
    raise typer.Exit(0 if passed else 1)
