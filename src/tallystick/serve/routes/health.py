"""Whether the service is well: for whoever restarts it, for whoever sends it requests, and for Prometheus."""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tallystick.errors import TallystickError
from tallystick.serve.calls import Scraping
from tallystick.serve.disk import MEGABYTE
from tallystick.serve.metrics import of_tenant
from tallystick.serve.peers import PRIVATE
from tallystick.serve.service import Service

router: Final = APIRouter(tags=["health"])

HEALTH: Final = "/health/"
"""Where who looks after the service asks, whether or not it has much to do."""

TenantName = Annotated[str, Query(max_length=256, description="Whether events of this tenant are taken.")]

_log: Final = logging.getLogger("tallystick.serve")

_OWN_THREADS: Final = ThreadPoolExecutor(2, "ready")
"""Those of the routes may all be at work: whoever asks for readiness, and ends what does not answer, does not wait for
them."""

_BEHIND_MAX: Final = 1_000_000
"""Records that an index may be behind: reads wait for it, about ten seconds then."""

_LARGEST: Final = (
    "tallystick_disk_free_bytes",
    "tallystick_index_behind",
    "tallystick_verify_findings",
    "tallystick_verify_age_seconds",
    "process_start_time_seconds",
    "process_max_fds",
    "python_info",
)
"""Gauges that each process has of the same thing, or of which the worst counts."""


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "live"}


@router.get("/health/ready")
async def ready(request: Request, tenant: TenantName = "") -> Response:
    """Whether events are taken, and how disk, queues, indexes and the last verifications stand.

    503 and `not ready` when events cannot be taken: the disk has only its reserve left, the system ledger cannot be
    read, or every tenant's ledger was rolled back, forked or damaged; with `tenant`, when that one's was. `degraded` is
    returned with 200: something needs attention, and events are taken.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_OWN_THREADS, _ready, request.app.state.service, tenant)


def _ready(service: Service, tenant: str) -> Response:
    checks = {"system": _system(service), "disk": _disk(service), **_ledgers(service), **_witnesses(service)}
    checks["verification"] = _watch(service)
    recent, failing = service.recent_faults(), len(service.lanes.failing)
    checks["faults"] = {"ok": not recent and not failing, "recent": recent, "failing": failing}
    is_ready = all(checks[name]["ok"] for name in ("system", "disk")) and not _is_stopped(service, tenant)
    is_well = all(check["ok"] for check in checks.values())
    status = "not ready" if not is_ready else "ready" if is_well else "degraded"
    said = orjson.dumps({"status": status, "checks": checks})
    return Response(said, 200 if is_ready else 503, media_type="application/json")


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(call: Scraping, request: Request) -> Response:
    """What is counted, as Prometheus reads it: for an operators' key of the whole service, else of the own tenant."""
    if not call.caller.principal.operator:
        return Response(of_tenant(call.service.figures_of(call.caller)), media_type=CONTENT_TYPE_LATEST)
    call.service.gauge()
    told = generate_latest(call.service.metrics.registry)
    peers = call.service.peers
    if peers is not None and not request.scope.get("state", {}).get(PRIVATE):
        headers = [pair for pair in request.headers.raw if pair[0] == b"authorization"]
        told = added_up([told, *peers.others("/metrics", headers)])
    return Response(told, media_type=CONTENT_TYPE_LATEST)


def added_up(told: Sequence[bytes]) -> bytes:
    """What several processes count, as one: sums, and of some gauges the largest."""
    families: dict[str, Any] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (one for text in told for one in text_string_to_metric_families(text.decode())):
        families.setdefault(family.name, family)
        known = values.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, tuple(sample.labels.items()))
            before = known.get(key)
            join = max if family.name in _LARGEST or sample.name.endswith("_created") else operator.add
            known[key] = sample.value if before is None else join(before, sample.value)
    registry = CollectorRegistry()
    registry.register(_Joined(families, values))
    return generate_latest(registry)


