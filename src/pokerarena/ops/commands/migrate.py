"""`pokerarena migrate`: the schema, up, down, and where it is."""

from __future__ import annotations

from typing import Annotated

import typer

_NEWER = ", of a later release: this one runs on it, and changes nothing"

commands = typer.Typer(help="Move the schema, or say where it is.", no_args_is_help=True)


@commands.command("up")
def up(
    revision: Annotated[str, typer.Argument(help="Where to.")] = "head",
) -> None:
    """Bring the schema up to date, and make the roles of the API and the worker."""
    from pokerarena.ops import migrate
    from pokerarena.ops.privileges import DatabaseRole
    from pokerarena.settings import load_settings

    settings = load_settings()
    passwords = {
        DatabaseRole.API: settings.database_api_password.get_secret_value(),
        DatabaseRole.WORKER: settings.database_worker_password.get_secret_value(),
    }
    state = migrate.upgrade(_url(), revision, passwords=passwords)
    typer.echo(f"schema at {state.current}{_NEWER if state.newer else ''}")


@commands.command("down")
def down(
    revision: Annotated[str, typer.Argument(help="Where to; one step by default.")] = "-1",
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm: what the step drops is lost.")
    ] = False,
) -> None:
    """Take the schema down, losing what the later revisions added."""
    from pokerarena.ops import migrate

    if not yes:
        typer.echo(
            "pokerarena: a step down drops relations with their rows: add --yes to do it", err=True
        )
        raise typer.Exit(2)
    state = migrate.downgrade(_url(), revision)
    typer.echo(f"schema at {state.current or 'nothing'}")


@commands.command("check")
def check() -> None:
    """Say whether the schema is what this program expects, and else what 'up' would lock."""
    from pokerarena.ops import migrate
    from pokerarena.ops.migration_plan import plan

    state = migrate.check(_url())
    if state.newer:
        typer.echo(f"schema at {state.current}{_NEWER}")
        return
    if not state.up_to_date:
        for step in plan(_url()):
            typer.echo(step.line())
        typer.echo(
            f"pokerarena: the schema is at {state.current or 'nothing'}, this program expects "
            f"{state.head}: run 'pokerarena migrate up'",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"schema at {state.current}, as expected")


def _url() -> str:
    from pokerarena.settings import load_settings

    return load_settings().database_url.get_secret_value()
