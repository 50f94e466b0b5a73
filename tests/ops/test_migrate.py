"""The schema moves up and down, says where it is, and equals the mapped models."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.engine import make_url

from pokerarena.errors import Unavailable
from pokerarena.ops import migrate


def relations(url: str) -> set[str]:
    query = (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
        "AND table_name <> 'alembic_version'"
    )
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string()) as db:
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


def test_a_second_migration_waits_its_turn_and_then_says_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "QUEUE_FOR_TURN_MS", 200)
    url = make_url(database_url).set(drivername="postgresql").render_as_string()
    with psycopg.connect(url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (migrate.ADVISORY_LOCK,))
        with pytest.raises(Unavailable, match="still running"):
            migrate.upgrade(database_url)


def test_an_unreachable_database_is_one_sentence(tmp_path: object) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        migrate.check(f"postgresql+psycopg://nobody@/none?host={tmp_path}")
