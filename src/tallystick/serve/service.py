"""What all routes share: the deployment, the lanes, who calls, and the trail of what they did."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from tallystick.config import marks_folder
from tallystick.core.event import Event
from tallystick.deployment import Deployment
from tallystick.errors import (
    DamagedError,
    DamagedIndexError,
    DeniedError,
    StoreError,
    TallystickError,
    family_of,
)
from tallystick.govern.access import ForbiddenNetworkError, Permission
from tallystick.govern.directory import trail_of
from tallystick.ledger import Ledger
from tallystick.limits import ANSWERS_BYTES_MAX, TENANT_ANSWERS_BYTES_MAX
from tallystick.serve.authentication import Authentication
from tallystick.serve.budget import Budget
from tallystick.serve.caller import Caller, Origin
from tallystick.serve.denials import Denials
from tallystick.serve.disk import MEGABYTE, Disk, ReserveError
from tallystick.serve.jobs import Jobs
from tallystick.serve.lanes import Lanes
from tallystick.serve.metrics import Metrics
from tallystick.serve.peers import Peers
from tallystick.serve.problems import PermissionDeniedError, StrayKeyError, UnknownCallerError, is_fault
from tallystick.serve.protocol import REQUEST_ID
from tallystick.serve.quotas import Quotas, usage
from tallystick.serve.settings import Settings
from tallystick.serve.streams import Streams
from tallystick.serve.watch import Watch
from tallystick.serve.witnessing import Witnessing, read_policy
from tallystick.write.request import Submission

_WORKERS: Final = 8
_BEARER: Final = "bearer "
_PROOF_BYTES: Final = 16
_RECENT_SECONDS: Final = 60.0
_FAULTS_KEPT: Final = 1_000
_AGENT_CHARACTERS_MAX: Final = 256
_log: Final = logging.getLogger("tallystick.serve")

_T = TypeVar("_T")


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
        self.answers: Final = Budget(ANSWERS_BYTES_MAX, tenant_most=TENANT_ANSWERS_BYTES_MAX)
        self.faults: Final[deque[float]] = deque(maxlen=_FAULTS_KEPT)
        """When the last ones were."""
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
        text = _bearer(found)
        if text is None:
            raise UnknownCallerError("the request has no key: send Authorization: Bearer ts_...")
        method = scope.get("method", "GET")  # a WebSocket has none
        client = scope.get("client")
        address = client[0] if client else None
        try:
            principal = self.authentication.principal(text, address=address)
        except ForbiddenNetworkError as error:
            caller = Caller(error.key, method, scope["path"], _origin_of(scope, address))
            raise StrayKeyError(str(error), caller) from None
        except DeniedError as error:
            raise UnknownCallerError(str(error)) from None
        return Caller(principal, method, scope["path"], _origin_of(scope, address))

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

    def prove_ticket(self, caller: Caller, ticket: str) -> str:
        """What shows that somebody got this ticket here, 32 hex digits."""
        data = f"{caller.tenant}\0{ticket}".encode()
        return self.deployment.system.authenticate("ticket", data)[:_PROOF_BYTES].hex()

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
            payload={
                "method": caller.method,
                "path": caller.path[:512],
                "role": caller.principal.role,
                **caller.origin.to_json(),
                **said,
            },
        )

    async def note(self, error: Exception) -> None:
        """Have known what is answered with an error: a fault of ours is logged and counted, and a denial of somebody
        who is known is counted and put into the trail. That it could not be put there is told in the diagnostics.
        """
        if isinstance(error, TallystickError) and is_fault(error):
            self.note_fault(error)
        if isinstance(error, PermissionDeniedError):
            why = {"permission": error.permission}
        elif isinstance(error, StrayKeyError):
            why = {"reason": "the key is not for the address that it came from"}
        else:
            return
        self.metrics.denied.labels(why.get("permission", "network")).inc()
        skipped = self._denials.take(f"{error.caller.tenant} {error.caller.principal.entity}")
        if skipped is None:
            return
        event = self.trace(error.caller, "denied", {**why, **({"not_recorded_before": skipped} if skipped else {})})
        try:
            await self.lanes.submit(trail_of(error.caller.tenant), Submission([event]))
        except TallystickError as problem:
            _log.error("a denial of %s could not be recorded: %s", error.caller.principal.entity, problem)

    def note_fault(self, error: Exception) -> None:
        """Log and count what is a fault of ours."""
        if not isinstance(error, TallystickError):
            kind = "mistake"  # of which the log has the traceback
        else:
            kind = "set-up" if error.for_operators else family_of(error)
            _log.error("a request failed (%s): %s", kind, error)
        self.metrics.http.faults.labels(kind).inc()
        if kind not in ("tamper", "damaged"):  # which readiness tells of by the findings of verifications
            self.faults.append(time.monotonic())

    def recent_faults(self) -> int:
        """How many there were within a minute."""
        after = time.monotonic() - _RECENT_SECONDS
        return sum(at > after for at in [*self.faults])

    def gauge(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.waiting.set(self.lanes.waiting)
        self.metrics.bodies.set(self.budget.used)
        self.metrics.answers.set(self.answers.used)
        self.metrics.ledgers.set(len(self.deployment.pool))
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

    def figures_of(self, caller: Caller) -> dict[str, tuple[str, float]]:
        """How the ledger of the caller's tenant stands, by name with what it is."""
        used = usage(self.deployment, caller.tenant)
        seen = self.watch.of(caller.ledger)
        with self.ledger_of(caller) as ledger:
            pulse, stats = ledger.pulse(), ledger.queue.stats()
        return {
            "records": ("Records of the ledger.", pulse.size),
            "log_bytes": ("Bytes that the log takes.", used["log_bytes"]),
            "events_used": ("Events of this month, as the plan counts them.", used["events"]["used"]),
            "queue_depth": ("Events in the queue, not sealed yet.", stats.depth),
            "queue_oldest_seconds": ("How long the oldest event in the queue waits.", stats.oldest_seconds),
            "index_behind": ("Records that the index has not taken yet.", pulse.index_behind),
            "verify_findings": (
                "Findings of the last verification: raise the alarm.",
                0 if seen is None else seen.count,
            ),
        }

    def close(self) -> None:
        """Finish what is under way, then close all ledgers. From another thread than the loop's."""
        if self.witnessing is not None:
            self.witnessing.close()
        self.watch.close()
        self.jobs.close()
        self.streams.wait()
        self._executor.shutdown(wait=True)
        self.deployment.close()


def _origin_of(scope: MutableMapping[str, Any], address: str | None) -> Origin:
    """Where a request comes from. What it says of itself is cut short, as it goes into every event about it."""
    agent = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
    told = scope.get("state", {}).get(REQUEST_ID, "")
    return Origin(address, agent[:_AGENT_CHARACTERS_MAX].decode("latin-1"), told)


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
