"""What all routes share: the deployment, the lanes, who calls, and the trail of what they did."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tallystick.core.event import Event
from tallystick.deployment import Deployment
from tallystick.errors import DeniedError, TallystickError
from tallystick.govern.access import Permission
from tallystick.ledger import Ledger
from tallystick.serve.authentication import Authentication
from tallystick.serve.caller import Caller
from tallystick.serve.lanes import Lanes
from tallystick.serve.oidc import OidcSettings
from tallystick.serve.problems import PermissionDeniedError, UnknownCallerError
from tallystick.serve.streams import Streams
from tallystick.write.request import Submission

_WORKERS: Final = 8
_BEARER: Final = "bearer "
_log: Final = logging.getLogger("tallystick.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a service behaves."""

    record_reads: bool = False
    """Whether the access trail has reads, too; denials, exports and administration it always has."""
    oidc: OidcSettings | None = None
    """The issuer whose tokens are believed beside our own keys."""


class Metrics:
    """What is counted, without the names of tenants."""

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


class Service:
    """One service over one deployment."""

    def __init__(self, deployment: Deployment, settings: Settings | None = None) -> None:
        self.deployment: Final = deployment
        self.settings: Final = settings or Settings()
        self.metrics: Final = Metrics()
        self.authentication: Final = Authentication(deployment, self.settings.oidc)
        self._executor: Final = ThreadPoolExecutor(_WORKERS, thread_name_prefix="tallystick-lane")
        self.lanes: Final = Lanes(deployment.lease, self._executor)
        self.streams: Final = Streams(deployment.lease)

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
            method=scope["method"],
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

    @contextmanager
    def ledger_of(self, caller: Caller) -> Iterator[Ledger]:
        """The ledger of the caller's tenant."""
        with self.deployment.lease(caller.ledger) as ledger:
            yield ledger

    def record(self, caller: Caller, what: str, said: dict[str, Any]) -> None:
        """Put an act into the tenant's access trail. It is durable on return."""
        with self.deployment.lease(f"access/{caller.tenant}") as trail:
            trail.append(self.trace(caller, what, said))

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
        event = self.trace(error.caller, "denied", {"permission": error.permission})
        try:
            await self.lanes.submit(f"access/{error.caller.tenant}", Submission([event]))
        except TallystickError as problem:
            _log.error("a denial of %s could not be recorded: %s", error.caller.principal.entity, problem)

    def gauge(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.waiting.set(self.lanes.waiting)
        self.metrics.ledgers.set(self.deployment.open_ledgers)
        self.metrics.readers.set(self.streams.readers)

    def close(self) -> None:
        """Finish what is under way, then close all ledgers. From another thread than the loop's."""
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
