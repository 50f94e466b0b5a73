"""`pokerarena dead-letters`: what gave up, seen and decided from the arena's own machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pokerarena.ops.commands.options import DataDir

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

    from pokerarena.runs.models import DeadLetter

commands = typer.Typer(
    help="What gave up: list it, look at it, retry or discard it.", no_args_is_help=True
)

LetterId = Annotated[str, typer.Argument(help="The letter's id, as the list shows it.")]
LISTED_MAX = 1000


@commands.command("list")
def list_letters(
    everything: Annotated[
        bool, typer.Option("--all", help="Closed ones too, not only those that are open.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """A line for each letter, newest first."""
    from pokerarena.runs import dead_letters
    from pokerarena.runs.models import DeadLetterState

    async def read(session: AsyncSession) -> list[DeadLetter]:
        state = None if everything else DeadLetterState.OPEN
        return await dead_letters.list_letters(session, state=state, before=None, limit=LISTED_MAX)

    for letter in _with_session(data_dir, read):
        typer.echo(_line(letter))


@commands.command("show")
def show(letter_id: LetterId, data_dir: DataDir = None) -> None:
    """All that is known of one letter."""
    from pokerarena.runs import dead_letters

    letter = _with_session(
        data_dir, lambda session: dead_letters.get_letter(session, _parsed(letter_id))
    )
    for name in (
        *("subject", "state", "code", "detail", "attempts", "job_id", "epoch", "request_id"),
        *("claimed_by", "created_at", "last_failed_at", "closed_at"),
    ):
        typer.echo(f"{name:15} {getattr(letter, name)}")
    typer.echo(f"{'run_id':15} {_run_text(letter)}")


@commands.command("retry")
def retry(letter_id: LetterId, data_dir: DataDir = None) -> None:
    """Resume the run from where it stands."""
    from pokerarena.runs import dead_letters

    letter = _with_session(
        data_dir, lambda session: dead_letters.retry(session, _parsed(letter_id), by=None)
    )
    typer.echo(_line(letter))


@commands.command("discard")
def discard(letter_id: LetterId, data_dir: DataDir = None) -> None:
    """Close the letter; what it is about stays failed."""
    from pokerarena.runs import dead_letters

    letter = _with_session(
        data_dir, lambda session: dead_letters.discard(session, _parsed(letter_id), by=None)
    )
    typer.echo(_line(letter))


def _with_session(data_dir: Path | None, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    import asyncio

    from sqlalchemy.exc import DBAPIError

    from pokerarena.db import Database
    from pokerarena.errors import Unavailable
    from pokerarena.ops.data_directory import settings_of

    async def run() -> Any:
        database = Database(settings_of(data_dir), application_name="pokerarena dead-letters")
        try:
            async with database.unit_of_work() as session:
                return await work(session)
        except DBAPIError as error:
            reason = str(error.orig).strip().split("\n", 1)[0]
            raise Unavailable(
                "database_unreachable", f"The database cannot be used: {reason}."
            ) from None
        finally:
            await database.close()

    return asyncio.run(run())


def _parsed(letter_id: str) -> Any:
    from pokerarena.ids import IdKind, parse_id

    return parse_id(IdKind.DEAD_LETTER, letter_id)


def _run_text(letter: DeadLetter) -> str:
    from pokerarena.ids import IdKind, id_text

    return "none" if letter.run_id is None else id_text(IdKind.RUN, letter.run_id)


def _line(letter: DeadLetter) -> str:
    from pokerarena.ids import IdKind, id_text

    return (
        f"{id_text(IdKind.DEAD_LETTER, letter.id)}  {letter.state}  {letter.code}  "
        f"{_run_text(letter)}  {letter.attempts} attempts  {letter.last_failed_at.isoformat()}"
    )
