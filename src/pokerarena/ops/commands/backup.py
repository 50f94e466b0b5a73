"""`pokerarena backup`: take backups, check them, and come back from them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pokerarena.ops.commands.options import DataDir

if TYPE_CHECKING:
    from pokerarena.ops.backup.repository import Repository
    from pokerarena.settings import Settings

commands = typer.Typer(
    help="Take backups, check them, and come back from them.", no_args_is_help=True
)

Scratch = Annotated[
    Path | None, typer.Option("--scratch", help="Where to unpack; the temporary directory without.")
]
At = Annotated[
    str | None,
    typer.Option("--at", help="The moment, such as 2026-11-27T09:30:00Z; the latest without it."),
]


@commands.command("serve")
def serve(data_dir: DataDir = None) -> None:
    """Ship WAL all the time, take base backups on schedule, delete what is too old."""
    import signal
    import threading

    from pokerarena.ops.backup.service import BackupService
    from pokerarena.telemetry import configure_logging

    settings, repository = _open(data_dir)
    configure_logging(settings.log_level, settings.log_format, role="backup")
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    BackupService(settings, repository, lambda line: typer.echo(line, err=True)).serve(stopping)


@commands.command("create")
def create(data_dir: DataDir = None) -> None:
    """Take a base backup now."""
    from pokerarena.ops.backup import base

    settings, repository = _open(data_dir)
    made = base.create(settings, repository)
    typer.echo(f"{made.label}  {made.plain_bytes} bytes of files, {made.sealed_bytes} sealed")


@commands.command("list")
def list_backups(data_dir: DataDir = None) -> None:
    """Say which base backups there are, and until when the WAL reaches."""
    _, repository = _open(data_dir)
    for one in repository.bases():
        typer.echo(
            f"{one.label}  finished {one.finished_at.isoformat()}  {one.sealed_bytes} bytes  "
            f"from {one.start_segment}"
        )
    reach = repository.reach()
    typer.echo("no WAL" if reach is None else f"WAL reaches {reach.at.isoformat()} ({reach.lsn})")


@commands.command("verify")
def verify(data_dir: DataDir = None, scratch: Scratch = None) -> None:
    """Open every byte of every backup; a line for each finding, exit code 1 if any."""
    from pokerarena.ops.backup.verify import verify as verified

    settings, repository = _open(data_dir)
    found = 0
    for finding in verified(settings, repository, scratch):
        typer.echo(finding)
        found += 1
    whole = f"{len(repository.bases())} base backups, {len(repository.wal_names())} WAL files"
    typer.echo(f"{whole}: {f'{found} findings' if found else 'whole'}", err=True)
    if found:
        raise typer.Exit(1)


@commands.command("prune")
def prune(data_dir: DataDir = None) -> None:
    """Delete base backups beyond the retention, and the WAL that only they needed."""
    from pokerarena.ops.backup.service import prune as pruned

    typer.echo(pruned(*_open(data_dir)))


@commands.command("restore")
def restore(
    target: Annotated[Path, typer.Argument(help="A new or empty directory for the database.")],
    at: At = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The base backup to start from.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Restore the database as it was at a moment, beside the one in use."""
    from pokerarena.ops.backup.restore import restore as restored

    settings, repository = _open(data_dir)
    done = restored(settings, repository, target, at=_moment(at), label=base)
    typer.echo(f"restored {done.base.label} into {target} in {done.took_s:.1f} s")


@commands.command("drill")
def drill(at: At = None, scratch: Scratch = None, data_dir: DataDir = None) -> None:
    """Restore into a scratch instance, check everything, and report the measured RPO and RTO."""
    from pokerarena.ops.backup.drill import drill as drilled

    settings, repository = _open(data_dir)
    report = drilled(settings, repository, at=_moment(at), scratch=scratch, tell=typer.echo)
    for line in report.lines():
        typer.echo(line)
    if not report.whole:
        raise typer.Exit(1)


@commands.command("pgbackrest-config")
def pgbackrest_config(
    directory: Annotated[Path, typer.Argument(help="Where to write the files.")],
    pg_data: Annotated[str, typer.Option(help="The data directory of PostgreSQL, on its host.")],
    stanza: Annotated[str, typer.Option(help="The name of this database.")] = "pokerarena",
    pg_socket: Annotated[str, typer.Option(help="Where its socket is.")] = "/var/run/postgresql",
    pg_port: Annotated[int, typer.Option(min=1, max=65_535)] = 5432,
    pg_user: Annotated[str, typer.Option(help="A superuser.")] = "postgres",
    processes: Annotated[int, typer.Option(min=1, max=999, help="How many at once.")] = 2,
) -> None:
    """Write the configuration of pgBackRest for a PostgreSQL of your own."""
    from pokerarena.ops.backup import pgbackrest
    from pokerarena.settings import load_settings

    # It asks no database, and needs no address of one.
    settings = load_settings(database_url="postgresql+psycopg:///unused")
    cluster = pgbackrest.Cluster(stanza, pg_data, pg_socket, pg_port, pg_user)
    for path in pgbackrest.write(
        settings, cluster, directory.expanduser().absolute(), processes=processes
    ):
        typer.echo(path)


def _open(data_dir: Path | None) -> tuple[Settings, Repository]:
    from pokerarena.ops.backup.repository import Repository
    from pokerarena.ops.data_directory import settings_of

    settings = settings_of(data_dir)
    return settings, Repository.of(settings)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no moment: write 2026-11-27T09:30:00Z") from None
    if moment.tzinfo is None:
        raise typer.BadParameter(f"'{text}' names no time zone: end it with Z or +01:00")
    return moment
