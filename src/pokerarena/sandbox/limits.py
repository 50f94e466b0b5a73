"""The quotas of one sandbox.

Owns their names, defaults and sane bounds. They are the owner's to lower and an operator's to raise;
an upload never sets its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What a sandbox may use. Times are milliseconds, sizes bytes."""

    # Per callback. Callbacks in flight at once share the sum of their CPU time.
    cpu_per_callback_ms: int = 1_000
    answer_max_bytes: int = 16 * 1024

    # While it runs.
    memory_bytes: int = 256 * MIB
    cpu_cores: float = 1.0
    pids_max: int = 32
    tmp_bytes: int = 16 * MIB
    tmp_inodes: int = 1_024
    open_files: int = 128
    stderr_kept_bytes: int = 64 * 1024
    stderr_per_second_bytes: int = 1 * MIB
    # Output beyond this between two turns ends the sandbox.
    stray_output_max_bytes: int = 1 * MIB
    # What waits for an agent that does not read.
    input_waiting_max_bytes: int = 1 * MIB

    # Its life.
    start_timeout_ms: int = 5_000
    start_cpu_ms: int = 5_000
    restarts_max: int = 5
    # This many timeouts in a row without one line from the agent end the process.
    stuck_timeouts: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must not be negative")
        if self.memory_bytes < 16 * MIB:
            raise ValueError("memory_bytes must be at least 16 MiB: less starts no Python")
        if not 0.01 <= self.cpu_cores <= 256:
            raise ValueError("cpu_cores must be from 0.01 to 256")
        if self.pids_max < 1 or self.open_files < 8:
            raise ValueError("pids_max must be at least 1, open_files at least 8")
