"""From one failed callback in the log to the request, the trace, the hand and the replay, by ids alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.api.served import Server
from tests.arena import arena_settings
from tests.journeys.test_http_agents import MISBEHAVING, agent
from tests.worker.test_tracing import Heard, listening
from tests.worker.workers import worker


async def test_a_failed_callback_leads_to_everything_else(
    database_url: str, tmp_path: Path
) -> None:
    with listening() as collector:
        await walk(database_url, tmp_path, collector)


async def walk(database_url: str, tmp_path: Path, collector: Heard) -> None:
    server = Server(
        database_url,
        POKERARENA_CALLBACK_ALLOW_PRIVATE="true",
        POKERARENA_OTLP_ENDPOINT=collector.url,
    )
    try:
        with agent(*MISBEHAVING, "illegal") as (url, _):
            server.log_in("walker")
            table_id = server.ok("POST", "/v1/tables", {"name": "T"})["id"]
            for seat_no, version in enumerate(
                (
                    {"kind": "http", "callback_url": url.partition("#")[0]},
                    {"kind": "house", "house_name": "caller"},
                ),
                start=1,
            ):
                agent_id = server.ok("POST", "/v1/agents", {"name": f"A{seat_no}"})["id"]
                made = server.ok("POST", f"/v1/agents/{agent_id}/versions", version)
                server.ok(
                    "PUT",
                    f"/v1/tables/{table_id}/seats/{seat_no}",
                    {"agent_id": agent_id, "version_id": made["id"]},
                )
            run = server.ok("POST", f"/v1/tables/{table_id}/runs", {"hands": 4})
            settings = arena_settings(database_url, otlp_endpoint=collector.url)
            with worker(settings, tmp_path) as process:
                give_up_s = time.monotonic() + 60
                while server.ok("GET", f"/v1/runs/{run['id']}")["status"] != "completed":
                    assert time.monotonic() < give_up_s, process.log_path.read_text()
                    time.sleep(0.1)
                failed = process.events("fallback")[0]
                until_heard(collector, failed["trace_id"], {"run", "hand", "callback"})

            # All that follows is known from this one line.
            assert failed["reason"] == "illegal_action"
            shown = server.ok("GET", f"/v1/runs/{failed['run_id']}")
            assert shown["table_id"] == failed["table_id"]
            hand = server.ok("GET", f"/v1/hands/{failed['hand_id']}")
            assert (hand["run_id"], hand["hand_no"]) == (failed["run_id"], failed["hand_no"])
            actions = server.ok("GET", f"/v1/hands/{failed['hand_id']}/actions")
            assert [
                action
                for action in actions["items"]
                if action["seat_no"] == failed["seat"] and action["fallback"] == failed["reason"]
            ]
            assert server.ok("GET", f"/v1/hands/{failed['hand_id']}/replay")
    finally:
        _, logged = server.stop()
    (created,) = [
        event
        for event in logged
        if event["event"] == "request" and event.get("request_id") == failed["request_id"]
    ]
    assert (created["method"], created["status"]) == ("POST", 201)
    assert created["route"] == "/v1/tables/{table_id}/runs"
    assert created["table_id"] == failed["table_id"]
    assert created["user_id"].startswith("user_")
    assert created["trace_id"] == failed["trace_id"]
    until_heard(collector, failed["trace_id"], {"request POST"})
    (asked, *_) = [
        span
        for span in spans_of(collector, failed["trace_id"])
        if span.name == "callback" and failed["hand_id"] in texts(span)
    ]
    assert asked.parent_span_id
    (request, *_) = [
        span for span in spans_of(collector, failed["trace_id"]) if span.name == "request POST"
    ]
    assert failed["request_id"] in texts(request)


def until_heard(collector: Heard, trace_id: str, wanted: set[str]) -> None:
    """Spans come in batches, and the last ones when their process ends."""
    give_up_s = time.monotonic() + 60
    while not wanted <= (names := {span.name for span in spans_of(collector, trace_id)}):
        assert time.monotonic() < give_up_s, names
        time.sleep(0.05)


def spans_of(collector: Heard, trace_id: str) -> list[Any]:
    return [span for span in collector.spans if span.trace_id.hex() == trace_id]


def texts(span: Any) -> set[str]:
    return {attribute.value.string_value for attribute in span.attributes}
