"""Callbacks per second of one worker process, beside `wrk` against the same agent.

The agent is a process of its own that answers as fast as Python can. Ours does everything a real
callback takes: the view, the message, the signature, the request, the strict reading and the
judgement of the answer. `wrk` sends one fixed body over as many connections and reads nothing. They
take turns, so that a busy machine is as unfair to one as to the other.

Run it with `python -m bench.callbacks`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from pokerarena.agents.dial import Dialer
from pokerarena.agents.http import HttpLimits, HttpPlayer
from pokerarena.agents.seat import HandIds, SeatedPlayer
from pokerarena.egress.policy import EgressPolicy
from pokerarena.engine.deal import deal_cards
from pokerarena.engine.rules import Rules
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see
from pokerarena.protocol.messages import callback_from_view, encode
from pokerarena.protocol.signing import new_secret

AT_LEAST = 0.5
SEED = bytes(32)

_ANSWER = b'{"action": "call"}'
_CHECK = b'{"action": "check"}'


class FastAgent(asyncio.Protocol):
    """Calls and checks, with as little HTTP as serves the purpose."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(self._read) < end + 4 + length:
                return
            body = self._read[end + 4 : end + 4 + length]
            self._read = self._read[end + 4 + length :]
            answer = _CHECK if b'"check"' in body.partition(b'"legal_actions"')[2][:40] else _ANSWER
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(answer), answer)
            )


async def _serve_fast_agent() -> None:
    server = await asyncio.get_running_loop().create_server(FastAgent, "127.0.0.1", 0)
    sys.stdout.write(f"agent ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}/\n")
    sys.stdout.flush()
    await server.serve_forever()


async def ours(url: str, tables: int, seconds: float) -> tuple[float, float]:
    """Callbacks a second, and CPU microseconds of this process for each."""
    dialer = Dialer(EgressPolicy(allow_private=True))
    secret = new_secret()
    ends_at = time.perf_counter() + seconds
    decided = 0

    async def play(table: int) -> None:
        nonlocal decided
        player = HttpPlayer(url, dialer, secret=secret, limits=HttpLimits(max_in_flight=2))
        seat = SeatedPlayer(player)
        viewers = {1: Viewer.of_seats([1]), 2: Viewer.of_seats([2])}
        hand_no = 0
        while time.perf_counter() < ends_at:
            hand_no += 1
            deal = deal_cards(SEED, b"bench", table * 1_000_000 + hand_no, 2, hand_no % 2)
            hand = start(Rules(50, 100), (1, 2), (10_000, 10_000), 1 + hand_no % 2, deal).hand
            ids = HandIds("run_bench", f"tbl_{table}", f"hand_{table}_{hand_no}", hand_no)
            while not hand.complete:
                legal = hand.legal()
                decision = await seat.decide(see(hand, viewers[hand.seat_to_act]), legal, ids)
                if decision.fallback is not None:
                    raise SystemExit(f"a callback failed: {decision.fallback}: {decision.detail}")
                hand = apply(hand, decision.action).hand
                decided += 1
        await player.close()

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(play(table) for table in range(tables)))
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    await dialer.close()
    return decided / elapsed, cpu / decided * 1e6


def wrk(program: str, url: str, connections: int, seconds: float) -> float:
    """Requests a second, one callback's body over and over."""
    hand = start(
        Rules(50, 100), (1, 2), (10_000, 10_000), 1, deal_cards(SEED, b"bench", 1, 2, 0)
    ).hand
    body = encode(
        callback_from_view(
            see(hand, Viewer.of_seats([1])),
            run_id="run_bench",
            table_id="tbl_1",
            hand_id="hand_1",
            hand_no=1,
            action_deadline_ms=2_000,
        )
    ).decode()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(
            'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            f"wrk.body = [==[{body}]==]\n"
        )
        command = [program, "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s"]
        output = subprocess.run(
            [*command, "-s", str(script), url], check=True, capture_output=True, text=True
        ).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise SystemExit(f"wrk said something unexpected:\n{output}")
    return float(found[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=50, help="tables that play at once")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help="be the fast agent, nothing else")
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve_fast_agent())
        return 0
    program = shutil.which("wrk")
    agent = subprocess.Popen(
        [sys.executable, "-m", "bench.callbacks", "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert agent.stdout is not None
        url = agent.stdout.readline().split()[-1]
        measured, cpu_us, reference = [], [], []
        for _ in range(options.rounds):
            rate, cpu = uvloop.run(ours(url, options.tables, options.seconds))
            measured.append(rate)
            cpu_us.append(cpu)
            if program is not None:
                reference.append(wrk(program, url, options.tables, options.seconds))
    finally:
        agent.terminate()
        agent.wait()
    print(f"HTTP callbacks, one process, {options.tables} tables, one local agent")
    print(f"  pokerarena  {median(measured):>9,.0f} callbacks/s  {median(cpu_us):.0f} µs CPU each")
    if not reference:
        print("  wrk         not run: it is not installed, so there is no ratio")
        return 0
    ratio = median(measured) / median(reference)
    print(f"  wrk         {median(reference):>9,.0f} requests/s")
    verdict = "reached" if ratio >= AT_LEAST else "MISSED"
    print(f"  ratio       {ratio:>9.2f}   at least {AT_LEAST}: {verdict}")
    return 0 if ratio >= AT_LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
