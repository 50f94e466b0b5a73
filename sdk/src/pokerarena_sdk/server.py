"""The same agent as an HTTP server.

Owns the HTTP side: POST a callback, or an array of them, get the answers. With a signing secret it
answers nobody but the arena. Meant for one agent behind a reverse proxy, not for a crowd.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pokerarena_sdk.hosted import decide
from pokerarena_sdk.signing import NotFromTheArena, secret_key, verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pokerarena_sdk.view import View

SECRET_VARIABLE = "POKERARENA_SIGNING_SECRET"  # noqa: S105 - a name, not a secret  # pragma: allowlist secret
MAX_BODY_BYTES = 1 << 20
IDLE_TIMEOUT_S = 120


def server(  # noqa: C901 - the handler is read with the function it closes over
    act: Callable[[View], Any],
    address: str,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    secret: str | None = None,
    clock: Callable[[], float] = time.time,
) -> ThreadingHTTPServer:
    """A server bound to `HOST:PORT`, ready for `serve_forever`."""
    host, _, port = address.rpartition(":")
    key = secret_key(secret) if secret else None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "pokerarena-agent"
        sys_version = ""
        timeout = IDLE_TIMEOUT_S
        # One write a response: with Nagle's algorithm two would cost 40 ms a callback.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = self.headers.get("content-length") or ""
            if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY_BYTES:
                self._reply(413, {"error": f"send at most {MAX_BODY_BYTES} bytes, with a length"})
                self.close_connection = True
                return
            body = self.rfile.read(int(length))
            if key is not None:
                try:
                    verify(key, self.headers, body, clock())
                except NotFromTheArena as error:
                    self._reply(401, {"error": str(error)})
                    return
            try:
                message = json.loads(body)
            except (ValueError, RecursionError):
                self._reply(400, {"error": "the body is not JSON"})
                return
            if isinstance(message, list):
                self._reply(200, [self._one(each) for each in message])
            else:
                self._reply(200, self._one(message))

        def _one(self, message: Any) -> dict[str, Any]:
            if not isinstance(message, dict):
                return {"error": "a callback is a JSON object"}
            if message.get("type", "callback") == "callback":
                return decide(act, message)
            if on_event is not None:
                on_event(message)
            return {}

        def _reply(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Silent: a line a callback would drown what the agent itself prints."""

    bound = ThreadingHTTPServer((host or "127.0.0.1", int(port)), Handler)
    bound.daemon_threads = True
    return bound


def serve(
    act: Callable[[View], Any],
    address: str,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Serve until interrupted."""
    secret = os.environ.get(SECRET_VARIABLE)
    try:
        bound = server(act, address, on_event, secret)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot serve on {address}: {error}; give HOST:PORT of a free port")
    if not secret:
        print(f"{SECRET_VARIABLE} is not set: answering anybody", file=sys.stderr)
    print(f"serving on http://{address.rpartition(':')[0]}:{bound.server_port}", file=sys.stderr)
    try:
        bound.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        bound.server_close()
