"""An agent-host's side of egress: a socket for one sandbox, and the line to the proxy that serves it.

Owns the socket that is mounted into a sandbox, and handing it to the proxy together with the worker's
grant. The agent-host accepts nothing on it and reads nothing from it. When the proxy is lost, the line
is made again with the same socket: a sandbox keeps its way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Final

import structlog

from pokerarena.errors import Unavailable

log = structlog.get_logger(__name__)

_CONNECT_TIMEOUT_S: Final = 3.0
_AGAIN_S: Final = 0.5
_BACKLOG: Final = 16
_REPLY_MAX_BYTES: Final = 1024


class EgressLine:
    """One sandbox's way out, for as long as the sandbox lives."""

    def __init__(self, proxy: Path, grant: str) -> None:
        self._proxy = proxy
        self._grant = grant
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def open(self, path: Path, owner_id: int) -> None:
        """Make the socket, for this user alone, and have the proxy serve it.

        Raises `Unavailable` when the proxy is not there or refuses.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket, self._path = listener, path
        listener.bind(str(path))
        os.chown(path, owner_id, owner_id)
        path.chmod(0o600)  # noqa: ASYNC240 - it is there already
        listener.listen(_BACKLOG)
        reader = await self._connect()
        self._keeping = asyncio.get_running_loop().create_task(self._keep(reader))

    def renew(self, grant: str) -> None:
        """From now on this is what the sandbox may reach; nothing when it is empty."""
        self._grant = grant
        if self._writer is not None:
            self._writer.write(grant.encode() + b"\n")

    async def close(self) -> None:
        """Take the way out away; what went through it ends."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._hang_up()
        if self._socket is not None:
            self._socket.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _connect(self) -> asyncio.StreamReader:
        assert self._socket is not None, "there is a socket to hand over"
        loop = asyncio.get_running_loop()
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                line.setblocking(False)
                await loop.sock_connect(line, str(self._proxy))
                # One byte carries the descriptor; the grant follows as a stream.
                grant, fd = self._grant.encode() + b"\n", self._socket.fileno()
                socket.send_fds(line, [grant[:1]], [fd])
                reader, self._writer = await asyncio.open_unix_connection(
                    sock=line, limit=_REPLY_MAX_BYTES
                )
                self._writer.write(grant[1:])
                reply = await reader.readline()
        except (OSError, TimeoutError, ValueError) as error:
            line.close()
            self._hang_up()
            raise Unavailable(
                "egress_proxy_unreachable", f"The egress proxy is not there: {error}."
            ) from None
        if reply != b"ok\n":
            self._hang_up()
            why = reply.decode("utf-8", "replace").removeprefix("refused ").strip()
            raise Unavailable("egress_refused", f"The egress proxy refuses: {why or 'it hung up'}")
        return reader

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        """Listen to the proxy until it is lost, and then look for it again."""
        while True:
            with contextlib.suppress(OSError, ValueError):
                while reply := await reader.readline():
                    if reply != b"ok\n":
                        why = reply.decode("utf-8", "replace").strip()
                        log.warning("egress_renewal_refused", why=why)
            self._hang_up()
            log.warning("egress_proxy_lost", proxy=str(self._proxy))
            while self._writer is None:
                await asyncio.sleep(_AGAIN_S)
                with contextlib.suppress(Unavailable):
                    reader = await self._connect()

    def _hang_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.transport.abort()


class EgressLines:
    """The lines of one player's sandboxes, one after the other, and what the next begins with."""

    def __init__(self, proxy: Path, grant: str) -> None:
        self._proxy = proxy
        self._grant = grant
        self._present: EgressLine | None = None

    def line(self) -> EgressLine | None:
        """A line for a sandbox that is about to start; none where nothing is granted any more."""
        self._present = EgressLine(self._proxy, self._grant) if self._grant else None
        return self._present

    def renew(self, grant: str) -> None:
        self._grant = grant
        if self._present is not None:
            self._present.renew(grant)
