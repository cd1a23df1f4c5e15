"""What /metrics tells Prometheus: requests by route and status, and what the worker has done."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from janus_kit.demos.worker import ModelWorker

__all__ = ["Metrics"]

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class _Worker(Collector):
    """The worker's counts, read when they are asked for."""

    def __init__(self, worker: ModelWorker) -> None:
        self.worker = worker

    def collect(self) -> Iterable[Metric]:
        counts = self.worker.counts
        jobs = CounterMetricFamily("janus_jobs", "Jobs by how they ended.", labels=["outcome"])
        for outcome in ("done", "failed", "cancelled", "refused"):
            jobs.add_metric([outcome], getattr(counts, outcome))
        batches = CounterMetricFamily("janus_batches", "Batches drawn, by size.", labels=["size"])
        for size, number in sorted(counts.batches.items()):
            batches.add_metric([str(size)], number)
        yield jobs
        yield batches
        yield CounterMetricFamily("janus_pictures", "Pictures drawn.", value=counts.pictures)
        yield CounterMetricFamily("janus_rows", "Rows of codes drawn.", value=counts.rows)
        yield GaugeMetricFamily("janus_waiting", "Jobs that wait.", value=self.worker.waiting)
        yield GaugeMetricFamily("janus_busy", "1 while the model works.", value=self.worker.busy)


class Metrics:
    """A registry of its own for each server, and the ASGI middleware that fills it."""

    def __init__(self, worker: ModelWorker) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Worker(worker))
        self._requests = Counter(
            "janus_http_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "janus_http_seconds",
            "Seconds to the end of an answer, by route.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            begun, status = time.monotonic(), 500

            async def watched(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, watched)
            finally:
                # Of a route, never of a path: what a client makes up must not become a label.
                route = getattr(scope.get("route"), "path", "other")
                known = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")
                method = scope["method"] if scope["method"] in known else "other"
                self._requests.labels(route, method, str(status)).inc()
                self._seconds.labels(route).observe(time.monotonic() - begun)

        return counted
