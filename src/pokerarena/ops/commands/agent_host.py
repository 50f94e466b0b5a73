"""`pokerarena agent-host` and `egress-proxy`: hosted agents, apart from the control plane."""

from __future__ import annotations

import typer


def agent_host(context: typer.Context) -> None:
    """Run hosted agents for workers; it takes no setting and no secret (--help lists its options)."""
    from pokerarena.sandbox import host

    raise typer.Exit(host.main(context.args))


def egress_proxy(context: typer.Context) -> None:
    """Let approved hosted agents out; it takes no setting and no secret (--help lists its options)."""
    from pokerarena.egress import proxy

    raise typer.Exit(proxy.main(context.args))
