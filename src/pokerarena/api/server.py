"""`pokerarena api`: the application behind a real socket.

Owns the bounds of connections and the end. On SIGTERM live streams are told to end, `/readyz` says
that the process leaves and every answer closes its connection, so that balancers and clients go
elsewhere; after `api_drain_s` no request is accepted any more, and what is under way has a few
seconds. A second signal skips the wait.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

import uvicorn

from pokerarena.api.app import create_app
from pokerarena.api.connections import Impatient, Silence, room_for
from pokerarena.api.context import Parts
from pokerarena.errors import ConfigurationError
from pokerarena.settings import Settings
from pokerarena.telemetry import configure_logging, get_logger
from pokerarena.tracing import configure_tracing

BACKLOG = 1024
KEEP_ALIVE_S = 30
HEADERS_MAX_BYTES = 32 * 1024
# Within the ten seconds that a supervisor grants.
SHUTDOWN_S = 8

log = get_logger("api.server")


class _Server(uvicorn.Server):
    """Leaves before it ends; live streams go first, which would use up all the time of an end."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts
        self._asked = False
        self._ends_at_s = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the leaving, which the next tick carries out."""
        if self._asked:
            super().handle_exit(sig, frame)
        self._asked = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to end."""
        if self._asked:
            now_s = time.monotonic()
            if not self._parts.leaving.is_set():
                drain_s = self._parts.settings.api_drain_s
                log.info("api_leaving", within_s=drain_s)
                self._parts.leaving.set()
                self._parts.hub.end_streams()
                self._ends_at_s = now_s + drain_s
            if now_s >= self._ends_at_s:
                return True
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT, and do not die of them again once all is done.

        The library raises them anew at the end, so that a clean stop would look like a kill.
        """
        handled = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._parts.hub.end_streams()
        await super().shutdown(sockets)


def run_api(
    settings: Settings, host: str, port: int, *, on_listening: Callable[[str], None] | None = None
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    `on_listening` gets the address, with the port that the system chose for port 0.
    """
    configure_logging(settings.log_level, settings.log_format, role="api")
    configure_tracing(settings, role="api")
    app = create_app(settings)
    silence = Silence(
        settings.api_headers_timeout_s,
        settings.api_send_timeout_s,
        room_for(settings.api_connections_max),
    )
    listener = _listen(host, port)
    with listener:
        address = _address(listener)
        log.info("api_listening", address=address)
        if on_listening is not None:
            on_listening(address)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=partial(Impatient, silence),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
            h11_max_incomplete_event_size=HEADERS_MAX_BYTES,
        )
        server = _Server(config, app.state.parts)
        server.run(sockets=[listener])
    log.info("api_stopped")
    return 0 if server.started else 1


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"the API cannot listen on {host}:{port} ({reason}); choose another "
            "POKERARENA_API_HOST or POKERARENA_API_PORT"
        ) from None


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