class _Joined(Collector):
    def __init__(self, families: dict[str, Any], values: dict[str, dict[Any, float]]) -> None:
        self._families, self._values = families, values

    def collect(self) -> Iterator[Metric]:
        for name, family in self._families.items():
            joined = Metric(name, family.documentation, family.type)
            for (sample, labels), value in self._values[name].items():
                joined.add_sample(sample, dict(labels), value)
            yield joined


def _system(service: Service) -> dict[str, Any]:
    try:
        service.deployment.tenants()
    except TallystickError as error:
        _log.error("the system ledger cannot be read: %s", error)
        return {"ok": False, "why": "the system ledger cannot be read: see the diagnostics"}
    return {"ok": True}


def _disk(service: Service) -> dict[str, Any]:
    try:
        free = service.disk.free_bytes // MEGABYTE
    except OSError as error:
        return {"ok": False, "why": error.strerror or str(error)}
    problem = service.disk.problem()
    said = {"free_megabytes": free, "reserve_megabytes": service.settings.reserve_megabytes}
    return {"ok": problem is None, **said, **({} if problem is None else {"why": f"{problem}: no events are taken"})}


def _ledgers(service: Service) -> dict[str, dict[str, Any]]:
    """Of the ledgers that are open: what waits in queues, and how far the slowest index is behind."""
    try:
        pulses = service.deployment.pulses()
    except TallystickError as error:
        _log.error("the ledgers that are open cannot be asked: %s", error)
        return {"queue": {"ok": False, "why": "the ledgers cannot be asked: see the diagnostics"}}
    queues = [pulse.queue for pulse in pulses if pulse.queue is not None]
    stuck = sum(queue.problem is not None for queue in queues)
    behind = max((pulse.index_behind for pulse in pulses), default=0)
    failing = sum(pulse.mark_failing for pulse in pulses)
    rebuilt = sum(pulse.sealing_rebuilt for pulse in pulses)
    return {
        "marks": {"ok": not failing, "failing": failing},
        "queue": {"ok": not stuck, "depth": sum(queue.depth for queue in queues), "stuck": stuck},
        "index": {"ok": behind <= _BEHIND_MAX, "behind": behind},
        "sealing": {"ok": not rebuilt, "rebuilt": rebuilt},
    }


def _witnesses(service: Service) -> dict[str, dict[str, Any]]:
    """For how many ledgers a witness did not answer, where any is asked."""
    if service.witnessing is None:
        return {}
    unanswered = len(service.witnessing.unanswered)
    return {"witnesses": {"ok": not unanswered, "unanswered": unanswered}}


def _is_stopped(service: Service, tenant: str) -> bool:
    """Whether the events of a tenant are refused, as its ledger is damaged or not the newest; "" is all of them.

    One tenant's damage is no reason to send nobody's requests here any more. Of a tenant that is not there nothing is
    said: the answer is that of all.
    """
    try:
        stopped = service.watch.stopped_ledgers | service.lanes.failing
        if not stopped:
            return False
        tenants = [one for one in service.deployment.tenants() if not one.suspended]
    except TallystickError:
        return True  # the system ledger cannot be read
    asked = [one for one in tenants if one.name == tenant] or tenants
    return "system" in stopped or all({one.ledger, one.trail} & stopped for one in asked)


def _watch(service: Service) -> dict[str, Any]:
    try:
        seen, stopped = service.watch.all.values(), service.watch.stopped
    except TallystickError as error:
        _log.error("what verifications found cannot be read: %s", error)
        return {"ok": False, "why": "the last verifications cannot be read: see the diagnostics"}
    findings = sum(one.count for one in seen)
    altered = service.watch.was_altered
    said: dict[str, Any] = {"ok": not findings and not altered, "findings": findings, "altered": altered}
    said["last"] = max((one.at for one in seen), default=None)
    return said | ({"stopped": stopped, "why": "a ledger takes no events: see the alarms"} if stopped else {})
