"""What a service counts and measures, as Prometheus reads it: of all for its operators, of its own for a tenant."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from tallystick.serve.disk import DiskMetrics

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_UNKNOWN: Final = "unknown"


class HttpMetrics:
    """Of the service as an HTTP server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests: Final = Counter(
            "tallystick_http_requests",
            "Requests, by method, route and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.latency: Final = Histogram(
            "tallystick_http_request_duration_seconds",
            "From a request's head to the end of its answer; of a stream to its beginning.",
            ["method", "route"],
            registry=registry,
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
        )
        self.faults: Final = Counter(
            "tallystick_faults", "Answers of 5xx for faults of ours, by kind.", ["kind"], registry=registry
        )
        self.stalled: Final = Histogram(
            "tallystick_loop_delay_seconds",
            "How much later than it should the event loop did something: everybody waits so long.",
            registry=registry,
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
        )


class Metrics:
    """What is counted. Names of tenants are in it: only operators read it."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.http: Final = HttpMetrics(self.registry)
        self.appended: Final = Counter("tallystick_events_appended", "Events sealed over HTTP.", registry=self.registry)
        self.queued: Final = Counter("tallystick_events_queued", "Events taken into a queue.", registry=self.registry)
        self.refused: Final = Counter(
            "tallystick_requests_refused", "Requests refused, by status.", ["status"], registry=self.registry
        )
        self.denied: Final = Counter(
            "tallystick_denials", "Denials, by the permission that was missing.", ["permission"], registry=self.registry
        )
        self.over_quota: Final = Counter(
            "tallystick_over_quota", "Events refused by a plan, by the bound.", ["bound"], registry=self.registry
        )
        self.used: Final = Gauge(
            "tallystick_tenant_events",
            "Events of this month, by tenants whose plan has a bound.",
            ["tenant"],
            registry=self.registry,
        )
        self.seconds: Final = Histogram(
            "tallystick_append_seconds",
            "From an append's arrival to its durable answer.",
            registry=self.registry,
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
        )
        self.waiting: Final = Gauge(
            "tallystick_events_waiting", "Events that are about to be sealed.", registry=self.registry
        )
        self.readers: Final = Gauge("tallystick_stream_readers", "Readers of streams.", registry=self.registry)
        self.ledgers: Final = Gauge("tallystick_ledgers_open", "Ledgers that are open.", registry=self.registry)
        self.queue: Final = Gauge("tallystick_queue_depth", "Events in queues, not sealed yet.", registry=self.registry)
        self.behind: Final = Gauge(
            "tallystick_index_behind", "Records that the slowest index has not taken yet.", registry=self.registry
        )
        self.bodies: Final = Gauge("tallystick_bodies_bytes", "Of requests in memory.", registry=self.registry)
        self.answers: Final = Gauge("tallystick_answers_bytes", "Of answers in memory.", registry=self.registry)
        self.jobs: Final = Gauge("tallystick_jobs", "Jobs that wait or run.", registry=self.registry)
        self.findings: Final = Gauge(
            "tallystick_verify_findings", "Findings of the last verifications: raise the alarm.", registry=self.registry
        )
        self.verified: Final = Gauge(
            "tallystick_verify_age_seconds", "Since the oldest of the last verifications.", registry=self.registry
        )
        self.disk: Final = DiskMetrics(self.registry)


class Measured:
    """An application whose requests are counted and timed. `bare` are paths that no router knows, `endless` streams."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, *, bare: frozenset[str], endless: frozenset[str]) -> None:
        self._app: Final = app
        self._metrics: Final = metrics
        self._bare: Final = bare
        self._endless: Final = endless
        self._known: Final[dict[tuple[str, str, int], tuple[Any, Any]]] = {}
        """By method, route and status, as looking them up costs more than counting."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope["path"] in self._endless:
                    self._count(scope, status, began)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if status and scope["path"] not in self._endless:
                self._count(scope, status, began)

    def _count(self, scope: Scope, status: int, began: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else _UNKNOWN
        key = method, self._route_of(scope), status
        known = self._known.get(key)
        if known is None:
            counter = self._metrics.requests.labels(method, key[1], str(status))
            known = self._known[key] = counter, self._metrics.latency.labels(method, key[1])
        known[0].inc()
        known[1].observe(time.perf_counter() - began)

    def _route_of(self, scope: Scope) -> str:
        """The route's own path, so that there are as many labels as routes, whatever is asked for."""
        if scope["path"] in self._bare:
            return str(scope["path"])
        return str(getattr(scope.get("route"), "path", _UNKNOWN))


def of_tenant(values: MutableMapping[str, tuple[str, float]]) -> bytes:
    """A tenant's own figures, by name with what they are, as Prometheus reads them."""
    registry = CollectorRegistry()
    for name, (told, value) in values.items():
        Gauge(f"tallystick_{name}", told, registry=registry).set(value)
    return generate_latest(registry)
