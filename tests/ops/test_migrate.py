"""The schema moves up and down, says where it is, and equals the mapped models."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from pokerarena import migrations
from pokerarena.errors import Unavailable
from pokerarena.ops import migrate
from pokerarena.ops.migration_plan import plan


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string()


def relations(url: str) -> set[str]:
    query = (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
        "AND table_name <> 'alembic_version'"
    )
    with psycopg.connect(plain(url)) as db:
        return {name for (name,) in db.execute(query)}


def test_a_new_database_is_behind_until_it_is_upgraded(empty_database_url: str) -> None:
    before = migrate.check(empty_database_url)
    assert before.current is None
    assert not before.up_to_date
    after = migrate.upgrade(empty_database_url)
    assert after.up_to_date
    assert migrate.check(empty_database_url) == after
    assert {"users", "agents", "runs", "hands", "procrastinate_jobs"} <= relations(
        empty_database_url
    )


def test_the_schema_is_what_the_models_say(database_url: str) -> None:
    assert migrate.drift(database_url) == []


def test_down_leaves_nothing_and_up_again_gives_the_same(database_url: str) -> None:
    before = relations(database_url)
    state = migrate.downgrade(database_url, "base")
    assert state.current is None
    assert relations(database_url) == set()
    migrate.upgrade(database_url)
    assert relations(database_url) == before


def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    assert migrate.upgrade(database_url).up_to_date


def test_a_schema_of_a_later_release_is_left_as_it_is(database_url: str) -> None:
    before = relations(database_url)
    with psycopg.connect(plain(database_url)) as db:
        db.execute("UPDATE alembic_version SET version_num = 'later_0001'")
    state = migrate.upgrade(database_url)
    assert (state.current, state.newer, state.up_to_date) == ("later_0001", True, False)
    assert migrate.check(database_url) == state
    assert relations(database_url) == before


def test_a_second_migration_waits_its_turn_and_then_says_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "QUEUE_FOR_TURN_MS", 200)
    with psycopg.connect(plain(database_url)) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (migrate.ADVISORY_LOCK,))
        with pytest.raises(Unavailable, match="still running"):
            migrate.upgrade(database_url)


def test_an_unreachable_database_is_one_sentence(tmp_path: object) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        migrate.check(f"postgresql+psycopg://nobody@/none?host={tmp_path}")


def revisions(url: str) -> list[str]:
    """Of all revisions, oldest first."""
    with migrate.connection(url) as connected:
        script = ScriptDirectory.from_config(migrate.config_of(connected))
        return [one.revision for one in script.iterate_revisions("head", "base")][::-1]


def test_every_revision_goes_down_and_up_again_without_drift(database_url: str) -> None:
    every = revisions(database_url)
    before = relations(database_url)
    for revision in every[-2::-1]:
        assert migrate.downgrade(database_url, revision).current == revision
        migrate.upgrade(database_url)
        assert relations(database_url) == before
        assert migrate.drift(database_url) == []
        migrate.downgrade(database_url, revision)
    assert migrate.upgrade(database_url).up_to_date
    assert migrate.drift(database_url) == []


def test_the_plan_says_what_would_be_locked_and_touches_nothing(database_url: str) -> None:
    migrate.downgrade(database_url, "reliability_0001")
    steps = plan(database_url)
    assert [step.revision for step in steps] == revisions(database_url)[2:]
    locked = {lock.relation: lock for lock in steps[0].locks}
    assert locked.keys() >= {"hands", "runs"}
    assert locked["hands"].mode == "AccessExclusiveLock"
    assert not locked["hands"].rewritten
    assert "reads and writes wait; for a moment" in steps[0].line()
    assert "locks nothing that exists" in steps[1].line()
    assert migrate.check(database_url).current == "reliability_0001"
    with psycopg.connect(plain(database_url)) as connected:
        left = connected.execute(
            "SELECT 1 FROM pg_database WHERE datname LIKE 'pokerarena_plan%'"
        ).fetchall()
    assert left == []


# Read under a lock, and as short as the list of all versions is.
SHORT = {("hosted_0001", "agent_versions")}


def test_no_revision_holds_a_lock_for_long(database_url: str) -> None:
    """What exists is never rewritten or read to its end under a lock, and a revision that locks a
    relation changes no rows."""
    source = Path(migrations.__file__).parent / "versions"
    for step in plan(database_url, start="0001"):
        long = [
            lock.relation
            for lock in step.locks
            if lock.rewritten or (lock.scanned and (step.revision, lock.relation) not in SHORT)
        ]
        assert not long, step.line()
        (path,) = (
            path
            for path in source.glob("*.py")
            if f'\nrevision = "{step.revision}"\n' in path.read_text()
        )
        text = path.read_text()
        # What a function or a trigger will do later is not done by the revision.
        text = re.sub(r"CREATE FUNCTION .*?\$\$.*?\$\$", "", text, flags=re.DOTALL)
        text = re.sub(r"BEFORE UPDATE OR DELETE[^;]*;", "", text)
        # The way down is taken when the arena is not played.
        text = re.sub(r'^DOWN_\w+ = """.*?"""', "", text, flags=re.DOTALL | re.MULTILINE)
        changes_rows = re.search(r"\b(UPDATE|DELETE FROM|INSERT INTO)\b", text) is not None
        changes_shape = re.search(r"op\.(add|alter|drop)_column", text) is not None
        assert not (changes_rows and changes_shape), f"{path.name}: split it"
        if changes_rows:
            assert "autocommit_block" in text, f"{path.name} changes rows in one transaction"


LATER_REVISION = """
revision = "later_0001"
down_revision = "{head}"
branch_labels = depends_on = None
from alembic import op

def upgrade():
    op.execute("{statement}")

def downgrade():
    pass
"""


@pytest.mark.parametrize(
    ("statement", "relation", "effort"),
    [
        ("ALTER TABLE hands ALTER COLUMN epoch TYPE bigint", "hands_before", "REWRITES"),
        ("CREATE INDEX ix_later ON runs (created_at)", "runs", "READS"),
        ("ALTER TABLE runs ADD CONSTRAINT ck_later CHECK (epoch >= 0)", "runs", "READS"),
        ("ALTER TABLE runs ADD CONSTRAINT ck_later CHECK (epoch >= 0) NOT VALID", "runs", "moment"),
    ],
)
def test_a_revision_that_would_hold_a_lock_for_long_is_found(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    relation: str,
    effort: str,
) -> None:
    """What the test above relies on: it shows in the plan, and `migrate check` tells of it."""
    shutil.copytree(Path(migrations.__file__).parent, tmp_path / "migrations")
    head = migrate.check(database_url).head
    later = tmp_path / "migrations" / "versions" / "later_0001.py"
    later.write_text(LATER_REVISION.format(head=head, statement=statement))
    config_of = migrate.config_of

    def with_later_revision(connection: Connection) -> Config:
        config = config_of(connection)
        config.set_main_option("script_location", str(tmp_path / "migrations"))
        return config

    monkeypatch.setattr(migrate, "config_of", with_later_revision)
    (step,) = plan(database_url)
    (lock,) = [lock for lock in step.locks if lock.relation == relation]
    assert effort in lock.effort(), step.line()
