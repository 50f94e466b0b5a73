"""`pokerarena doctor`: what is wrong with this installation, and what to do."""

from __future__ import annotations

import typer

from pokerarena.ops.commands.options import DataDir


def doctor(data_dir: DataDir = None) -> None:
    """Check settings, database, schema, queue, backups and clock; exit code 1 if something is wrong."""
    from pokerarena.ops.examination import examine

    findings = examine(data_dir)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.well else 'FAIL'}  {finding.subject}: {finding.text}")
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)
