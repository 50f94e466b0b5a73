"""`pokerarena api` and `pokerarena worker`: the two roles that serve."""

from __future__ import annotations

from typing import Annotated

import typer


def api(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, instead of the setting's.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on, instead of the setting's."),
    ] = None,
) -> None:
    """Serve the HTTP API and the live streams."""
    from pokerarena.api.server import run_api
    from pokerarena.settings import load_settings

    settings = load_settings()
    raise typer.Exit(
        run_api(settings, host or settings.api_host, settings.api_port if port is None else port)
    )


def worker(
    processes: Annotated[
        int | None, typer.Option(min=1, max=256, help="How many processes play runs.")
    ] = None,
) -> None:
    """Claim runs and play them."""
    from pokerarena.settings import load_settings
    from pokerarena.worker.main import run_worker

    settings = load_settings()
    raise typer.Exit(run_worker(settings, processes or settings.worker_processes))
