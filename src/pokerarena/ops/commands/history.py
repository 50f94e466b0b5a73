"""`pokerarena history`: partitions of hands, and archives of old ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pokerarena.ops.commands.options import DataDir

if TYPE_CHECKING:
    from datetime import datetime

commands = typer.Typer(
    help="Where hands are kept: partitions, and archives of old ones.", no_args_is_help=True
)


@commands.command("list")
def list_partitions(data_dir: DataDir = None) -> None:
    """A line for each partition of hands, and for each archive."""
    import asyncio

    from pokerarena.history import archives
    from pokerarena.history.partitions import moment_of
    from pokerarena.ops import archiving
    from pokerarena.ops.data_directory import settings_of

    async def look() -> None:
        async with archiving.opened(settings_of(data_dir)) as database, database.session() as here:
            for one in await archiving.partitions(here, "hands"):
                begin = "the beginning" if one.begins is None else f"{moment_of(one.begins):%F}"
                span = "the rest" if one.ends is None else f"{begin} to {moment_of(one.ends):%F}"
                typer.echo(f"{one.name}  {span}  about {one.rows} hands  {one.bytes} bytes")
            for archive in await archives.list_archives(here):
                typer.echo(
                    f"{archive.name}  {archive.state}  {archive.runs} runs  {archive.hands} hands"
                    f"  {archive.place}"
                )

    asyncio.run(look())


@commands.command("prepare")
def prepare(data_dir: DataDir = None) -> None:
    """Make the partitions of the coming months now; workers do it once an hour."""
    import asyncio

    from pokerarena.history.partitions import ensure_partitions
    from pokerarena.ops import archiving
    from pokerarena.ops.data_directory import settings_of

    async def make() -> int:
        settings = settings_of(data_dir)
        # Hands may have to be moved out of the default partition.
        patient = settings.model_copy(update={"database_statement_timeout_ms": 0})
        async with archiving.opened(patient) as database, database.unit_of_work() as session:
            return await ensure_partitions(session, settings.history_months_ahead)

    typer.echo(f"{asyncio.run(make())} partitions made")


@commands.command("archive")
def archive(
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            help="A date such as 2026-08-01: months that end by then. By retention without it.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="The folder; by its setting without it.")
    ] = None,
    place: Annotated[
        str, typer.Option("--place", help="What callers who ask for such a hand are told.")
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """Write ended runs of whole months to files, read them back, and drop their hands here."""
    import asyncio
    from datetime import UTC, datetime

    from pokerarena.ops import archiving
    from pokerarena.ops.data_directory import settings_of

    settings = settings_of(data_dir)
    moment = (
        archiving.end_of_retention(settings, datetime.now(UTC))
        if before is None
        else _moment(before)
    )
    if moment is None:
        typer.echo("hands are kept for ever: set POKERARENA_HISTORY_KEEP_DAYS, or name --before")
        return
    directory = to or Path(settings.history_archive_directory or ".")
    if to is None and not settings.history_archive_directory:
        typer.echo(
            "pokerarena: where to? Name --to, or set POKERARENA_HISTORY_ARCHIVE_DIRECTORY", err=True
        )
        raise typer.Exit(2)
    done = asyncio.run(
        archiving.archive_before(settings, moment, directory, place=place, tell=typer.echo)
    )
    typer.echo(f"{len(done)} months archived", err=True)


@commands.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="The folder of one archive.")],
    data_dir: DataDir = None,
) -> None:
    """Read an archive to its end, and compare it with what the database knows of its runs."""
    import asyncio

    from pokerarena.ops import archiving
    from pokerarena.ops.data_directory import settings_of

    manifest = asyncio.run(archiving.verify_archive(settings_of(data_dir), folder))
    typer.echo(f"{manifest.archive}: {len(manifest.runs)} runs, {manifest.hands} hands: whole")


@commands.command("abandon")
def abandon(
    name: Annotated[str, typer.Argument(help="The archive's name, as the list shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Give up an archive that was begun and not finished: its runs can be resumed again."""
    import asyncio

    from pokerarena.history import archives
    from pokerarena.ops import archiving
    from pokerarena.ops.data_directory import settings_of

    async def give_up() -> None:
        async with (
            archiving.opened(settings_of(data_dir)) as database,
            database.unit_of_work() as session,
        ):
            await archives.thaw(session, name)

    asyncio.run(give_up())
    typer.echo(f"{name} is given up; its hands are all here")


def _moment(said: str) -> datetime:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        raise typer.BadParameter("a date such as 2026-08-01", param_hint="--before") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
