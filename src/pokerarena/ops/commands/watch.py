"""`pokerarena watch`: a live table in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer


def watch(
    table: Annotated[str, typer.Argument(help="The table's id.")],
    server: Annotated[
        str, typer.Option(envvar="POKERARENA_SERVER", help="The arena's address.")
    ] = "http://127.0.0.1:8080",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="POKERARENA_TOKEN",
            help="A token, for a private table or one's own cards. Better set by its variable.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Draw one picture and end.")] = False,
) -> None:
    """Draw a live table in the terminal; without a terminal, print a line for each hand."""
    import contextlib

    from rich.console import Console

    from pokerarena.errors import Invalid
    from pokerarena.ids import IdKind, parse_id
    from pokerarena.ops.api_client import ApiClient
    from pokerarena.ops.watch import watch as follow

    try:
        parse_id(IdKind.TABLE, table)
    except Invalid as error:
        raise typer.BadParameter(str(error), param_hint="TABLE") from None
    # Ctrl-C is how one stops watching.
    with contextlib.suppress(KeyboardInterrupt):
        follow(ApiClient(server, token=token), table, Console(highlight=False), once=once)
