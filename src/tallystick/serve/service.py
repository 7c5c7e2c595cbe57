"""What all routes share: the deployment, the lanes, who calls, and the trail of what they did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tallystick.config import marks_folder
from tallystick.core.event import Event
from tallystick.deployment import Deployment
from tallystick.errors import DamagedError, DamagedIndexError, DeniedError, StoreError, TallystickError
from tallystick.govern.access import Permission
from tallystick.govern.directory import trail_of
from tallystick.ledger import Ledger
from tallystick.serve.authentication import Authentication
from tallystick.serve.budget import Budget
from tallystick.serve.caller import Caller
from tallystick.serve.denials import Denials
from tallystick.serve.disk import MEGABYTE, Disk, DiskMetrics, ReserveError
from tallystick.serve.jobs import Jobs
from tallystick.serve.lanes import Lanes
from tallystick.serve.peers import Peers
from tallystick.serve.problems import PermissionDeniedError, UnknownCallerError
from tallystick.serve.quotas import Quotas
from tallystick.serve.settings import Settings
from tallystick.serve.streams import Streams
from tallystick.serve.watch import Watch
from tallystick.serve.witnessing import Witnessing, read_policy
from tallystick.write.request import Submission

_WORKERS: Final = 8
_BEARER: Final = "bearer "
_log: Final = logging.getLogger("tallystick.serve")

_T = TypeVar("_T")


class Metrics:
    """What is counted. Names of tenants are in it: only operators read it."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
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
        self.waiting: Final = Gauge("tallystick_events_waiting", "Events about to be sealed.", registry=self.registry)
        self.readers: Final = Gauge("tallystick_stream_readers", "Readers of streams.", registry=self.registry)
        self.ledgers: Final = Gauge("tallystick_ledgers_open", "Ledgers that are open.", registry=self.registry)
        self.queue: Final = Gauge("tallystick_queue_depth", "Events in queues, not sealed yet.", registry=self.registry)
        self.behind: Final = Gauge(
            "tallystick_index_behind", "Records that the slowest index has not taken yet.", registry=self.registry
        )
        self.stalled: Final = Histogram(
            "tallystick_loop_delay_seconds",
            "How much later than it should the event loop did something: everybody waits so long.",
            registry=self.registry,
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
        )
        self.bodies: Final = Gauge(
            "tallystick_bodies_bytes", "Bytes of requests that are in memory.", registry=self.registry
        )
        self.jobs: Final = Gauge("tallystick_jobs", "Jobs that wait or run.", registry=self.registry)
        self.findings: Final = Gauge(
            "tallystick_verify_findings", "Findings of the last verifications: raise the alarm.", registry=self.registry
        )
        self.verified: Final = Gauge(
            "tallystick_verify_age_seconds", "Since the oldest of the last verifications.", registry=self.registry
        )
        self.disk: Final = DiskMetrics(self.registry)


