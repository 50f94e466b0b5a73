"""What abuse of an API process costs the others: a flood of one user, slow clients, worst bodies.

One real API process with the limits that it has by default, on a PostgreSQL of its own. A user who
behaves reads a list of tables a few times a second, and its latency is compared with and without the
abuse, in turns, so that what else the machine does falls on both. Memory is that of the process.

Run it with `python -m bench abuse`; BENCH_PHASE_S sets how long one turn lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from tests.api.arena import PASSWORD
from tests.api.crowd import Crowd
from tests.api.served import Server

PHASE_S = float(os.environ.get("BENCH_PHASE_S", "15"))
ROUNDS = 4
P99_RATIO_AT_MOST = 1.5
PAUSE_S = 0.05
FLOOD_CONNECTIONS = 64
SLOW_CLIENTS = 1000
SETTLE_S = 5
WORST_BODIES = 300
MEMORY_ADDED_AT_MOST_MIB = 300
LIMITS = {
    "POKERARENA_RATE_READ_PER_MIN": "1200",
    "POKERARENA_RATE_EXPENSIVE_PER_MIN": "300",
    "POKERARENA_RATE_WRITE_PER_MIN": "300",
    "POKERARENA_RATE_AUTH_PER_MIN": "60",
    "POKERARENA_RATE_STREAM_PER_MIN": "60",
    "POKERARENA_RATE_PACE_PER_S": "50",
    "POKERARENA_LOG_LEVEL": "ERROR",
}


class Victim:
    """A user who asks again and again, with one connection, and never too fast."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}"}
        self.failures = 0

    def ask_for(self, seconds: float) -> list[float]:
        """The latencies of requests over so long, in milliseconds."""
        took_ms = []
        connection = self._connect()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            began_s = time.perf_counter()
            try:
                connection.request("GET", "/v1/tables?limit=5", headers=self._headers)
                reply = connection.getresponse()
                reply.read()
                self.failures += reply.status != 200
            except (OSError, http.client.HTTPException):
                self.failures += 1
                connection.close()
                connection = self._connect()
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            time.sleep(PAUSE_S)
        connection.close()
        return took_ms

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=30, source_address=("127.0.0.100", 0)
        )


def flood(port: int, token: str, answers: object) -> None:
    """As many requests as one user gets through, over many connections, until it is ended."""
    request = (
        f"GET /v1/tables HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    counted = [0]

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=("127.0.0.2", 0)
                )
                try:
                    while True:
                        writer.write(request)
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                        await reader.readexactly(length)
                        counted[0] += 1
                        answers.value = counted[0]  # type: ignore[attr-defined]
                finally:
                    writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(FLOOD_CONNECTIONS)))

    asyncio.run(all_of_them())


@contextmanager
def flooding(port: int, token: str) -> Iterator[Callable[[], int]]:
    """A flood for as long as the block lasts; how many answers it has got."""
    answers = multiprocessing.Value("q", 0)
    process = multiprocessing.Process(target=flood, args=(port, token, answers), daemon=True)
    process.start()
    try:
        time.sleep(1)
        yield lambda: answers.value
    finally:
        process.kill()
        process.join()


def p99(took_ms: list[float]) -> float:
    return quantiles(took_ms, n=100)[98]


def resident_mib(server: Server) -> float:
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def compare(name: str, quiet: list[float], abused: list[float]) -> float:
    ratio = p99(abused) / p99(quiet)
    print(
        f"{name:22} p50 {median(quiet):6.2f} -> {median(abused):6.2f} ms, "
        f"p99 {p99(quiet):7.2f} -> {p99(abused):7.2f} ms, ratio of p99 {ratio:5.2f} "
        f"({len(quiet)} and {len(abused)} requests)"
    )
    return ratio


