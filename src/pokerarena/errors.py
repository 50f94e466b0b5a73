"""Domain errors with stable codes.

Each error carries what happened and, where the caller can do something about it, what to do.
This module must never know HTTP: the API maps `kind` to a status, the CLI to an exit code.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar


class ErrorKind(StrEnum):
    """What class of failure an error is; edges map it to their own codes."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    GONE = "gone"
    CONFLICT = "conflict"
    QUOTA = "quota"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"


class ArenaError(Exception):
    """An expected failure: a stable `code`, a sentence for people, and safe `context`.

    `context` goes to the caller as it is, so it must never hold a secret or a hidden card.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID

    def __init__(self, code: str, message: str, **context: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = context


class Invalid(ArenaError):
    """The request can never succeed as it is."""

    kind = ErrorKind.INVALID


class Unauthenticated(ArenaError):
    """No valid credentials were given."""

    kind = ErrorKind.UNAUTHENTICATED


class Forbidden(ArenaError):
    """The caller is known, may know that the thing exists, and may not do this."""

    kind = ErrorKind.FORBIDDEN


class NotFound(ArenaError):
    """The thing does not exist, or the caller may not know that it does."""

    kind = ErrorKind.NOT_FOUND

    def __init__(self, what: str) -> None:
        super().__init__("not_found", f"There is no such {what}, or it is not visible to you.")


class Gone(ArenaError):
    """The thing was here and is kept elsewhere now; the message says where."""

    kind = ErrorKind.GONE


class Conflict(ArenaError):
    """The request does not fit the present state of the thing."""

    kind = ErrorKind.CONFLICT


class QuotaExceeded(ArenaError):
    """A bound of the caller is reached."""

    kind = ErrorKind.QUOTA


class Throttled(ArenaError):
    """Tried too often; `retry_after_s` in the context says when to come again."""

    kind = ErrorKind.THROTTLED

    def __init__(self, code: str, message: str, *, retry_after_s: int) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)


class Unavailable(ArenaError):
    """A part that we depend on is not there now; trying again later may work."""

    kind = ErrorKind.UNAVAILABLE


class ConfigurationError(ArenaError):
    """The program cannot start as it is configured."""

    def __init__(self, message: str) -> None:
        super().__init__("configuration", message)
