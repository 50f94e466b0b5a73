"""What each database role may do is what is declared, no more and no less, proved with SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import make_url

from pokerarena.errors import ConfigurationError
from pokerarena.ops import database_roles, migrate, privileges
from pokerarena.ops.privileges import FUNCTIONS, RELATIONS, SEQUENCES, DatabaseRole, Declared
from tests.conftest import Databases
from tests.database_server import as_role

ROOT = Path(__file__).parents[2]
API, WORKER = DatabaseRole.API, DatabaseRole.WORKER
PRIVILEGE = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|USAGE)(?: \(([a-z_0-9, ]+)\))?")
Connect = Callable[[DatabaseRole], psycopg.Connection[Any]]


def connection(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(False))


@pytest.fixture(scope="module")
def module_database_url(databases: Databases) -> Iterator[str]:
    """One database for all these tests: none of them commits anything."""
    name = databases.create()
    # A copy of a database does not have its rights to connect and to make temporary relations.
    migrate.upgrade(databases.url(name))
    yield databases.url(name)
    databases.drop(name)


@pytest.fixture(scope="module")
def owner(module_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connection(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str) -> Iterator[dict[DatabaseRole, psycopg.Connection[Any]]]:
    opened = {role: connection(as_role(module_database_url, role)) for role in DatabaseRole}
    yield opened
    for one in opened.values():
        one.close()


def allowed(db: psycopg.Connection[Any], statement: str | sql.Composed) -> bool:
    """Whether the statement, which touches no row, is permitted; whatever it does is undone."""
    try:
        with db.transaction(force_rollback=True):
            db.execute(statement)
    except InsufficientPrivilege:
        return False
    return True


def columns(owner: psycopg.Connection[Any], relation: str) -> Sequence[tuple[str, str]]:
    return owner.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        (relation,),
    ).fetchall()


def declared_columns(granted: Sequence[str], privilege: str, every: set[str]) -> set[str]:
    found: set[str] = set()
    for one in granted:
        match = PRIVILEGE.fullmatch(one)
        assert match, one
        if match[1] == privilege:
            named = {name.strip() for name in match[2].split(",")} if match[2] else every
            assert named <= every, f"{one} names a column that does not exist"
            found |= named
    return found


@pytest.mark.parametrize("role", DatabaseRole)
@pytest.mark.parametrize("relation", sorted(RELATIONS))
def test_a_role_may_do_with_a_relation_what_is_declared_and_nothing_else(
    owner: psycopg.Connection[Any],
    served: dict[DatabaseRole, psycopg.Connection[Any]],
    relation: str,
    role: DatabaseRole,
) -> None:
    db, granted = served[role], RELATIONS[relation].of(role)
    name = sql.Identifier(relation)
    types = dict(columns(owner, relation))
    every = set(types)

    def permitted(statement: str) -> set[str]:
        return {
            column
            for column, kind in types.items()
            if allowed(
                db,
                sql.SQL(statement).format(
                    relation=name, column=sql.Identifier(column), kind=sql.SQL(kind)
                ),
            )
        }

    assert permitted("SELECT {column} FROM {relation} LIMIT 0") == declared_columns(
        granted, "SELECT", every
    )
    if relation == "hand_actions":
        return  # a view that nobody can write
    assert permitted(
        "INSERT INTO {relation} ({column}) OVERRIDING SYSTEM VALUE SELECT NULL::{kind} WHERE false"
    ) == declared_columns(granted, "INSERT", every)
    assert permitted("UPDATE {relation} SET {column} = DEFAULT WHERE false") == declared_columns(
        granted, "UPDATE", every
    )
    assert allowed(db, sql.SQL("DELETE FROM {} WHERE false").format(name)) == ("DELETE" in granted)
    assert not allowed(db, sql.SQL("TRUNCATE {} CASCADE").format(name))
    assert not allowed(db, sql.SQL("ALTER TABLE {} DISABLE TRIGGER ALL").format(name)), (
        "only the owner may switch a guard off"
    )


@pytest.mark.parametrize("role", DatabaseRole)
@pytest.mark.parametrize("sequence", sorted(SEQUENCES))
def test_a_role_may_use_the_sequences_that_are_declared(
    served: dict[DatabaseRole, psycopg.Connection[Any]], sequence: str, role: DatabaseRole
) -> None:
    granted = SEQUENCES[sequence].of(role)
    assert allowed(served[role], f"SELECT nextval('{sequence}')") == ("USAGE" in granted)


@pytest.mark.parametrize("role", DatabaseRole)
def test_a_role_may_call_the_functions_that_are_declared(
    owner: psycopg.Connection[Any], role: DatabaseRole
) -> None:
    callable_by_role = {
        name
        for (name,) in owner.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " AND has_function_privilege(%s, oid, 'EXECUTE')",
            (role.value,),
        )
    }
    assert callable_by_role == {name for name, roles in FUNCTIONS.items() if role in roles}


def test_every_relation_and_sequence_has_declared_privileges(
    owner: psycopg.Connection[Any],
) -> None:
    present: dict[bool, set[str]] = {False: set(), True: set()}
    for name, kind in owner.execute(
        "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT relispartition"
    ):
        present[kind == "S"].add(name)
    assert present[False] == set(RELATIONS), "declare it in ops/privileges.py"
    assert present[True] == set(SEQUENCES), "declare it in ops/privileges.py"


# Said again in words of their own, so that a careless declaration does not pass unnoticed.
@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (API, "SELECT seed_sealed FROM run_seeds"),
        (API, "UPDATE run_seeds SET seed_sealed = ''"),
        (API, "INSERT INTO revealed_seeds (run_id) SELECT id FROM runs"),
        (API, "INSERT INTO hands (id) SELECT id FROM runs"),
        (API, "UPDATE hands SET epoch = 0"),
        (API, "DELETE FROM hands"),
        (API, "SELECT history_ensure_partitions(3)"),
        (API, "INSERT INTO history_archives (id) SELECT id FROM runs"),
        (API, "INSERT INTO hand_cards (hand_id) SELECT id FROM hands"),
        (API, "INSERT INTO void_deals (run_id) SELECT id FROM runs"),
        (API, "UPDATE runs SET epoch = epoch"),
        (API, "UPDATE runs SET hands_done = hands_done"),
        (API, "UPDATE runs SET reveal_policy = 'after_run'"),
        (API, "UPDATE run_seats SET net = 0"),
        (API, "UPDATE agent_versions SET callback_url = callback_url"),
        (API, "UPDATE agent_versions SET check_status = 'passed'"),
        (API, "SELECT bytes FROM agent_packages"),
        (API, "UPDATE agent_packages SET bytes = ''"),
        (API, "UPDATE run_seats SET sandbox = '{}'"),
        (API, "DELETE FROM users"),
        (API, "SELECT args FROM procrastinate_jobs"),
        (API, "DELETE FROM procrastinate_jobs"),
        (API, "INSERT INTO audit_records (seq) SELECT 1"),
        (API, "UPDATE audit_records SET event = ''"),
        (API, "DELETE FROM audit_records"),
        (API, "DELETE FROM signing_keys"),
        (API, "UPDATE audit_head SET seq = 0"),
        (WORKER, "SELECT password_hash FROM users"),
        (WORKER, "SELECT id FROM users"),
        (WORKER, "SELECT mac FROM api_tokens"),
        (WORKER, "SELECT refresh_mac FROM sessions"),
        (WORKER, "SELECT private_sealed FROM signing_keys"),
        (WORKER, "SELECT seed_sealed FROM second_factors"),
        (WORKER, "SELECT mac FROM recovery_codes"),
        (WORKER, "INSERT INTO api_tokens (id) SELECT id FROM runs"),
        (WORKER, "SELECT event FROM audit_records"),
        (WORKER, "SELECT audit_append('logout', NULL, NULL, NULL, NULL, '{}')"),
        (WORKER, "SELECT audit_append_judgement('login.succeeded', 'a subject', '{}')"),
        (API, "SELECT audit_append_judgement('version.suspended', 'a subject', '{}')"),
        (WORKER, "UPDATE hands SET epoch = 0"),
        (WORKER, "DELETE FROM hands"),
        (WORKER, "TRUNCATE hands CASCADE"),
        (WORKER, "SELECT cards FROM hand_cards"),
        (WORKER, "UPDATE hand_cards SET cards = ''"),
        (WORKER, "SELECT cards FROM hand_cards_default"),
        (WORKER, "INSERT INTO hands_default (id) SELECT id FROM hands"),
        (WORKER, "DROP TABLE hands_before"),
        (WORKER, "SELECT history_make_partition('hands', 'run_id', '2031-01-01')"),
        (WORKER, "DELETE FROM void_deals"),
        (WORKER, "INSERT INTO runs (id) SELECT id FROM hands"),
        (WORKER, "UPDATE runs SET seed_sha256 = ''"),
        (WORKER, "UPDATE runs SET rules = '{}'"),
        (WORKER, "UPDATE run_seeds SET seed_sealed = ''"),
        (WORKER, "UPDATE agent_versions SET signing_secret_sealed = ''"),
        (WORKER, "UPDATE agent_versions SET package_digest = ''"),
        (WORKER, "INSERT INTO agent_packages (digest) SELECT ''::bytea"),
        (WORKER, "UPDATE agent_packages SET bytes = ''"),
        (WORKER, "DELETE FROM agent_packages"),
        (WORKER, "UPDATE seats SET seat_no = 1"),
    ],
)
def test_what_a_hole_in_one_process_must_not_reach_is_refused(
    served: dict[DatabaseRole, psycopg.Connection[Any]], role: DatabaseRole, statement: str
) -> None:
    with (
        pytest.raises(InsufficientPrivilege),
        served[role].transaction(force_rollback=True),
    ):
        served[role].execute(statement)


@pytest.mark.parametrize("role", DatabaseRole)
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SET ROLE postgres",
        "COPY users TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT rolpassword FROM pg_authid",
        "ALTER ROLE CURRENT_USER SUPERUSER",
        "DROP TABLE hands CASCADE",
        "ALTER SYSTEM SET log_statement = 'all'",
    ],
)
def test_no_role_that_serves_can_make_anything_or_become_anyone(
    served: dict[DatabaseRole, psycopg.Connection[Any]], role: DatabaseRole, statement: str
) -> None:
    db = served[role]
    if statement.startswith("ALTER SYSTEM"):
        db.rollback()
        db.autocommit = True
    try:
        with pytest.raises(InsufficientPrivilege):
            db.execute(statement)
    finally:
        db.rollback()
        db.autocommit = False


def test_what_a_later_revision_adds_belongs_to_the_owner_alone(database_url: str) -> None:
    with connection(database_url) as owner:
        owner.execute("CREATE TABLE later (id bigserial PRIMARY KEY)")
        owner.execute("CREATE FUNCTION later_function() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    for role in DatabaseRole:
        with connection(as_role(database_url, role)) as db:
            for statement in (
                "SELECT id FROM later",
                "SELECT nextval('later_id_seq')",
                "SELECT later_function()",
            ):
                assert not allowed(db, statement), (role, statement)


def test_a_grant_that_is_no_longer_declared_is_taken_back_and_others_stay(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(privileges.RELATIONS, "users", Declared(api=("SELECT (id)",)))
    migrate.upgrade(database_url)
    with connection(as_role(database_url, API)) as db:
        assert allowed(db, "SELECT id FROM users LIMIT 0")
        assert not allowed(db, "SELECT password_hash FROM users LIMIT 0")
        assert allowed(db, "SELECT mac FROM api_tokens LIMIT 0")
    monkeypatch.undo()
    migrate.upgrade(database_url)
    with connection(as_role(database_url, API)) as db:
        assert allowed(db, "SELECT password_hash FROM users LIMIT 0")


def test_only_the_roles_of_the_arena_may_connect_to_its_database(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    with connection(empty_database_url) as owner:
        with owner.transaction(force_rollback=True):
            owner.execute("CREATE ROLE a_stranger LOGIN")
            may = [
                owner.execute(
                    "SELECT has_database_privilege(%s, current_database(), 'CONNECT')", (role,)
                ).fetchone()
                for role in ("a_stranger", API.value, WORKER.value)
            ]
        assert may == [(False,), (True,), (True,)]


def test_the_server_is_given_a_verifier_and_never_the_password(database_url: str) -> None:
    password = "a password of the api role"
    try:
        migrate.upgrade(database_url, passwords={API: password})
        with connection(database_url) as owner:
            found = dict(
                owner.execute(
                    "SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'poker%'"
                )
            )
        assert found[API.value].startswith("SCRAM-SHA-256$")
        assert password not in found[API.value]
        assert found[WORKER.value] is None
    finally:
        with connection(database_url) as owner:
            owner.execute(f"ALTER ROLE {API.value} PASSWORD NULL")


def test_an_owner_without_special_rights_grants_what_exists_and_says_what_it_cannot(
    empty_database_url: str,
) -> None:
    database = make_url(empty_database_url).database
    with connection(empty_database_url) as superuser:
        superuser.execute(
            "DO $$ BEGIN CREATE ROLE plain_owner LOGIN; EXCEPTION WHEN duplicate_object THEN NULL;"
            " END $$"
        )
        superuser.execute(f"ALTER DATABASE {database} OWNER TO plain_owner")
    url = make_url(empty_database_url).set(username="plain_owner").render_as_string(False)
    assert migrate.upgrade(url).up_to_date
    with connection(as_role(empty_database_url, API)) as db:
        assert allowed(db, "SELECT password_hash FROM users LIMIT 0")
        assert not allowed(db, "SELECT seed_sealed FROM run_seeds LIMIT 0")
    with (
        create_engine(url, poolclass=NullPool).connect() as plain,
        pytest.MonkeyPatch.context() as patched,
    ):
        absent = [type("Absent", (str,), {"value": "pokerarena_absent"})("pokerarena_absent")]
        patched.setattr(database_roles, "DatabaseRole", absent)
        with pytest.raises(ConfigurationError, match="may not create the role pokerarena_absent"):
            database_roles.ensure(plain)


def test_the_manual_lists_the_privileges_as_they_are() -> None:
    document = (ROOT / "docs" / "security" / "database-roles.md").read_text()
    assert document == privileges.renewed(document), "run 'make docs'"
