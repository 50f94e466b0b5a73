"""`pokerarena up`: all of it on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def up(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")
    ] = 8080,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept.", show_default=False)
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Set up a public table, and let agents play there.")
    ] = False,
    agent_host: Annotated[
        bool,
        typer.Option(
            "--agent-host/--no-agent-host", help="Whether to run hosted agents, where that can be."
        ),
    ] = True,
) -> None:
    """Run the whole arena on this machine, with a PostgreSQL of its own."""
    from pokerarena.ops import data_directory
    from pokerarena.ops import up as whole

    if data_dir is None:
        choose = data_directory.demo_directory if demo else data_directory.default_directory
        data_dir = choose()
    whole.run(data_dir, port=port, demo=demo, agent_host=agent_host)
