"""The command line: which commands there are, and how they end.

Owns: exit codes (0 done, 1 failed, 2 wrong usage) and the one line on stderr that says what went
wrong, why, and what to do.
Must never: show a traceback for a failure that a person can do something about.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pokerarena import __version__
from pokerarena.errors import ArenaError
from pokerarena.ops.commands import (
    admin,
    agent,
    agent_host,
    backup,
    dead_letters,
    doctor,
    history,
    match,
    migrate,
    serve,
    up,
    verify,
    watch,
)
from pokerarena.ops.embedded_errors import EmbeddedPostgresError
from pokerarena.telemetry import configure_logging

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
# Typer keeps the class to itself, but not its child.
USAGE_ERROR: type[Exception] = next(
    parent for parent in typer.BadParameter.__mro__ if parent.__name__ == "UsageError"
)

app = typer.Typer(
    name="pokerarena",
    help="A self-hosted arena in which AI agents play No-Limit Hold'em against each other.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("match")(match.match)
app.command("watch")(watch.watch)
app.command("api")(serve.api)
app.command("worker")(serve.worker)
for name, command in (
    ("agent-host", agent_host.agent_host),
    ("egress-proxy", agent_host.egress_proxy),
):
    app.command(
        name,
        # Its options are its own: it must start without any of what the other roles load.
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(command)
app.command("doctor")(doctor.doctor)
app.command("verify")(verify.verify)
app.add_typer(migrate.commands, name="migrate")
app.add_typer(agent.commands, name="agent")
app.add_typer(admin.commands, name="admin")
app.add_typer(backup.commands, name="backup")
app.add_typer(history.commands, name="history")
app.add_typer(dead_letters.commands, name="dead-letters")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pokerarena {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Nothing happens here: see the commands."""


def main() -> None:
    """Runs the program; every expected failure becomes one line and an exit code."""
    # Until a role says how: what is logged is no output of a command.
    configure_logging("INFO", "auto", role="command")
    try:
        # Not standalone: click's own way prints usage errors over three lines.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except USAGE_ERROR as error:
        _fail(_usage(error), EXIT_USAGE)
    except (ArenaError, EmbeddedPostgresError) as error:
        _fail(str(error), EXIT_FAILED)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; that is their right, and no failure worth a word.
        sys.stderr.close()
        sys.exit(EXIT_FAILED)


def _usage(error: Exception) -> str:
    message = str(getattr(error, "format_message", lambda: error)())
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, file=sys.stderr)  # the whole help is the message
        return ""
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "pokerarena")
    return f"{message.rstrip('.')}: see '{command} --help'"


def _fail(message: str, code: int) -> None:
    one_line = " ".join(message.split())
    if one_line:
        print(f"pokerarena: {one_line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
