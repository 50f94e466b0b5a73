"""One trace leads from the request that created a run to its hands and to the agent itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pokerarena import tracing
from pokerarena.api.app import create_app
from tests.api.arena import Arena, new_table, ok, settings_for
from tests.api.asgi import Client
from tests.arena import arena_settings
from tests.worker.workers import worker

DEADLINE_S = 60
REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Heard:
    """What a server was sent: spans as a collector, callbacks as an agent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.callbacks: list[tuple[str | None, dict[str, Any]]] = []
        self.url = ""


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = b""
            if self.path == "/v1/traces":
                request = ExportTraceServiceRequest.FromString(body)
                heard.spans += [
                    span
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
            else:
                callback = json.loads(body)
                heard.callbacks.append((self.headers.get("traceparent"), callback))
                legal = callback["legal_actions"]
                answer = json.dumps({"action": "check" if "check" in legal else "fold"}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        heard.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    yield exporter
    tracing.stop_tracing()


def trace_here(settings: Any, exporter: SpanExporter) -> None:
    tracing.configure_tracing(settings, role="api", exporter=exporter)


async def test_a_trace_leads_from_the_request_to_the_agent(
    database_url: str, tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    api_settings = settings_for(database_url, callback_allow_private=True)
    trace_here(api_settings, exporter)
    app = create_app(api_settings)
    with listening() as heard:
        async with app.router.lifespan_context(app):
            arena = Arena(api_settings, app.state.parts.database, Client(app))
            user = await arena.user("tracer")
            table_id = await new_table(user)
            for seat_no in (1, 2):
                agent = ok(await user.post("/v1/agents", {"name": f"A{seat_no}"}), 201)
                version = ok(
                    await user.post(
                        f"/v1/agents/{agent['id']}/versions",
                        {"kind": "http", "callback_url": f"{heard.url}/agent"},
                    ),
                    201,
                )
                seat = {"agent_id": agent["id"], "version_id": version["id"]}
                ok(await user.put(f"/v1/tables/{table_id}/seats/{seat_no}", seat))
            run = ok(
                await user.request(
                    "POST",
                    f"/v1/tables/{table_id}/runs",
                    {"hands": 3},
                    headers={"traceparent": REMOTE},
                ),
                201,
            )
            settings = arena_settings(database_url, otlp_endpoint=heard.url, trace_hand_every=2)
            with worker(settings, tmp_path) as process:
                give_up_s = time.monotonic() + DEADLINE_S
                while {span.name for span in heard.spans} < {
                    "run.claim",
                    "run",
                    "hand",
                    "callback",
                }:
                    assert time.monotonic() < give_up_s, process.log_path.read_text()
                    await asyncio.sleep(0.05)
                claimed = process.events("run_claimed")
    trace_id = tracing.trace_id_of(REMOTE)
    assert {span.trace_id.hex() for span in heard.spans} == {trace_id}
    assert [event["trace_id"] for event in claimed] == [trace_id]
    hands = {
        attribute.value.int_value
        for span in heard.spans
        if span.name == "hand"
        for attribute in span.attributes
        if attribute.key == "pokerarena.hand_no"
    }
    assert hands == {1, 3}, "the first hand and every second one"
    traced = {
        parent.split("-")[1]
        for parent, callback in heard.callbacks
        if parent is not None and callback["run_id"] == run["id"]
    }
    assert traced == {trace_id}, "the agent is told"
    callbacks = {span.span_id.hex() for span in heard.spans if span.name == "callback"}
    told = {parent.split("-")[2] for parent, _ in heard.callbacks if parent is not None}
    assert callbacks <= told


async def test_without_a_collector_nothing_is_traced_and_nothing_imported(
    database_url: str, tmp_path: Path
) -> None:
    assert not tracing.tracing()
    assert tracing.span("a") is tracing.span("b"), "one block for all"
    assert tracing.traceparent() is None
    assert not tracing.traces_hand(1)
    tracing.configure_tracing(settings_for(database_url), role="api")
    assert not tracing.tracing()


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nonsense",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        REMOTE + "-extra",
        REMOTE.upper(),
        "ff" + REMOTE[2:],
    ],
)
def test_a_context_that_is_none_begins_a_trace_of_its_own(
    parent: str, exporter: InMemorySpanExporter
) -> None:
    trace_here(arena_settings("postgresql+psycopg://nobody@/none"), exporter)
    with tracing.span("request", parent=parent):
        own = tracing.traceparent()
    assert own is not None
    assert tracing.trace_id_of(own) != tracing.trace_id_of(REMOTE)
    assert tracing.trace_id_of(parent) is None
