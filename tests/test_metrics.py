"""Metrics: counted cheaply, joined over processes, served to whoever reaches their own port."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pokerarena import metrics
from pokerarena.agents.player import FallbackReason
from pokerarena.exposition import MetricsServer
from pokerarena.ops import metrics_reference

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_manual_lists_every_metric_as_it_is() -> None:
    text = DOCUMENT.read_text()
    assert metrics_reference.renewed(text) == text, "run 'make docs'"


def test_no_label_is_an_id() -> None:
    for metric in metrics.CATALOGUE.values():
        assert not [label for label in metric.labels if "id" in label.split("_")], metric.name


def test_a_name_ends_in_its_unit() -> None:
    for metric in metrics.CATALOGUE.values():
        if metric.kind == "histogram":
            assert metric.name.endswith(("_seconds", "_hands")), metric.name
        assert not metric.name.endswith("_total"), "the text format adds it"


def test_labels_beyond_the_bound_share_one_cell() -> None:
    metric = metrics.Metric("counter", "test_bounded", "A test", ("which",))
    try:
        for number in range(metrics.CELLS_MAX + 500):
            metric.number(str(number)).add()
        assert len(metric.numbers) == metrics.CELLS_MAX + 1
        assert metric.number(metrics.OTHER).value == 500
        assert sum(cell.value for cell in metric.numbers.values()) == metrics.CELLS_MAX + 500
    finally:
        del metrics.CATALOGUE["test_bounded"]


def test_a_cell_demands_all_its_labels() -> None:
    with pytest.raises(ValueError, match="pokerarena_fallbacks has the labels"):
        metrics.FALLBACKS.number("http")


@settings(deadline=None)
@given(st.lists(st.floats(0, 200, allow_nan=False)))
def test_every_value_falls_into_one_bucket_of_its_size(values: list[float]) -> None:
    cell = metrics.Distribution(metrics.LATENCY_S)
    for value in values:
        cell.observe(value)
    assert sum(cell.counts) == len(values)
    for index, bound in enumerate(metrics.LATENCY_S):
        assert sum(cell.counts[: index + 1]) == sum(value <= bound for value in values)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans()), min_size=1, max_size=30
    )
)
def test_the_sum_over_processes_never_falls_whoever_dies(
    steps: list[tuple[str, int, bool]],
) -> None:
    """Counters of processes that end stay; their gauges go."""
    aggregate = metrics.Aggregate()
    local = metrics.COMMIT_FAILURES.number().value
    lives: dict[str, int] = {}
    departed = 0
    for source, more, dies in steps:
        lives[source] = lives.get(source, 0) + more
        aggregate.take(
            source,
            json.loads(
                json.dumps(
                    [
                        ["pokerarena_commit_failures", [], lives[source]],
                        ["pokerarena_runs_playing", [], more],
                    ]
                )
            ),
        )
        if dies:
            aggregate.gone(source)
            departed += lives.pop(source)
        families = {family.name: family for family in aggregate.collect()}
        total = families["pokerarena_commit_failures"].samples[0].value
        assert total == local + departed + sum(lives.values())
        if not lives:
            assert "pokerarena_runs_playing" not in families or not [
                sample for sample in families["pokerarena_runs_playing"].samples if sample.value
            ]


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_metrics_are_served_as_prometheus_reads_them() -> None:
    server = MetricsServer()
    port = await server.start("127.0.0.1", 0)
    try:
        metrics.CALLBACK_SECONDS.distribution("http").observe(0.02)
        answer = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        found = read(body.decode())
        assert found["pokerarena_callback_seconds_count", (("kind", "http"),)] >= 1
        assert found["process_resident_memory_bytes", ()] > 0
        other = await ask(port, b"GET /v1/tables HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.startswith(b"HTTP/1.1 404")
        large = await ask(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
        assert large == b""
    finally:
        await server.close()


def test_every_fallback_reason_is_there_before_it_happens() -> None:
    from pokerarena.agents.seat import SeatedPlayer
    from tests.agents.test_seat import Scripted

    SeatedPlayer(Scripted([]), kind="http")
    cells = {labels for labels in metrics.FALLBACKS.numbers if labels[0] == "http"}
    assert cells == {("http", reason.value) for reason in FallbackReason}
