"""`pokerarena agent-host`: runs hosted agents for workers, apart from the control plane."""

from __future__ import annotations

import typer


def agent_host(context: typer.Context) -> None:
    """Run hosted agents for workers; it takes no setting and no secret (--help lists its options)."""
    from pokerarena.sandbox import host

    raise typer.Exit(host.main(context.args))
