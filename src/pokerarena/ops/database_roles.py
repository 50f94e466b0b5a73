"""Makes the database's roles and gives each exactly what `ops.privileges` declares.

Owns: the roles' attributes and passwords, and every GRANT of the program. It runs after each
migration, as the owner, in one transaction: whoever is connected sees the old rights or the new
ones, never none.
Must never: send or log a password (the server gets its SCRAM verifier), or touch what the owner
does not own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.errors import DuplicateObject, InsufficientPrivilege
from sqlalchemy import Connection

from pokerarena.errors import ConfigurationError
from pokerarena.ops.privileges import FUNCTIONS, RELATIONS, SEQUENCES, DatabaseRole

NO_PASSWORDS: Final[Mapping[DatabaseRole, str]] = {}
_ATTRIBUTES: Final = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT"
_ROLES: Final = sql.SQL(", ").join([sql.Identifier(role.value) for role in DatabaseRole])
_OWNED_RELATIONS: Final = """
SELECT c.relname, c.relkind IN ('S') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
  AND pg_has_role(c.relowner, 'MEMBER')
"""
_OWNED_FUNCTIONS: Final = """
SELECT p.proname, p.oid::regprocedure::text
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'public' AND pg_has_role(p.proowner, 'MEMBER')
"""


def ensure(connection: Connection, passwords: Mapping[DatabaseRole, str] = NO_PASSWORDS) -> None:
    """Roles and privileges as declared, in one transaction of the owner's connection."""
    driver: Any = connection.connection.driver_connection
    with driver.transaction():
        for role in DatabaseRole:
            _ensure_role(driver, role)
            if password := passwords.get(role):
                _set_password(driver, role, password)
        _close(driver)
        _grant(driver)
    connection.commit()


def _ensure_role(driver: psycopg.Connection[Any], role: DatabaseRole) -> None:
    found = driver.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role.value,)).fetchone()
    if found is not None:
        return
    statement = sql.SQL("CREATE ROLE {} " + _ATTRIBUTES).format(sql.Identifier(role.value))
    try:
        # Another database of the same cluster may be at it: the roles are the cluster's.
        with driver.transaction():
            driver.execute(statement)
    except DuplicateObject:
        return
    except InsufficientPrivilege:
        raise ConfigurationError(
            f"the owner of the database may not create the role {role.value}: create "
            f"{' and '.join(DatabaseRole)} as a superuser (docs/security/database-roles.md says "
            "how), or give the owner CREATEROLE"
        ) from None


def _set_password(driver: psycopg.Connection[Any], role: DatabaseRole, password: str) -> None:
    verifier = driver.pgconn.encrypt_password(
        password.encode(), role.value.encode(), b"scram-sha-256"
    ).decode()
    driver.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(role.value), sql.Literal(verifier)
        )
    )


def _close(driver: psycopg.Connection[Any]) -> None:
    """Nobody but the owner may anything; also not with what later revisions will add."""
    database = sql.Identifier(driver.info.dbname)
    for statement in (
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC, {roles}",
        "REVOKE ALL ON SCHEMA public FROM {roles}",
        "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC, {roles}",
        "ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM PUBLIC, {roles}",
        "ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC, {roles}",
    ):
        driver.execute(sql.SQL(statement).format(database=database, roles=_ROLES))
    for name, is_sequence in driver.execute(_OWNED_RELATIONS).fetchall():
        kind = sql.SQL("SEQUENCE" if is_sequence else "TABLE")
        driver.execute(
            sql.SQL("REVOKE ALL ON {} public.{} FROM PUBLIC, {}").format(
                kind, sql.Identifier(name), _ROLES
            )
        )
    for _, signature in driver.execute(_OWNED_FUNCTIONS).fetchall():
        # The server quotes a signature itself.
        driver.execute(
            sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC, {}").format(sql.SQL(signature), _ROLES)
        )


def _grant(driver: psycopg.Connection[Any]) -> None:
    driver.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
            sql.Identifier(driver.info.dbname), _ROLES
        )
    )
    driver.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(_ROLES))
    owned = driver.execute(_OWNED_RELATIONS).fetchall()
    for name, is_sequence in owned:
        declared = (SEQUENCES if is_sequence else RELATIONS).get(name)
        if declared is None:
            continue
        kind = "SEQUENCE" if is_sequence else "TABLE"
        for role in DatabaseRole:
            if privileges := declared.of(role):
                driver.execute(
                    # The declaration is ours, and spelled as SQL.
                    sql.SQL(f"GRANT {', '.join(privileges)} ON {kind} public.{{}} TO {{}}").format(
                        sql.Identifier(name), sql.Identifier(role.value)
                    )
                )
    for name, signature in driver.execute(_OWNED_FUNCTIONS).fetchall():
        for role in sorted(FUNCTIONS.get(name, ())):
            driver.execute(
                sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(
                    sql.SQL(signature), sql.Identifier(role.value)
                )
            )
