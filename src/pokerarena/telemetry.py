"""Logs and correlation ids.

One event name per fact, fields by keyword. Ids that are bound here (`request_id`, `table_id`,
`run_id`, `hand_id`, …) go into every line logged below. Secrets and hidden cards are never logged;
the last processor blanks fields whose name says that they are secret, as a second line of defence.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, cast

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars
from structlog.typing import FilteringBoundLogger

__all__ = [
    "bind_contextvars",
    "bound_contextvars",
    "clear_contextvars",
    "configure_logging",
    "get_logger",
]

SECRET_FIELD_PARTS = ("password", "secret", "token", "authorization", "cookie", "seed", "pepper")
_SAFE_FIELDS = frozenset({"token_id"})


def _blank_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name in event:
        if name not in _SAFE_FIELDS and any(part in name for part in SECRET_FIELD_PARTS):
            event[name] = "[redacted]"
    return event


def configure_logging(level: str, log_format: str, *, role: str) -> None:
    """Send structured logs to stderr: JSON, or readable lines on a terminal.

    `log_format` is ``json``, ``console`` or ``auto`` (console when stderr is a terminal).
    """
    readable = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Callable[..., Any]] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _blank_secrets,
    ]
    renderers: list[Callable[..., Any]] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # The prettier tracebacks print local variables: passwords, tokens, hidden cards.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Third-party libraries speak only when something is wrong; our own events tell the rest.
    root.setLevel(max(getattr(logging, level), logging.WARNING))
    clear_contextvars()
    bind_contextvars(role=role)


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of one room."""
    return cast("FilteringBoundLogger", structlog.get_logger(room=name))
