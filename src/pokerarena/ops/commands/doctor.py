"""`pokerarena doctor`: what is wrong with this installation, and what to do."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Check settings, database, schema, queue and clock; exit code 1 if something is wrong."""
    from pokerarena.ops.examination import examine

    findings = examine()
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.well else 'FAIL'}  {finding.subject}: {finding.text}")
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)
