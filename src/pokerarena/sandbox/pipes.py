"""The three pipes of a sandbox: lines in, lines out, and its stderr kept short.

Owns every bound on what an agent may print and on what may wait for it. It never blocks the event
loop, and a line longer than allowed is reported once and skipped, never stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
from collections.abc import Callable
from typing import Final, Protocol

from pokerarena.sandbox.limits import SandboxLimits

_READ_BYTES: Final = 1 << 16
_PIPE_BYTES: Final = 1 << 18


class Listener(Protocol):
    """Who is told what came out of the sandbox, and when it is over."""

    def line(self, data: bytes) -> None: ...

    def line_too_long(self, size_bytes: int) -> None: ...

    def output_flood(self) -> None: ...

    def output_closed(self) -> None: ...

    def ended(self) -> None: ...


class EndListener:
    """A leased sandbox's output goes elsewhere; only its end is the host's business."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.ended = on_end

    def line(self, data: bytes) -> None:
        """Never called: the host does not read a leased stdout."""

    def line_too_long(self, size_bytes: int) -> None:
        """Never called."""

    def output_flood(self) -> None:
        """Never called."""

    def output_closed(self) -> None:
        """Never called."""


class AgentPipes:
    """Our ends of the pipes. `inner` are the agent's, closed by us once it has been started."""

    def __init__(
        self, limits: SandboxLimits, listener: Listener, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._limits = limits
        self._listener = listener
        self._loop = loop
        in_read, self._in = os.pipe2(os.O_CLOEXEC)
        self._out, out_write = os.pipe2(os.O_CLOEXEC)
        self._err, err_write = os.pipe2(os.O_CLOEXEC)
        self.inner: tuple[int, ...] = (in_read, out_write, err_write)
        for fd in (self._in, self._out):
            # Many callbacks in flight fit without a second system call.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._begin()

    @classmethod
    def adopt(
        cls, limits: SandboxLimits, listener: Listener, loop: asyncio.AbstractEventLoop,
        in_fd: int, out_fd: int,
    ) -> AgentPipes:  # fmt: skip
        """Pipes that another process of ours made, and whose stderr it keeps."""
        self = cls.__new__(cls)
        self._limits, self._listener, self._loop = limits, listener, loop
        self._in, self._out, self._err = in_fd, out_fd, -1
        self.inner = ()
        self._begin()
        return self

    def _begin(self) -> None:
        for fd in (self._in, self._out, self._err):
            if fd >= 0:
                os.set_blocking(fd, False)
        self._waiting = bytearray()
        self._writing = False
        self._partial = bytearray()
        self._skipping = False
        self._stray_bytes = 0
        self._stderr = bytearray()
        self._stderr_bytes = 0
        self._stderr_pause: asyncio.TimerHandle | None = None
        self.stderr_total_bytes = 0
        self._open = True
        poller = select.poll()
        poller.register(self._out, select.POLLIN)
        self._poll = poller.poll

    def start(self) -> None:
        """The agent has its ends: begin to read."""
        self.close_inner()
        self._loop.add_reader(self._out, self._on_output)
        if self._err >= 0:
            self._loop.add_reader(self._err, self._on_stderr)

    def hand_over(self) -> tuple[int, int]:
        """Stop reading stdout; the ends of stdin and stdout, for another process of ours."""
        self._loop.remove_reader(self._out)
        return self._in, self._out

    def close_inner(self) -> None:
        for fd in self.inner:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.inner = ()

    def send(self, data: bytes, *, at_once: bool = False) -> bool:
        """Send, or queue; false when the agent does not read and too much waits already.

        `at_once` is for a callback that is alone: the others of a turn of the loop share a write.
        """
        if not self._open:
            return False
        if len(self._waiting) + len(data) > self._limits.input_waiting_max_bytes:
            return False
        if self._waiting:
            self._waiting += data
        elif at_once and not self._writing:
            sent = self._write(data)
            if sent < len(data):
                self._waiting += data[sent:]
                self._writing = True
                self._loop.add_writer(self._in, self._on_writable)
        else:
            self._loop.call_soon(self._flush)
            self._waiting += data
        return True

    def wait_briefly(self, most_ms: int) -> None:
        """Take what the agent says within this time, blocking; for a loop with nothing else to do."""
        if self._open and self._poll(most_ms):
            self._on_output()

    def turn_begins(self) -> None:
        """A fresh allowance for output that answers nothing."""
        self._stray_bytes = 0

    def stray(self, size_bytes: int) -> bool:
        """Count output that answers nothing; true when it is too much."""
        self._stray_bytes += size_bytes
        return self._stray_bytes > self._limits.stray_output_max_bytes

    def stderr_text(self) -> str:
        """The end of what the agent wrote to stderr."""
        return self._stderr.decode("utf-8", "replace")

    def drain(self) -> None:
        """Read what is left after the agent has ended."""
        if self._open and self._err >= 0:
            self._on_stderr()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._out)
        if self._stderr_pause is not None:
            self._stderr_pause.cancel()
        if self._writing:
            self._loop.remove_writer(self._in)
        if self._err >= 0:
            self._loop.remove_reader(self._err)
            os.close(self._err)
        os.close(self._in)
        os.close(self._out)
        if self.inner:
            self.close_inner()

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._in, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EPIPE:
                # The end of the process is reported by its own means; these bytes are lost with it.
                return len(data)
            raise

    def _flush(self) -> None:
        if not self._open or self._writing or not self._waiting:
            return
        del self._waiting[: self._write(bytes(self._waiting))]
        if self._waiting:
            self._writing = True
            self._loop.add_writer(self._in, self._on_writable)

    def _on_writable(self) -> None:
        del self._waiting[: self._write(bytes(self._waiting))]
        if not self._waiting:
            self._writing = False
            self._loop.remove_writer(self._in)

    def _on_output(self) -> None:
        try:
            data = os.read(self._out, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._out)
            self._listener.output_closed()
            return
        if not self._partial and not self._skipping and data.find(b"\n") == len(data) - 1:
            # The usual case: exactly one line.
            self._line(data[:-1])
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            if not self._open:
                return
            if self._skipping:
                self._skipping = False
            elif self._partial:
                self._partial += line
                whole = bytes(self._partial)
                self._partial.clear()
                self._line(whole)
            else:
                self._line(line)
        self._keep(rest)

    def _line(self, line: bytes) -> None:
        if len(line) > self._limits.answer_max_bytes:
            self._listener.line_too_long(len(line))
        elif line:
            self._listener.line(line)

    def _keep(self, rest: bytes) -> None:
        if self._skipping:
            if self.stray(len(rest)) and self._open:
                self._listener.output_flood()
            return
        self._partial += rest
        if len(self._partial) > self._limits.answer_max_bytes and self._open:
            size = len(self._partial)
            self._partial.clear()
            self._skipping = True
            self.stray(size)
            self._listener.line_too_long(size)

    def _on_stderr(self) -> None:
        try:
            data = os.read(self._err, _READ_BYTES)
        except (BlockingIOError, ValueError):
            return
        if not data:
            self._loop.remove_reader(self._err)
            return
        self.stderr_total_bytes += len(data)
        self._stderr_bytes += len(data)
        self._stderr += data
        del self._stderr[: -self._limits.stderr_kept_bytes or len(self._stderr)]
        if self._stderr_bytes > self._limits.stderr_per_second_bytes and not self._stderr_pause:
            # A flood costs us time too: the rest stays in the pipe, and the agent waits.
            self._loop.remove_reader(self._err)
            self._stderr_pause = self._loop.call_later(1.0, self._resume_stderr)

    def _resume_stderr(self) -> None:
        self._stderr_pause = None
        self._stderr_bytes = 0
        if self._open:
            self._loop.add_reader(self._err, self._on_stderr)
