"""Counters of the server, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from potstill.apps.serve.exchange import Exchange

__all__ = ["Metrics"]

_PREFIX = "potstill"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The server's counters.

    Args:
        gauges: by name, a help text and a function that gives the value when it is asked for.
    """

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=_PREFIX, registry=self.registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(name, text, labels, namespace=_PREFIX, registry=self.registry, buckets=_SECONDS)

        self.requests = counter("requests", "Requests by path and HTTP status.", "path", "status")
        self.decisions = counter("decisions", "Answers by what was decided.", "action", "reason")
        self.tokens = counter("tokens", "Tokens of prompts and answers.", "kind")
        self.audits = counter("audits", "Answers that the larger model was asked for too.", "result")
        self.repairs = counter("repairs", "Answers that were asked for twice, by their end.", "result")
        self.seconds = seconds("request_seconds", "Seconds per request.", "path")
        self.ttft = seconds("time_to_first_token_seconds", "Seconds to the first bytes.")
        self.queued = seconds("queue_seconds", "Seconds that requests waited.")
        for name, (text, value) in gauges.items():
            Gauge(name, text, namespace=_PREFIX, registry=self.registry).set_function(value)

    def record(self, exchange: Exchange) -> None:
        """Count a request that has ended."""
        self.requests.labels(exchange.path, str(exchange.status)).inc()
        self.seconds.labels(exchange.path).observe(exchange.seconds)
        self.queued.observe(exchange.queue_seconds)
        self.tokens.labels("input").inc(exchange.input_tokens)
        self.tokens.labels("output").inc(exchange.output_tokens)
        if exchange.ttft is not None:
            self.ttft.observe(exchange.ttft)
        if exchange.decision is not None:
            self.decisions.labels(exchange.decision.action, exchange.decision.reason).inc()
        if exchange.repaired:
            self.repairs.labels("failed" if exchange.invalid else "repaired").inc()

    def sums(self, name: Literal["decisions", "requests", "audits"], label: str) -> dict[str, int]:
        """A counter's values, added up over all labels but one."""
        out: dict[str, int] = {}
        for family in getattr(self, name).collect():
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    key = sample.labels[label]
                    out[key] = out.get(key, 0) + int(sample.value)
        return out

    def text(self) -> bytes:
        """All counters."""
        return generate_latest(self.registry)
