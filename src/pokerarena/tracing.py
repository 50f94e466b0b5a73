"""Traces: one id leads from a request through the run's job to its hands and their callbacks.

Off unless a collector is configured: then every function here is a comparison and nothing is
imported, kept or sent. A span carries ids and counts, never cards, secrets or what somebody wrote.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from pokerarena.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

TRACEPARENT: Final = "traceparent"
TRACEPARENT_LENGTH: Final = 55
EXPORT_EVERY_MS: Final = 1000
_W3C: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NOTHING: Final[AbstractContextManager[None]] = nullcontext()

_tracer: Tracer | None = None
_hand_every = 1


def configure_tracing(
    settings: Settings, *, role: str, exporter: SpanExporter | None = None
) -> None:
    """Send spans to the configured collector; without one this does nothing."""
    global _tracer, _hand_every  # noqa: PLW0603 - one tracer a process, as there is one log
    if not settings.otlp_endpoint and exporter is None:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces")
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"pokerarena-{role}"}),
        sampler=ParentBased(TraceIdRatioBased(settings.trace_sample_ratio)),
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_EVERY_MS))
    _tracer = provider.get_tracer("pokerarena")
    _hand_every = settings.trace_hand_every


def stop_tracing() -> None:
    """Forget the tracer; for tests, which share one process."""
    global _tracer  # noqa: PLW0603 - see above
    _tracer = None


def tracing() -> bool:
    """Whether anything is traced at all."""
    return _tracer is not None


def traces_hand(hand_no: int) -> bool:
    """Whether this hand is one of the sample."""
    return _tracer is not None and (hand_no - 1) % _hand_every == 0


def span(
    name: str,
    *,
    parent: str | None = None,
    began_s_ago: float = 0.0,
    **attributes: str | int | None,
) -> AbstractContextManager[Span | None]:
    """A span around a block, below the current one or the `parent` in W3C form."""
    if _tracer is None:
        return _NOTHING
    return _span(_tracer, name, parent, began_s_ago, attributes)


@contextmanager
def _span(
    tracer: Tracer, name: str, parent: str | None, began_s_ago: float, attributes: dict[str, Any]
) -> Iterator[Span]:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None
    if parent is not None and _W3C.fullmatch(parent):
        context = TraceContextTextMapPropagator().extract({TRACEPARENT: parent})
    with tracer.start_as_current_span(
        name,
        context=context,
        start_time=time.time_ns() - int(began_s_ago * 1e9) if began_s_ago else None,
        attributes={
            f"pokerarena.{key}": value for key, value in attributes.items() if value is not None
        },
        # What an exception says may hold what was sent.
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        yield current


def traceparent() -> str | None:
    """The current span in W3C form, for whoever goes on with it; None without one."""
    if _tracer is None:
        return None
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def trace_id_of(parent: str | None) -> str | None:
    """The id by which a trace is looked up."""
    return parent.split("-")[1] if parent is not None and _W3C.fullmatch(parent) else None
