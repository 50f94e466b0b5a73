"""What workers and agent-hosts say to each other: frames of MessagePack with a length before each.

Owns the frames and their bounds. Callbacks and answers travel as the JSON that the agent reads and
wrote; neither side decodes them twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

WIRE_VERSION: Final = 2
MAX_FRAME_BYTES: Final = 96 * 1024 * 1024
MAX_FIRST_FRAME_BYTES: Final = 8 * 1024
_LENGTH_BYTES: Final = 4


class BrokenWire(Exception):
    """The other side said something that it may not say."""


class Frame(Struct, array_like=True, tag=True, frozen=True, gc=False):
    """The common part of all frames."""


# From a worker.


class Hello(Frame, tag=1, frozen=True):
    """The first frame of a connection, and the renewal of its token."""

    version: int
    token: str


class OpenPlayer(Frame, tag=2, frozen=True):
    """Start an agent, within a booking, of which the host has, or will be sent, the package."""

    player: int
    booking: int
    digest: str
    limits: dict[str, float]
    run_start: bytes | None
    egress: str = ""


class Package(Frame, tag=3, frozen=True):
    """The package that `Missing` asked for, as an uncompressed tar."""

    player: int
    data: bytes


class Ask(Frame, tag=4, frozen=True):
    player: int
    decision_id: str
    line: bytes
    deadline_ms: int


class Forget(Frame, tag=5, frozen=True):
    """A decision is no longer waited for."""

    player: int
    decision_id: str


class Tell(Frame, tag=6, frozen=True):
    player: int
    line: bytes
    last: bool


class ClosePlayer(Frame, tag=7, frozen=True):
    player: int


class Lease(Frame, tag=8, frozen=True):
    """Start one sandbox, within a booking, and hand its pipes over to a worker on this machine."""

    player: int
    booking: int
    digest: str
    limits: dict[str, float]
    egress: str = ""


class Kill(Frame, tag=9, frozen=True):
    """End a leased sandbox at once."""

    player: int


class Book(Frame, tag=10, frozen=True):
    """Ask for room for all agents of a run; an urgent one goes before those that have not begun."""

    booking: int
    agents: int
    memory_bytes: int
    runtime: str
    urgent: bool


class Unbook(Frame, tag=11, frozen=True):
    """Give room back, or wait for it no longer; agents that are left in it are closed."""

    booking: int


class RenewEgress(Frame, tag=12, frozen=True):
    """What a player or a lease may reach from now on: a signed grant, or nothing when empty."""

    player: int
    egress: str


# From an agent-host.


class Welcome(Frame, tag=16, frozen=True):
    """The answer to the first `Hello`, with the host's own token, which answers the worker's."""

    room: int
    name: str
    runtimes: list[str]
    token: str


class Missing(Frame, tag=17, frozen=True):
    player: int


class Opened(Frame, tag=18, frozen=True):
    player: int
    room: int


class Refused(Frame, tag=19, frozen=True):
    """A player could not be opened, or the connection is refused (player 0)."""

    player: int
    code: str
    message: str


class Answered(Frame, tag=20, frozen=True):
    player: int
    decision_id: str
    line: bytes


class Failed(Frame, tag=21, frozen=True):
    player: int
    decision_id: str
    reason: int
    detail: str


class Closed(Frame, tag=22, frozen=True):
    """A player is gone, with what it used."""

    player: int
    room: int
    starts: int
    cpu_ns: int
    max_turn_cpu_ns: int
    memory_peak_bytes: int
    stray_lines: int
    stderr: str
    ends: list[tuple[int, str]]


class Leased(Frame, tag=23, frozen=True):
    """A sandbox runs and is ready. `ticket` is good for one collection of its descriptors."""

    player: int
    room: int
    ticket: bytes
    cgroup_version: int


class Ended(Frame, tag=24, frozen=True):
    """A leased sandbox is over, or never became ready; the reason is its own."""

    player: int
    reason: int
    detail: str


class Booked(Frame, tag=25, frozen=True):
    """The room is there, all of it, until it is given back."""

    booking: int
    room: int


class Queued(Frame, tag=26, frozen=True):
    """The room is not there yet; `Booked` follows. `ahead` others come first."""

    booking: int
    ahead: int


class NotBooked(Frame, tag=27, frozen=True):
    """There will be no such room here."""

    booking: int
    code: str
    message: str


FromWorker = (
    Hello
    | OpenPlayer
    | Package
    | Ask
    | Forget
    | Tell
    | ClosePlayer
    | Lease
    | Kill
    | Book
    | Unbook
    | RenewEgress
)
FromHost = (
    Welcome | Missing | Opened | Refused | Answered | Failed | Closed | Leased | Ended
    | Booked | Queued | NotBooked
)  # fmt: skip

decode_from_worker: Final = msgspec.msgpack.Decoder(FromWorker).decode
decode_from_host: Final = msgspec.msgpack.Decoder(FromHost).decode
_encode: Final = msgspec.msgpack.Encoder().encode

T = TypeVar("T")


class Wire(asyncio.Protocol):
    """One end of a connection. Frames of one turn of the loop leave in one write."""

    def __init__(
        self,
        decode: Callable[[bytes], Any],
        on_frame: Callable[[Any], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._decode = decode
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.max_frame_bytes = MAX_FIRST_FRAME_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[at : at + _LENGTH_BYTES], "big")
            if length > self.max_frame_bytes:
                self.break_off()
                return
            end = at + _LENGTH_BYTES + length
            if len(buffer) < end:
                break
            frame = bytes(buffer[at + _LENGTH_BYTES : end])
            at = end
            try:
                self._on_frame(self._decode(frame))
            except (msgspec.MsgspecError, BrokenWire):
                self.break_off()
                return
            if self._transport is None:
                return
        del buffer[:at]

    def send(self, frame: Frame) -> None:
        data = _encode(frame)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(len(data).to_bytes(_LENGTH_BYTES, "big"))
        self._out.append(data)

    def close(self) -> None:
        """Close after what was sent has left."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def break_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()
