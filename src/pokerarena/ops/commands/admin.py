"""`pokerarena admin`: what only someone with access to the database may do."""

from __future__ import annotations

from typing import Annotated

import typer

from pokerarena.ops.commands import admin_egress, service_keys

commands = typer.Typer(help="Administer the arena from its own machine.", no_args_is_help=True)
audit_commands = typer.Typer(help="The chain of security events.", no_args_is_help=True)
commands.add_typer(audit_commands, name="audit")
commands.add_typer(service_keys.commands, name="service-key")
commands.add_typer(admin_egress.commands, name="egress")


@commands.command("create-operator")
def create_operator(
    username: Annotated[str, typer.Argument(help="The new operator's name.")],
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", help="Read the password from standard input, not the terminal."
        ),
    ] = False,
) -> None:
    """Create an account with the role operator."""
    import sys

    from pokerarena.auth.models import Role
    from pokerarena.ops.accounts import create_account
    from pokerarena.settings import load_settings

    settings = load_settings()
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        typer.echo("pokerarena: no terminal to ask for a password: use --password-stdin", err=True)
        raise typer.Exit(2)
    user_id = create_account(settings, username=username, password=password, role=Role.OPERATOR)
    typer.echo(f"operator {username} created ({user_id})")


@commands.command("rotate-signing-keys")
def rotate_signing_keys(
    compromised: Annotated[
        bool,
        typer.Option(
            "--compromised",
            help="A key was stolen: sign with a new one now, and refuse every token of before.",
        ),
    ] = False,
) -> None:
    """Publish a new key for access tokens, and retire the ones of before."""
    from pokerarena.ops.accounts import rotate_keys
    from pokerarena.settings import load_settings

    rotation = rotate_keys(load_settings(), compromised=compromised)
    typer.echo(
        f"key {rotation.kid} signs from {rotation.use_from.isoformat(timespec='seconds')}; "
        f"{rotation.retired} retired"
    )


@commands.command("reset-second-factor")
def reset_second_factor(
    username: Annotated[str, typer.Argument(help="Whose second factor is lost.")],
) -> None:
    """Take away an account's second factor and end its sessions."""
    from pokerarena.ops.accounts import remove_second_factor
    from pokerarena.settings import load_settings

    remove_second_factor(load_settings(), username=username)
    typer.echo(f"{username} logs in without a second factor now")


@commands.command("rotate-keys")
def rotate_keys(
    rows: Annotated[
        int, typer.Option(min=1, max=10_000, help="Rows that one transaction changes.")
    ] = 200,
) -> None:
    """Re-encrypt all that is sealed under the current master key, while the arena runs.

    It can be stopped and run again. Once it says that nothing is left, the previous keys can go.
    """
    from pokerarena.ops.rotation import rotate
    from pokerarena.settings import load_settings

    done = rotate(load_settings(), rows_per_batch=rows)
    for column, count in done.renewed.items():
        typer.echo(f"{column}: {count} re-encrypted under {done.current_key_id}")
    for key_id, count in done.left.items():
        typer.echo(f"pokerarena: {count} values are still sealed under {key_id}", err=True)
    if done.left:
        typer.echo("pokerarena: a process still seals under an older key: run this again", err=True)
        raise typer.Exit(1)
    typer.echo("nothing is left under any other key: POKERARENA_MASTER_KEYS_PREVIOUS can go")


@audit_commands.command("verify")
def audit_verify(
    expect: Annotated[
        str | None,
        typer.Option(metavar="SEQ:HASH", help="A head that an earlier check printed."),
    ] = None,
) -> None:
    """Check every record of the chain; exit code 1 where one was changed, moved or taken out."""
    from pokerarena.ops.audit_check import check
    from pokerarena.settings import load_settings

    verdict = check(load_settings(), expect=expect)
    if verdict.broken is not None:
        typer.echo(
            f"pokerarena: the audit chain is broken: record {verdict.broken.seq} "
            f"{verdict.broken.what}",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"{verdict.records} records hold")
    typer.echo(f"head {verdict.head_seq}:{verdict.head_hash.hex()}")
