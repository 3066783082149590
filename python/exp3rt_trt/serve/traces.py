"""Traces for OpenTelemetry (extra `otel`): a span for each request, its time in queue and at work inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exp3rt_trt.extras import require

if TYPE_CHECKING:
    from starlette.types import Scope

    from exp3rt_trt.serve.record import Record


class Traces:
    """Exports spans over OTLP/HTTP, in batches, from a thread of its own.

    Args:
        endpoint: of a collector, such as http://localhost:4318; its path /v1/traces is added.

    Raises:
        Exp3rtError: without the extra `otel`.
    """

    def __init__(self, endpoint: str) -> None:
        sdk = require("opentelemetry.sdk.trace", "otel")
        export = require("opentelemetry.sdk.trace.export", "otel")
        otlp = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otel")
        resources = require("opentelemetry.sdk.resources", "otel")
        self._trace = require("opentelemetry.trace", "otel")
        self._propagator = require("opentelemetry.trace.propagation.tracecontext", "otel")
        resource = resources.Resource.create({"service.name": "exp3rt_trt"})
        self._provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = otlp.OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("exp3rt_trt.serve")

    def add(self, record: Record, scope: Scope, route: str, duration_s: float) -> None:
        """Export the spans of a request that is over; its parent is named by the header traceparent."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = self._propagator.TraceContextTextMapPropagator().extract(headers)
        kind = self._trace.SpanKind.SERVER
        start = record.started_ns
        span = self._tracer.start_span(f"{scope['method']} {route}", parent, kind, start_time=start)
        span.set_attributes(_attributes(record, scope, route))
        if record.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        inside = self._trace.set_span_in_context(span)
        for name, seconds in (("queue", record.queue_s), ("compute", record.compute_s)):
            if seconds is not None:
                child = self._tracer.start_span(name, inside, start_time=start)
                start += int(seconds * 1e9)
                child.end(start)
        span.end(record.started_ns + int(duration_s * 1e9))

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def _attributes(record: Record, scope: Scope, route: str) -> dict[str, Any]:
    attributes = {
        "http.request.method": scope["method"],
        "http.route": route,
        "http.response.status_code": record.status,
        "error.type": record.code,
        "exp3rt.request_id": record.request_id,
        "exp3rt.mode": record.mode,
        "exp3rt.candidates": record.candidates,
        "exp3rt.estimated_tokens": record.tokens,
    }
    return {name: value for name, value in attributes.items() if value is not None}