class Service:
    """One service over one deployment."""

    def __init__(self, deployment: Deployment, settings: Settings | None = None, peers: Peers | None = None) -> None:
        """With `peers` it is one of several processes that answer for the deployment."""
        self.peers: Final = peers
        self.deployment: Final = deployment
        self.settings: Final = settings or Settings()
        self.metrics: Final = Metrics()
        self.authentication: Final = Authentication(deployment, self.settings.oidc)
        self._executor: Final = ThreadPoolExecutor(_WORKERS, thread_name_prefix="tallystick-lane")
        self.lanes: Final = Lanes(deployment.lease, self._executor)
        self.streams: Final = Streams(deployment.lease, ledgers_max=max(1, deployment.open_max // 2))
        self.quotas: Final = Quotas(deployment)
        self.budget: Final = Budget()
        self.disk: Final = self._disk()
        deployment.pool.keeps_idle = lambda: self.disk.problem() is not None
        self._denials: Final = Denials()
        self.jobs: Final = Jobs(
            deployment.folder / "jobs",
            clock=deployment.clock,
            # By the system ledger that is open then: it may have been opened again.
            authenticate=lambda data: deployment.system.authenticate("job", data),
        )
        self.watch: Final = Watch(deployment, every_seconds=self.settings.verify_hours * 3_600, is_ours=self.writes)
        self.witnessing: Final = self._witnessing()

    def _witnessing(self) -> Witnessing | None:
        trust = self.settings.witness_trust
        if trust is None:
            return None
        policy, every = read_policy(trust), self.settings.witness_seconds
        return Witnessing(self.deployment, self.watch, policy=policy, every_seconds=every, names=self.watch.names)

    def _disk(self) -> Disk:
        folder, settings = self.deployment.folder, self.settings
        marks = marks_folder(settings.marks, Path(settings.keys or folder / "keys"))
        return Disk(
            folder,
            marks or folder,
            reserve_bytes=settings.reserve_megabytes * MEGABYTE,
            large_bytes=settings.disk_free_megabytes * MEGABYTE,
        )

    def begin(self) -> None:
        """Begin what goes on beside requests."""
        self.watch.begin()
        if self.witnessing is not None:
            self.witnessing.begin()

    async def settle(self, scope: MutableMapping[str, Any]) -> None:
        """Have what it takes to tell who sends a request, so that `caller_of` does not wait. Never raises."""
        text = _bearer(_authorizations(scope))
        if text is not None:
            await self.authentication.settle(text)

    def caller_of(self, scope: MutableMapping[str, Any]) -> Caller:
        """Who sends a request. Raises `UnknownCallerError`, also for more than one key, of which none is believed.

        Raises `BusyError` for a token when the keys of its issuer are not there yet.
        """
        found = _authorizations(scope)
        if len(found) > 1:
            raise UnknownCallerError("the request has more than one key: send one")
        client = scope.get("client")
        return self.call(
            found[0] if found else None,
            address=client[0] if client else None,
            method=scope.get("method", "GET"),  # a WebSocket has none
            path=scope["path"],
        )

    def call(self, authorization: str | None, *, address: str | None, method: str, path: str) -> Caller:
        """Who sends these. Raises as `caller_of` does."""
        text = _bearer([] if authorization is None else [authorization])
        if text is None:
            raise UnknownCallerError("the request has no key: send Authorization: Bearer ts_...")
        try:
            principal = self.authentication.principal(text, address=address)
        except DeniedError as error:
            raise UnknownCallerError(str(error)) from None
        return Caller(principal, method, path)

    def permit(self, caller: Caller, permission: Permission, *, whole: bool = False) -> None:
        """Raises `PermissionDeniedError`: the role has it not, or for what needs all records its scope."""
        if not caller.principal.may(permission):
            raise PermissionDeniedError(permission, caller)
        if whole and not caller.principal.scope.is_whole:
            why = "this key is for some event types or entities only, and this answer is about all records"
            raise PermissionDeniedError(permission, caller, why)

    def is_in_force(self, caller: Caller) -> bool:
        """Whether the key or token with which somebody came still counts."""
        return self.deployment.is_in_force(caller.principal)

    def check_reserve(self) -> None:
        """Raises `ReserveError` when the disk has no room for events."""
        try:
            self.disk.check_reserve()
        except ReserveError:
            self.metrics.disk.refused.inc()
            raise

    def writes(self, tenant: str) -> bool:
        """Whether this is the process that writes the ledger of a tenant."""
        return self.peers is None or self.peers.owner(tenant) == self.peers.index

    @contextmanager
    def ledger_of(self, caller: Caller) -> Iterator[Ledger]:
        """The ledger of the caller's tenant."""
        with self.deployment.lease(caller.ledger) as ledger:
            yield ledger

    def long_work(self, caller: Caller, work: Callable[[Ledger], _T]) -> _T:
        """What `work` makes of the ledger of the caller's tenant.

        A ledger is closed beneath its users when its index turns out to be damaged. The one that is opened next has a
        new index: there the work is done once more, from its beginning.
        """
        ledger: Ledger | None = None
        try:
            with self.ledger_of(caller) as ledger:
                return work(ledger)
        except StoreError as error:
            was_closed = ledger is not None and self.deployment.pool.opened(caller.ledger) is not ledger
            if not isinstance(error, DamagedIndexError) and (isinstance(error, DamagedError) or not was_closed):
                raise
            _log.warning("work on %s begins again: %s", caller.ledger, error)
        with self.ledger_of(caller) as ledger:
            return work(ledger)

    def record(self, caller: Caller, what: str, said: dict[str, Any], *, on: str | None = None) -> None:
        """Put an act into the access trail of the caller's tenant, and if it was `on` another, into that one's, too.

        It is durable on return.
        """
        for tenant in dict.fromkeys((caller.tenant, on or caller.tenant)):
            with self.deployment.lease(trail_of(tenant)) as trail:
                trail.append(self.trace(caller, what, said))

    def check_trail(self, caller: Caller) -> None:
        """Have the caller's access trail open before something is done that goes into it. Raises as opening does."""
        with self.deployment.lease(trail_of(caller.tenant)):
            pass

    @staticmethod
    def trace(caller: Caller, what: str, said: dict[str, Any]) -> Event:
        """The event of an act."""
        return Event(
            event_type=f"access.{what}",
            entity_id=caller.principal.entity,
            actor=caller.principal.actor,
            payload={"method": caller.method, "path": caller.path[:512], "role": caller.principal.role, **said},
        )

    async def denied(self, error: PermissionDeniedError) -> None:
        """Count a denial and put it into the trail. That it could not be put there is told in the diagnostics."""
        self.metrics.denied.labels(error.permission).inc()
        skipped = self._denials.take(f"{error.caller.tenant} {error.caller.principal.entity}")
        if skipped is None:
            return
        said = {"permission": error.permission, **({"not_recorded_before": skipped} if skipped else {})}
        event = self.trace(error.caller, "denied", said)
        try:
            await self.lanes.submit(trail_of(error.caller.tenant), Submission([event]))
        except TallystickError as problem:
            _log.error("a denial of %s could not be recorded: %s", error.caller.principal.entity, problem)

    def gauge(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.waiting.set(self.lanes.waiting)
        self.metrics.bodies.set(self.budget.used)
        self.metrics.ledgers.set(self.deployment.open_ledgers)
        self.metrics.readers.set(self.streams.readers)
        self.metrics.used.clear()
        for tenant, used in self.quotas.used.items():
            self.metrics.used.labels(tenant).set(used)
        pulses = self.deployment.pulses()
        self.metrics.queue.set(sum(pulse.queue.depth for pulse in pulses if pulse.queue is not None))
        self.metrics.behind.set(max((pulse.index_behind for pulse in pulses), default=0))
        self.metrics.jobs.set(self.jobs.live)
        with suppress(OSError):  # readiness says so
            self.metrics.disk.free.set(self.disk.free_bytes)
        self.metrics.findings.set(self.watch.findings)
        self.metrics.verified.set(self.watch.oldest_seconds)

    def close(self) -> None:
        """Finish what is under way, then close all ledgers. From another thread than the loop's."""
        if self.witnessing is not None:
            self.witnessing.close()
        self.watch.close()
        self.jobs.close()
        self.streams.wait()
        self._executor.shutdown(wait=True)
        self.deployment.close()


def _authorizations(scope: MutableMapping[str, Any]) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]


def _bearer(authorizations: Sequence[str]) -> str | None:
    """The key or token in the one header that there is."""
    if len(authorizations) != 1 or authorizations[0][: len(_BEARER)].lower() != _BEARER:
        return None
    return authorizations[0][len(_BEARER) :].strip()


def receipts(sealed: Sequence[Any]) -> list[dict[str, Any]]:
    """Receipts as they are answered."""
    return [
        {
            "id": one.id,
            "position": one.position,
            "recorded_at": one.recorded_at,
            "entity_id": one.entity_id,
            "entity_version": one.entity_version,
            "hash": one.hash.hex(),
            "replayed": one.replayed,
            **({"breach": one.breach} if one.breach else {}),
        }
        for one in sealed
    ]
