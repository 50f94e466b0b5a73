"""`pokerarena agent`: tools for those who write agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(help="Tools for those who write agents.", no_args_is_help=True)

Rootfs = Annotated[
    Path | None,
    typer.Option(
        envvar="POKERARENA_SANDBOX_ROOTFS",
        help="The sandboxes' root file system; it is built where it is missing.",
        show_default=False,
    ),
]
Target = Annotated[Path, typer.Argument(help="The agent's folder, or its only file.")]


@commands.command("init")
def init(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Make the folder of a new agent, with one that plays already."""
    from pokerarena.ops.agent_project import make

    make(folder, write=typer.echo)


@commands.command("check")
def check(
    target: Annotated[
        str,
        typer.Argument(metavar="URL|PATH", help="Where the agent listens, or its file or folder."),
    ],
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
    rootfs: Rootfs = None,
) -> None:
    """Play conformance hands with an agent and explain every mistake; exit code 1 on errors."""
    from pokerarena.errors import Invalid
    from pokerarena.ops.agent_check import run_check, run_hosted_check
    from pokerarena.sandbox.local import DEFAULT_ROOTFS

    try:
        if "://" not in target and Path(target).exists():
            passed = run_hosted_check(
                Path(target),
                rootfs=rootfs or DEFAULT_ROOTFS,
                time_limit_ms=time_ms,
                hands=hands,
                write=typer.echo,
            )
        else:
            passed = run_check(
                target,
                secret=secret,
                time_limit_ms=time_ms,
                hands=hands,
                max_batch=max_batch,
                write=typer.echo,
            )
    except Invalid as error:
        raise typer.BadParameter(str(error), param_hint="URL|PATH") from None
    raise typer.Exit(0 if passed else 1)


@commands.command("pack")
def pack(
    target: Target,
    out: Annotated[
        Path | None, typer.Option(help="The file to write, instead of NAME.tar.gz.")
    ] = None,
) -> None:
    """Write the agent's upload, a tar.gz: the same files give the same bytes."""
    from pokerarena.ops.agent_project import pack as pack_into

    pack_into(target, out, write=typer.echo)


@commands.command("push")
def push(
    target: Target,
    agent: Annotated[str, typer.Option(help="Which agent gets the version: agt_…")],
    token: Annotated[
        str,
        typer.Option(
            envvar="POKERARENA_TOKEN", help="A token of yours, best from the environment."
        ),
    ],
    server: Annotated[
        str, typer.Option(envvar="POKERARENA_SERVER", help="Address of the arena.")
    ] = "http://127.0.0.1:8080",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Whether to wait for the arena's check.")
    ] = True,
) -> None:
    """Upload the agent as a new version; exit code 1 if the arena finds it unfit to play."""
    from pokerarena.ops.agent_project import push as push_to

    passed = push_to(target, agent=agent, token=token, server=server, wait=wait, write=typer.echo)
    raise typer.Exit(0 if passed else 1)
