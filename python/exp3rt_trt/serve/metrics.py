"""Metrics for Prometheus, of one process or of all that share a folder (PROMETHEUS_MULTIPROC_DIR)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from exp3rt_trt.serve.admission import Admission
    from exp3rt_trt.serve.record import Record
    from exp3rt_trt.stats import RerankerStats

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)
_COUNTERS = {
    "prompt_tokens_computed": "Prompt tokens that went through the model.",
    "prompt_tokens_reused": "Prompt tokens that candidates found computed already.",
    "generated_tokens": "Reasoning tokens.",
    "candidates_done": "Candidates that were finished, with or without a rating.",
    "steps": "Batches that went through the model.",
}
_NAMES = {
    "generated_tokens": "generation_tokens",
    "candidates_done": "candidates",
    "steps": "engine_steps",
}


class Metrics:
    """Counts requests, and copies the engine's counters whenever a request ends or somebody reads them."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "exp3rt_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self._errors = Counter("exp3rt_errors", "Answers that are errors.", ("code",), registry=registry)
        self._duration = Histogram(
            "exp3rt_request_duration_seconds",
            "From the request's first byte to the answer's last.",
            ("route", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self._queue = Histogram(
            "exp3rt_request_queue_seconds",
            "From there to the first computed token.",
            buckets=SECONDS,
            registry=registry,
        )
        self._compute = Histogram(
            "exp3rt_request_compute_seconds",
            "From the first computed token to the last result.",
            buckets=SECONDS,
            registry=registry,
        )
        self._running = _gauge("exp3rt_requests_running", "Requests that the engine has.", registry)
        self._waiting = _gauge("exp3rt_requests_waiting", "Requests that wait for it.", registry)
        self._waiting_tokens = _gauge("exp3rt_waiting_tokens", "Their tokens, estimated.", registry)
        self._blocks = Gauge(
            "exp3rt_kv_cache_blocks",
            "Blocks of the KV cache.",
            ("state",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._counters = {
            name: Counter(f"exp3rt_{_NAMES.get(name, name)}", words, registry=registry)
            for name, words in _COUNTERS.items()
        }
        self._counted = dict.fromkeys(_COUNTERS, 0)
        if FOLDER not in os.environ:
            ProcessCollector(registry=registry)

    def observe(self, record: Record, route: str, duration_s: float) -> None:
        """Count a request that is over."""
        self._requests.labels(route, record.status).inc()
        self._duration.labels(route, record.status).observe(duration_s)
        if record.code is not None:
            self._errors.labels(record.code).inc()
        if record.compute_s is not None:
            self._queue.observe(record.queue_s or 0.0)
            self._compute.observe(record.compute_s)

    def update(self, admission: Admission, stats: RerankerStats) -> None:
        """Copy what others count."""
        self._running.set(admission.running)
        self._waiting.set(admission.waiting)
        self._waiting_tokens.set(admission.waiting_tokens)
        for state in ("free", "cached", "in_use"):
            self._blocks.labels(state).set(getattr(stats, f"blocks_{state}"))
        for name, counter in self._counters.items():
            grown = getattr(stats, name) - self._counted[name]
            if grown > 0:  # reused tokens are booked in advance and can fall for a moment
                counter.inc(grown)
                self._counted[name] += grown

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        if FOLDER not in os.environ:
            return bytes(generate_latest(self._registry))
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)
        return bytes(generate_latest(everyone))


def _gauge(name: str, words: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, words, registry=registry, multiprocess_mode="livesum")
