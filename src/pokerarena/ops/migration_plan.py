"""What the revisions that are still to come would lock, found out without touching the database.

Owns a scratch database beside the real one: it is brought to where the real one is, then each
revision is applied there and its locks are read before it commits. How large the relations are is
read from the real one.
Must never: lock or change anything in the real database, or leave the scratch one behind.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from pokerarena.ops import migrate

# The weaker ones let everybody read and write.
HARMLESS: Final = ("AccessShareLock", "RowShareLock", "RowExclusiveLock")
_STRENGTH: Final = (
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
_MEANING: Final = {
    "ShareUpdateExclusiveLock": "reads and writes go on",
    "ShareLock": "writes wait",
    "ShareRowExclusiveLock": "writes wait",
    "ExclusiveLock": "writes wait",
    "AccessExclusiveLock": "reads and writes wait",
}
# By their oids: a revision may rename a relation.
_LOCKS: Final = text(
    "SELECT DISTINCT c.oid, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
    " WHERE l.pid = pg_backend_pid() AND l.granted AND c.relkind IN ('r', 'p')"
    " AND c.relnamespace = 'public'::regnamespace"
)
_FILES: Final = text(
    "SELECT oid, relname, relfilenode FROM pg_class"
    " WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
)
# Indexes, and constraints that were held against every row there is.
_PROVED: Final = text(
    "SELECT indrelid, indexrelid FROM pg_index JOIN pg_class c ON c.oid = indrelid"
    " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
    " UNION ALL SELECT conrelid, oid FROM pg_constraint"
    " WHERE convalidated AND conrelid <> 0 AND contype IN ('c', 'f')"
    " AND connamespace = 'public'::regnamespace"
)
_ROWS: Final = text(
    "SELECT relname, greatest(reltuples, 0)::bigint FROM pg_class"
    " WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
)


class Lock(NamedTuple):
    """One relation that a revision locks, with the strongest mode that it takes."""

    relation: str
    mode: str
    rewritten: bool
    # An index is built or a constraint is held against every row, while others wait.
    scanned: bool
    rows: int

    def effort(self) -> str:
        """How long it lasts, in words."""
        if self.rewritten:
            return f"REWRITES about {self.rows} rows"
        return f"READS about {self.rows} rows" if self.scanned else "for a moment"


class Step(NamedTuple):
    """One revision that is still to come."""

    revision: str
    locks: tuple[Lock, ...]

    def line(self) -> str:
        """One line for people."""
        if not self.locks:
            return f"{self.revision}: locks nothing that exists"
        parts = [
            f"{lock.relation} ({lock.mode}: {_MEANING[lock.mode]}; {lock.effort()})"
            for lock in self.locks
        ]
        return f"{self.revision}: locks {', '.join(parts)}"


def plan(url: str, *, start: str | None = None) -> list[Step]:
    """The steps from where the database is (or from `start`) to what this program expects.

    Needs the right to create a database on the same server.
    """
    state = migrate.check(url)
    current = start or state.current
    with migrate.connection(url) as real:
        rows = {name: int(count) for name, count in real.execute(_ROWS)}
    with _scratch(url) as scratch_url:
        if current is not None:
            migrate.upgrade(scratch_url, current)
        return [_try(scratch_url, revision, rows) for revision in _to_come(scratch_url, current)]


def _to_come(url: str, current: str | None) -> list[str]:
    with migrate.connection(url) as scratch:
        script = ScriptDirectory.from_config(migrate.config_of(scratch))
        found = [one.revision for one in script.iterate_revisions("head", current or "base")]
    return found[::-1]


def _try(url: str, revision: str, rows: dict[str, int]) -> Step:
    with migrate.connection(url) as scratch:
        names: dict[int, str] = {}
        before: dict[int, int] = {}
        for oid, name, node in scratch.execute(_FILES):
            names[oid], before[oid] = name, node
        proved = set(scratch.execute(_PROVED))
        scratch.commit()
        locks: dict[int, str] = {}
        after: dict[int, int] = {}
        scanned: set[int] = set()

        def look(**given: Any) -> None:
            connection: Connection = given["ctx"].connection
            for relation, mode in connection.execute(_LOCKS):
                if mode in HARMLESS or names.get(relation, "alembic_version") == "alembic_version":
                    continue
                held = locks.get(relation)
                if held is None or _STRENGTH.index(mode) > _STRENGTH.index(held):
                    locks[relation] = mode
            scanned.update({relation for relation, _ in set(connection.execute(_PROVED)) - proved})
            after.update({oid: node for oid, _, node in connection.execute(_FILES)})

        config = migrate.config_of(scratch)
        config.attributes["on_version_apply"] = (look,)
        command.upgrade(config, revision)
    return Step(
        revision,
        tuple(
            Lock(
                names[oid],
                mode,
                after.get(oid, before[oid]) != before[oid],
                oid in scanned and mode != "ShareUpdateExclusiveLock",
                rows.get(names[oid], 0),
            )
            for oid, mode in sorted(locks.items(), key=lambda lock: names[lock[0]])
        ),
    )


@contextmanager
def _scratch(url: str) -> Iterator[str]:
    name = f"pokerarena_plan_{secrets.token_hex(6)}"
    with migrate.connection(url) as real:
        autocommit = real.execution_options(isolation_level="AUTOCOMMIT")
        autocommit.execute(text(f'CREATE DATABASE "{name}"'))
        try:
            yield make_url(url).set(database=name).render_as_string(hide_password=False)
        finally:
            autocommit.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
