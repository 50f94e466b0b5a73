"""What counts as an outage of the database, and what does not."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout
from sqlalchemy import exc

from pokerarena.outage import Outage, outage


def wrapped(driver: Exception, *, invalidated: bool = False) -> exc.DBAPIError:
    return exc.DBAPIError("SELECT 1", None, driver, connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.OperationalError("connection refused"), Outage.AWAY),
        (psycopg.InterfaceError("the connection is closed"), Outage.AWAY),
        (errors.AdminShutdown(), Outage.AWAY),
        (errors.TooManyConnections(), Outage.AWAY),
        (errors.ReadOnlySqlTransaction(), Outage.READ_ONLY),
        (errors.DiskFull(), Outage.FULL),
        (errors.SerializationFailure(), Outage.CONTENTION),
        (errors.DeadlockDetected(), Outage.CONTENTION),
        (errors.LockNotAvailable(), Outage.CONTENTION),
        (errors.QueryCanceled(), Outage.CONTENTION),
        (PoolTimeout(), Outage.POOL),
        (errors.UniqueViolation(), None),
        (errors.CheckViolation(), None),
        (errors.NumericValueOutOfRange(), None),
        (errors.UndefinedTable(), None),
        (errors.InsufficientPrivilege(), None),
        (errors.DataCorrupted(), None),
    ],
)
def test_the_kind_of_trouble_is_told_from_the_drivers_error(
    error: Exception, expected: Outage | None
) -> None:
    assert outage(error) is expected
    if not isinstance(error, PoolTimeout):
        assert outage(wrapped(error)) is expected


def test_whatever_took_the_connection_along_is_an_outage() -> None:
    assert outage(wrapped(errors.InternalError_(), invalidated=True)) is Outage.AWAY


def test_a_pool_that_gives_nothing_in_time_is_one() -> None:
    assert outage(exc.TimeoutError()) is Outage.POOL


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError()])
def test_the_networks_own_errors_are_one(error: Exception) -> None:
    assert outage(error) is Outage.AWAY


def test_a_defect_is_none() -> None:
    assert outage(ValueError("five")) is None
