"""Errors as RFC 9457 problems: one shape for every one, with a stable code and the request's id.

It must never put into a problem what the caller sent as a value (it may be a password), nor
anything of our inside (SQL, paths, traces).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from pokerarena.api.addresses import client_address
from pokerarena.api.bodies import BodyRefused
from pokerarena.api.context import Parts
from pokerarena.auth import audit
from pokerarena.errors import ArenaError, ConfigurationError, ErrorKind
from pokerarena.ids import is_id_text
from pokerarena.outage import Outage, outage
from pokerarena.telemetry import get_logger

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:pokerarena:problem:"
RETRY_AFTER_S = 2
ERRORS_MAX = 20
FIELD_TEXT_MAX = 100

STATUS_OF_KIND = {
    ErrorKind.INVALID: 422,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.GONE: 410,
    ErrorKind.CONFLICT: 409,
    ErrorKind.QUOTA: 409,
    ErrorKind.THROTTLED: 429,
    ErrorKind.UNAVAILABLE: 503,
}

_OUTAGES = {
    Outage.AWAY: ("database_unavailable", "The database does not answer now; nothing was changed."),
    Outage.READ_ONLY: (
        "database_read_only",
        "The database takes no changes now; nothing was changed.",
    ),
    Outage.FULL: ("database_full", "The database has no room on its disk; nothing was changed."),
    Outage.CONTENTION: (
        "database_contention",
        "The database could not finish this in time; nothing was changed.",
    ),
    Outage.POOL: ("database_busy", "All database connections are in use."),
}

_HTTP_CODES = {
    400: ("malformed_body", "The body cannot be read; send one JSON document in UTF-8."),
    404: ("route_not_found", "There is nothing at this path; /openapi.json lists what there is."),
    405: ("method_not_allowed", "This path does not take this method; see the Allow header."),
    408: ("body_timeout", "The body did not arrive in time; send it at once."),
    413: ("body_too_large", "The body is larger than this server takes."),
}

log = get_logger("api")
_encode = msgspec.json.Encoder().encode


def problem_bytes(
    status: int, code: str, detail: str, request_id: str, extra: Mapping[str, Any] | None = None
) -> bytes:
    """The problem document. Extra members never replace the standard ones."""
    return _encode(
        {
            **(extra or {}),
            "type": TYPE_PREFIX + code,
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "code": code,
            "request_id": request_id,
        }
    )


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response that tells a problem."""
    sent = dict(headers or {})
    if status == 401:
        sent.setdefault("WWW-Authenticate", 'Bearer realm="pokerarena"')
    if status == 503:
        sent.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Response(
        problem_bytes(status, code, detail, request.state.request_id, extra),
        status,
        sent,
        MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(ArenaError, _arena_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    for kind in (DBAPIError, PoolTimeout, psycopg.Error):
        app.add_exception_handler(kind, _database_error)


async def _arena_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ArenaError) or isinstance(error, ConfigurationError):
        # How the program is configured is the operator's business, told in the log.
        raise error
    status = STATUS_OF_KIND[error.kind]
    await _note_refusal(request, error)
    if error.kind in (ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN):
        log.info("access_refused", code=error.code, status=status)
    headers = None
    if error.kind is ErrorKind.THROTTLED:
        headers = {"Retry-After": str(error.context["retry_after_s"])}
    return problem(request, status, error.code, error.message, extra=error.context, headers=headers)


def route_template(scope: Scope) -> str:
    """The path with its parameters' names, so that ids do not make each log line its own kind."""
    if "route" not in scope:
        return "unmatched"
    names = {str(value): name for name, value in scope.get("path_params", {}).items()}
    return "/".join(
        f"{{{names[part]}}}" if part in names else part for part in scope["path"].split("/")
    )


async def _note_refusal(request: Request, error: ArenaError) -> None:
    parts: Parts = request.app.state.parts
    await parts.refusals.note(
        error,
        audit.actor(),
        address=client_address(request, parts.settings),
        route=f"{request.method} {route_template(request.scope)}",
        subject=next(
            (text for text in request.path_params.values() if is_id_text(str(text))), None
        ),
    )


async def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    if any(one["loc"][:1] == ("path",) for one in found):
        return problem(request, 404, "not_found", f"Nothing is at this path. {found[0]['msg']}")
    for one in found:
        if one["type"] == "json_invalid":
            return problem(
                request,
                400,
                "malformed_json",
                f"The body is not JSON: {one['ctx']['error']} at character {one['loc'][-1]}.",
            )
    return problem(
        request,
        422,
        "invalid_request",
        "Correct what 'errors' names and send the request again.",
        extra={"errors": [_field_error(one) for one in found[:ERRORS_MAX]]},
    )


def _field_error(error: Mapping[str, Any]) -> dict[str, str]:
    loc: Sequence[Any] = error["loc"]
    field = ".".join(str(part) for part in loc[1:])[:FIELD_TEXT_MAX]
    return {
        "in": str(loc[0]),
        # A field's name may be anything that JSON can say, halves of characters included.
        "field": field.encode("ascii", "backslashreplace").decode(),
        "code": error["type"],
        "message": error["msg"].removeprefix("Value error, "),
    }


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if isinstance(error, BodyRefused):
        return problem(request, error.status_code, error.code, error.detail, headers=error.headers)
    fallback = ("http_error", HTTPStatus(error.status_code).phrase)
    code, detail = _HTTP_CODES.get(error.status_code, fallback)
    return problem(request, error.status_code, code, detail, headers=error.headers)


async def _database_error(request: Request, error: Exception) -> Response:
    driver = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(error, PoolTimeout):
        log.warning("database_pool_exhausted")
    else:
        sqlstate = getattr(driver, "sqlstate", None)
        log.warning("database_error", kind=type(driver).__name__, sqlstate=sqlstate)
    trouble = outage(error)
    if trouble is not None:
        code, detail = _OUTAGES[trouble]
        return problem(request, 503, code, f"{detail} Try again shortly.")
    if isinstance(driver, psycopg.IntegrityError):
        return problem(
            request,
            409,
            "conflict",
            "Another request changed the same thing at the same time; read it and try again.",
        )
    if isinstance(driver, psycopg.DataError):
        return problem(
            request, 422, "value_refused", "The database cannot store one of the values sent."
        )
    raise error
