"""What every test may ask for: a database of its own on a real PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from tests.database_server import TEMPLATE, DatabaseServer, ask_controller

SERVER = pytest.StashKey[DatabaseServer]()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[SERVER] = DatabaseServer()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Called in the controlling process for each xdist worker."""
    server = node.config.stash[SERVER]
    if not hasattr(server, "ask_path"):
        server.ask_path = server.listen()
    node.workerinput["database_server"] = str(server.ask_path)


def pytest_unconfigure(config: pytest.Config) -> None:
    server = config.stash.get(SERVER, None)
    if server is not None:
        server.close()


class Databases:
    """Makes and drops databases on the session's server."""

    def __init__(self, socket_dir: str, worker: str) -> None:
        self._socket_dir = socket_dir
        self._names = (f"test_{worker}_{number}" for number in itertools.count(1))
        self._admin = psycopg.connect(
            host=socket_dir, user="postgres", dbname="postgres", autocommit=True
        )

    def create(self, template: str = TEMPLATE) -> str:
        """A new database's name."""
        name = next(self._names)
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return name

    def drop(self, name: str) -> None:
        self._admin.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def url(self, name: str) -> str:
        """The address as SQLAlchemy wants it."""
        return f"postgresql+psycopg://postgres@/{name}?host={quote(self._socket_dir, safe='')}"

    def close(self) -> None:
        self._admin.close()


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    workerinput = getattr(request.config, "workerinput", None)
    if workerinput is None:
        socket_dir = request.config.stash[SERVER].conninfo()
        worker = "main"
    else:
        socket_dir = ask_controller(workerinput["database_server"])
        worker = workerinput["workerid"]
    databases = Databases(socket_dir, worker)
    yield databases
    databases.close()


@pytest.fixture
def new_database(databases: Databases) -> Iterator[Callable[[str], str]]:
    """Makes databases from a template (``template1`` is an empty one); gives their URLs."""
    names: list[str] = []

    def make(template: str = TEMPLATE) -> str:
        name = databases.create(template)
        names.append(name)
        return databases.url(name)

    yield make
    for name in names:
        databases.drop(name)


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    """The URL of a migrated, empty database that only this test uses."""
    return new_database()


@pytest.fixture
def empty_database_url(new_database: Callable[[str], str]) -> str:
    """The URL of a database without any schema."""
    return new_database("template1")