def a_flood(server: Server, victim: Victim, token: str) -> bool:
    quiet: list[float] = []
    abused: list[float] = []
    answered = 0
    for _ in range(ROUNDS):
        quiet += victim.ask_for(PHASE_S)
        with flooding(server.port, token) as answers:
            abused += victim.ask_for(PHASE_S)
            answered += answers()
    ratio = compare("a flood of one user", quiet, abused)
    print(f"  the flood got {answered / (ROUNDS * (PHASE_S + 1)):,.0f} answers a second")
    return ratio <= P99_RATIO_AT_MOST and not victim.failures


def slow_clients(server: Server, victim: Victim) -> bool:
    quiet: list[float] = []
    abused: list[float] = []
    before_mib = resident_mib(server)
    most_mib, held = before_mib, []
    for _ in range(ROUNDS):
        quiet += victim.ask_for(PHASE_S / 2)
        crowd = Crowd(server.port, SLOW_CLIENTS)
        # Their coming is a crowd of requests like any other; this is about their staying.
        time.sleep(SETTLE_S)
        try:
            end_s = time.monotonic() + PHASE_S
            while time.monotonic() < end_s:
                abused += victim.ask_for(0.5)
                crowd.drip()
                held.append(crowd.let_go())
                most_mib = max(most_mib, resident_mib(server))
        finally:
            crowd.close()
        time.sleep(1)
    compare(f"{SLOW_CLIENTS:,} slow clients", quiet, abused)
    print(
        f"  memory {before_mib:.0f} -> {most_mib:.0f} MiB; the server held {max(held):,} of them at "
        f"most, {median(held):,.0f} in the middle; requests that failed: {victim.failures}"
    )
    return not victim.failures and most_mib - before_mib <= MEMORY_ADDED_AT_MOST_MIB


def worst_bodies(server: Server) -> bool:
    """Bodies that take the most memory for their bytes, all of them at once."""

    async def one(body: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
        )
        head = await reader.read(64)
        writer.close()
        return int(head.split()[1])

    async def all_at_once(body: bytes) -> set[int]:
        return set(await asyncio.gather(*(one(body) for _ in range(WORST_BODIES))))

    before_mib = resident_mib(server)
    lists = b"[" + b"[[]]," * 2_400 + b"1]"
    padded = json.dumps({"username": "\U0001f0a1" * 5_000, "password": "x" * 40_000}).encode()
    statuses: set[int] = set()
    for body in (lists, lists[:-1] + b" " * (65_000 - len(lists)) + b"]", padded[:65_000]):
        statuses |= asyncio.run(all_at_once(body))
    most_mib = resident_mib(server)
    print(
        f"{WORST_BODIES} worst bodies at once  memory {before_mib:.0f} -> {most_mib:.0f} MiB, "
        f"answers {sorted(statuses)}"
    )
    return most_mib - before_mib <= MEMORY_ADDED_AT_MOST_MIB and all(
        400 <= s < 500 for s in statuses
    )


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="pokerarena-bench-") as name:
        Path(name).chmod(0o711)
        with EmbeddedPostgres(Path(name) / "pg") as postgres:
            postgres.ensure_database("bench")
            migrate.upgrade(postgres.url("bench"))
            server = Server(postgres.url("bench"), **LIMITS)
            try:
                tokens = []
                for user in ("victim", "flooder"):
                    credentials = {"username": user, "password": PASSWORD}
                    server.ok("POST", "/v1/auth/register", credentials)
                    tokens.append(server.ok("POST", "/v1/auth/login", credentials)["access_token"])
                victim = Victim(server.port, tokens[0])
                victim.ask_for(3)
                reached = [a_flood(server, victim, tokens[1])]
                victim.failures = 0
                reached.append(slow_clients(server, victim))
                reached.append(worst_bodies(server))
            finally:
                server.stop()
    print(
        f"at most: p99 under a flood {P99_RATIO_AT_MOST} times, {MEMORY_ADDED_AT_MOST_MIB} MiB more"
    )
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
