"""Reading an HTTP/1.1 response from somebody who may be hostile.

Owns the bytes of one response: fed piece by piece, bounded at every step, and strict where readers
are known to disagree (line ends, lengths, folding), because whoever wrote them may hope for just
that. It performs no I/O and keeps no time.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

MAX_HEAD_BYTES: Final = 16_384
_MAX_INTERIM_RESPONSES: Final = 4
_MAX_CHUNK_LINE_BYTES: Final = 256
_MAX_TRAILER_BYTES: Final = 4_096
_MAX_LENGTH_DIGITS: Final = 12

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n\0]*)?")
_OK: Final = 200
_READ_FIELDS: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"content-encoding", b"connection"}
)


class MalformedResponse(Exception):
    """Bytes that are not an HTTP/1.1 response, or one that we did not ask for; says what."""


class OversizedResponse(Exception):
    """A response beyond its bounds; the message says which."""


class _State(Enum):
    HEAD = auto()
    LENGTH = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()


class ResponseReader:
    """One response. Feed it until it says that it is complete, or raises.

    `status` is known once the head is read. The body of a response other than 200 is of no use to
    us: such a response is complete with its head, and its connection is not used again.
    """

    __slots__ = (
        "_body",
        "_interim",
        "_left",
        "_max_body_bytes",
        "_pending",
        "_size",
        "_state",
        "reusable",
        "status",
        "touched",
    )

    def __init__(self, max_body_bytes: int) -> None:
        self.status = 0
        self.touched = False
        """Whether any byte has arrived."""
        self.reusable = True
        """Whether the connection may carry another request after this response."""
        self._max_body_bytes = max_body_bytes
        self._pending = b""
        self._body: list[bytes] = []
        self._size = 0
        self._left = 0
        self._interim = 0
        self._state = _State.HEAD

    @property
    def body(self) -> bytes:
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; True once the response is complete."""
        self.touched = True
        if self._pending:
            data = self._pending + data
            self._pending = b""
        while data and self._state is not _State.DONE:
            rest = self._advance(data)
            if rest is None:
                return False
            data = rest
        if self._state is _State.DONE:
            if data:
                # Nobody asked for more than one response.
                self.reusable = False
            return True
        return False

    def end(self) -> bool:
        """The connection was closed; True if the response is complete all the same."""
        self.reusable = False
        if self._state is _State.UNTIL_CLOSE:
            self._state = _State.DONE
        return self._state is _State.DONE

    def _advance(self, data: bytes) -> bytes | None:
        match self._state:
            case _State.HEAD:
                return self._head(data)
            case _State.LENGTH:
                return self._take(data, _State.DONE)
            case _State.CHUNK_LINE:
                return self._chunk_line(data)
            case _State.CHUNK:
                return self._take(data, _State.CHUNK_END)
            case _State.CHUNK_END:
                return self._chunk_end(data)
            case _State.TRAILER:
                return self._trailer(data)
            case _:
                return self._until_close(data)

    # Each step takes what it can and returns the rest, or None when it needs more first.

    def _head(self, data: bytes) -> bytes | None:
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD_BYTES:
            if len(data) > MAX_HEAD_BYTES:
                raise OversizedResponse(
                    f"the headers of the answer are larger than {MAX_HEAD_BYTES} bytes"
                )
            if not b"HTTP/1."[: len(data)] == data[:7]:
                raise MalformedResponse("the answer is not HTTP/1.1")
            self._pending = data
            return None
        self._read_head(data[:end])
        return data[end + 4 :]

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(first)
        if status_line is None:
            raise MalformedResponse("the answer is not HTTP/1.1: its first line is no status line")
        status = int(status_line[2])
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > _MAX_INTERIM_RESPONSES:
                raise MalformedResponse(f"status {status} is not an answer")
            return
        self.status = status
        fields: dict[bytes, bytes] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise MalformedResponse("the answer is not HTTP/1.1: a header line is malformed")
            name = field[1].lower()
            if name in _READ_FIELDS:
                fields[name] = fields.get(name, b"") + b"," + field[2].lower()
        if b"close" in fields.get(b"connection", b"") or status_line[1] == b"0":
            self.reusable = False
        if status != _OK:
            self.reusable = False
            self._state = _State.DONE
            return
        if fields.get(b"content-encoding", b"") not in (b"", b",identity"):
            raise MalformedResponse(
                "the answer is compressed; the arena asked for accept-encoding: identity"
            )
        self._frame(fields.get(b"content-length", b""), fields.get(b"transfer-encoding", b""))

    def _frame(self, lengths: bytes, codings: bytes) -> None:
        if codings:
            if codings != b",chunked" or lengths:
                raise MalformedResponse("the length of the answer is ambiguous")
            self._state = _State.CHUNK_LINE
        elif lengths:
            told = {length.strip() for length in lengths[1:].split(b",")}
            length = told.pop()
            if told or not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
                raise MalformedResponse("the content-length of the answer is not one number")
            self._left = int(length)
            self._grow(self._left)
            self._state = _State.LENGTH if self._left else _State.DONE
        else:
            self.reusable = False
            self._state = _State.UNTIL_CLOSE

    def _grow(self, by: int) -> None:
        self._size += by
        if self._size > self._max_body_bytes:
            raise OversizedResponse(f"the answer is larger than {self._max_body_bytes} bytes")

    def _take(self, data: bytes, then: _State) -> bytes:
        taken, rest = data[: self._left], data[self._left :]
        self._body.append(taken)
        self._left -= len(taken)
        if not self._left:
            self._state = then
        return rest

    def _chunk_line(self, data: bytes) -> bytes | None:
        end = data.find(b"\r\n", 0, _MAX_CHUNK_LINE_BYTES + 2)
        if end < 0:
            if len(data) > _MAX_CHUNK_LINE_BYTES:
                raise MalformedResponse("a chunk of the answer has no size")
            self._pending = data
            return None
        line = _CHUNK_LINE.fullmatch(data[:end])
        if line is None:
            raise MalformedResponse("a chunk of the answer has no size")
        self._left = int(line[1], 16)
        self._grow(self._left)
        self._state = _State.CHUNK if self._left else _State.TRAILER
        return data[end + 2 :]

    def _chunk_end(self, data: bytes) -> bytes | None:
        if len(data) < 2:
            self._pending = data
            return None
        if data[:2] != b"\r\n":
            raise MalformedResponse("a chunk of the answer is longer than it said")
        self._state = _State.CHUNK_LINE
        return data[2:]

    def _trailer(self, data: bytes) -> bytes | None:
        if data.startswith(b"\r\n"):
            self._state = _State.DONE
            return data[2:]
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > _MAX_TRAILER_BYTES:
                raise OversizedResponse("the trailers of the answer are too large")
            self._pending = data
            return None
        self._state = _State.DONE
        return data[end + 4 :]

    def _until_close(self, data: bytes) -> bytes:
        self._grow(len(data))
        self._body.append(data)
        return b""
