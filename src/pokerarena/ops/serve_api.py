"""Serves the API's application over HTTP until a signal.

Owns: the server's own bounds and how it stops. Must never: trust a forwarded address, write an
access log of its own (the application logs each request with its ids), or name its software.
"""

from __future__ import annotations

import socket
from typing import Final

import uvicorn

from pokerarena.api.app import create_app
from pokerarena.errors import ConfigurationError
from pokerarena.settings import Settings
from pokerarena.telemetry import configure_logging, get_logger

BACKLOG: Final = 2048
KEEP_ALIVE_S: Final = 30
# Live streams never end by themselves: after this long they are cut off, and clients reconnect.
STOP_PATIENCE_S: Final = 5

log = get_logger("api")


def serve(settings: Settings) -> None:
    """Blocks until SIGINT or SIGTERM."""
    configure_logging(settings.log_level, settings.log_format, role="api")
    listener = _listen(settings.api_host, settings.api_port)
    app = create_app(settings)
    log.info("api_serves", host=settings.api_host, port=listener.getsockname()[1])
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_PATIENCE_S,
            ws="none",
            loop="uvloop",
            lifespan="on",
        )
    )
    server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """The socket, bound here so that a port in use is a sentence and not a traceback."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"POKERARENA_API_HOST and POKERARENA_API_PORT: cannot listen on {host} port {port} "
            f"({error.strerror}): choose another port, or stop what uses this one."
        ) from None
    return listener
