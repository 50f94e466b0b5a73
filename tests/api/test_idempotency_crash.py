"""The same order 50 times at once, and its process killed in the middle: one run, one answer."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.api.served import Server

SENDERS = 50
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
GIVE_UP_S = 90.0
# Holds the request open at one point: while its record is written, or while it is committed.
HOLD = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON idempotency_records
DEFERRABLE INITIALLY {when} FOR EACH ROW EXECUTE FUNCTION hold();
"""
HELD = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


class Served:
    """One API process after another on the same database, and who sends to it."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self.server = Server(database_url, POKERARENA_LOG_LEVEL="ERROR")
        self.up = threading.Event()
        self.up.set()

    def kill_and_start_again(self) -> None:
        self.up.clear()
        self.server.process.kill()
        self.server.process.communicate()
        token = self.server.token
        self.server = Server(self._database_url, POKERARENA_LOG_LEVEL="ERROR")
        self.server.token = token
        self.up.set()

    def insist(self, path: str, body: Any) -> tuple[bytes, str, bool]:
        """Send until answered: the body, where the thing is, and whether it is a replay."""
        give_up_s = time.monotonic() + GIVE_UP_S
        while True:
            assert time.monotonic() < give_up_s, "never answered"
            self.up.wait(GIVE_UP_S)
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
            headers = {
                "Authorization": f"Bearer {self.server.token}",
                "Content-Type": "application/json",
                "Idempotency-Key": KEY,
            }
            try:
                connection.request("POST", path, json.dumps(body), headers)
                reply = connection.getresponse()
                answer = reply.read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            finally:
                connection.close()
            if reply.status == 201:
                replayed = reply.getheader("Idempotency-Replayed") == "true"
                return answer, reply.getheader("Location") or "", replayed
            code = json.loads(answer)["code"]
            assert reply.status == 503 or code == "idempotency_in_progress", answer
            assert reply.status != 503 or reply.getheader("Retry-After")
            time.sleep(0.05)


@pytest.fixture
def served(database_url: str) -> Iterator[Served]:
    made = Served(database_url)
    yield made
    made.server.process.kill()
    made.server.process.communicate()


@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"])
def test_killed_in_the_middle_the_same_order_makes_one_run_and_gets_one_answer(
    database_url: str, served: Served, when: str
) -> None:
    """Before its commit the order leaves nothing behind; from its commit on it is kept, answer and
    all, although nobody was left to send it."""
    server = served.server
    server.log_in("alice")
    table = server.ok("POST", "/v1/tables", {"name": "Table"})["id"]
    for seat_no in (1, 2):
        agent = server.ok("POST", "/v1/agents", {"name": f"Agent {seat_no}"})["id"]
        house = {"kind": "house", "house_name": "caller"}
        version = server.ok("POST", f"/v1/agents/{agent}/versions", house)["id"]
        seat = {"agent_id": agent, "version_id": version}
        server.ok("PUT", f"/v1/tables/{table}/seats/{seat_no}", seat)
    path, body = f"/v1/tables/{table}/runs", {"hands": 3}
    plain = database_url.replace("+psycopg", "")
    with (
        psycopg.connect(plain, autocommit=True) as database,
        ThreadPoolExecutor(SENDERS) as senders,
    ):

        def number(query: str) -> int:
            row = database.execute(query.encode()).fetchone()
            assert row is not None
            return int(row[0])

        database.execute(HOLD.format(when=when).encode())
        first = [senders.submit(served.insist, path, body) for _ in range(SENDERS)]
        give_up_s = time.monotonic() + GIVE_UP_S
        while not number(HELD):
            assert time.monotonic() < give_up_s, "no request came so far"
            time.sleep(0.01)
        os.kill(served.server.process.pid, 9)
        while number(HELD):
            time.sleep(0.01)
        kept = number("SELECT count(*) FROM runs")
        assert kept == number("SELECT count(*) FROM idempotency_records")
        database.execute("DROP TRIGGER hold ON idempotency_records")
        served.kill_and_start_again()
        answers = [sent.result() for sent in first]
        again = [senders.submit(served.insist, path, body) for _ in range(SENDERS)]
        answers += [sent.result() for sent in again]

        assert kept == (1 if when == "DEFERRED" else 0)
        assert len({(answer, where) for answer, where, _ in answers}) == 1
        assert sum(not replayed for _, _, replayed in answers) == 1 - kept
        assert number("SELECT count(*) FROM runs") == 1
        assert number("SELECT count(*) FROM procrastinate_jobs") == 1
