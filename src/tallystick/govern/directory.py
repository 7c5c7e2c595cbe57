"""The directory of a deployment: its tenants, keys and plans, as the events of the system ledger say.

Every change is an event there, by whoever ordered it; this is their projection, held in memory and brought up to date
from the log. So who could do what in March is a query, and a directory that is lost comes back by reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from tallystick.core.event import Event
from tallystick.core.record import Record
from tallystick.errors import ConflictError, NotFoundError, RejectedError, TamperError
from tallystick.govern.access import Key, Scope, role_of
from tallystick.govern.plans import FREE, Plan
from tallystick.limits import PLANS_MAX, TENANT_NAME_CHARACTERS_MAX, TENANTS_MAX

TENANT_CREATED: Final = "tenant.created"
TENANT_SUSPENDED: Final = "tenant.suspended"
TENANT_RESUMED: Final = "tenant.resumed"
PLAN_DEFINED: Final = "plan.defined"
TENANT_PLANNED: Final = "tenant.planned"
KEY_CREATED: Final = "key.created"
KEY_REVOKED: Final = "key.revoked"
VERIFICATION_FAILED: Final = "verification.failed"
VERIFICATION_HELD: Final = "verification.held"

_NAME: Final = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{TENANT_NAME_CHARACTERS_MAX - 2}}}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant: its name is part of its ledger's."""

    name: str
    created_at: str
    suspended: bool = False
    plan: str | None = None
    """The name of its plan; None while it was given none."""

    @property
    def ledger(self) -> str:
        """The name of its ledger."""
        return f"tenant/{self.name}"

    @property
    def trail(self) -> str:
        """The name of its access trail's."""
        return trail_of(self.name)

    def to_json(self) -> dict[str, Any]:
        """As it is told of."""
        return {
            "name": self.name,
            "ledger": self.ledger,
            "created_at": self.created_at,
            "suspended": self.suspended,
            "plan": self.plan,
        }


def trail_of(tenant: str) -> str:
    """The name of the access trail of a tenant, by the tenant's name."""
    return f"access/{tenant}"


class Directory:
    """Tenants and keys up to `size` records of the system ledger. One thread changes it; many may ask."""

    def __init__(self) -> None:
        self.size = 0
        self.tenants: Final[dict[str, Tenant]] = {}
        self.keys: Final[dict[str, Key]] = {}
        self.plans: Final[dict[str, Plan]] = {}
        self.alarms: Final[dict[str, tuple[str, dict[str, Any]]]] = {}
        """Ledgers, by their own names, with findings that stand: when the alarm was raised, and what was found."""

    def follow(self, records: Iterable[Record]) -> None:
        """Take in the records from `size` on. Raises `TamperError` for one that nobody of ours wrote."""
        for record in records:
            try:
                self._take(record)
            except (RejectedError, NotFoundError, KeyError, TypeError, ValueError) as error:
                problem = f"the record at position {record.position} of the system ledger is none of ours: {error}"
                raise TamperError(problem) from error
            self.size = record.position + 1

    def tenant(self, name: str) -> Tenant:
        """Raises `NotFoundError`."""
        try:
            return self.tenants[name]
        except KeyError:
            raise NotFoundError(f"there is no tenant {name[:60]!r}") from None

    def plan(self, name: str) -> Plan:
        """Raises `NotFoundError`."""
        try:
            return self.plans[name]
        except KeyError:
            raise NotFoundError(f"there is no plan {name[:60]!r}") from None

    def plan_of(self, tenant: str) -> Plan:
        """The plan of a tenant, `FREE` where it was given none. Raises `NotFoundError`."""
        name = self.tenant(tenant).plan
        return FREE if name is None else self.plan(name)

    def key(self, key_id: str) -> Key:
        """Raises `NotFoundError`."""
        try:
            return self.keys[key_id]
        except KeyError:
            raise NotFoundError(f"there is no key {key_id[:60]!r}") from None

    def keys_of(self, tenant: str) -> list[Key]:
        """The keys in force of a tenant, oldest first."""
        return [key for key in list(self.keys.values()) if key.tenant == tenant]

    def _take(self, record: Record) -> None:
        members = record.members
        kind, said = members["event_type"], members["payload"]
        if kind == VERIFICATION_FAILED:
            self.alarms[said["ledger"]] = (record.recorded_at, said)
        elif kind == VERIFICATION_HELD:
            self.alarms.pop(said["ledger"], None)
        if kind == TENANT_CREATED:
            self.tenants[said["name"]] = Tenant(name=check_tenant(said["name"]), created_at=record.recorded_at)
        elif kind in (TENANT_SUSPENDED, TENANT_RESUMED):
            tenant = self.tenants[said["name"]]
            self.tenants[tenant.name] = replace(tenant, suspended=kind == TENANT_SUSPENDED)
        elif kind == PLAN_DEFINED:
            self.plans[said["name"]] = Plan(**said)
        elif kind == TENANT_PLANNED:
            tenant = self.tenants[said["name"]]
            self.tenants[tenant.name] = replace(
                tenant, plan=None if said["plan"] is None else self.plan(said["plan"]).name
            )
        elif kind == KEY_CREATED:
            self.keys[said["id"]] = Key(
                id=said["id"],
                digest=bytes.fromhex(said["digest"]),
                tenant=self.tenants[said["tenant"]].name,
                role=role_of(said["role"]),
                name=said["name"],
                scope=Scope.of(**said["scope"]),
                expires_at=said["expires_at"],
                created_at=record.recorded_at,
                operator=said["operator"] is True,
            )
        elif kind == KEY_REVOKED:
            self.keys.pop(said["id"], None)  # twice does no harm


def check_tenant(name: str) -> str:
    """A tenant's name: it is part of a folder's name and of a ledger's. Raises `RejectedError`."""
    if not _NAME.fullmatch(name):
        cure = f"use 1 to {TENANT_NAME_CHARACTERS_MAX} of a-z, 0-9 and -, beginning and ending with a letter or digit"
        raise RejectedError(f"{name[:70]!r} is not a tenant's name", place="name", cure=cure)
    return name


def tenant_created(directory: Directory, name: str, actor: dict[str, str]) -> Event:
    """The event that makes a tenant. Raises `RejectedError`, and `ConflictError` when there is one of that name."""
    check_tenant(name)
    if name in directory.tenants:
        raise ConflictError(f"there is a tenant {name} already")
    if len(directory.tenants) >= TENANTS_MAX:
        raise RejectedError(f"a deployment has at most {TENANTS_MAX:,} tenants", cure="begin another deployment")
    return Event(
        event_type=TENANT_CREATED,
        entity_id=f"tenant:{name}",
        actor=actor,
        payload={"name": name},
        expected_version="none",
    )


def key_created(key: Key, actor: dict[str, str], *, rotates: str | None = None) -> Event:
    """The event that makes a key."""
    payload = {
        "digest": key.digest.hex(),
        "expires_at": key.expires_at,
        "id": key.id,
        "name": key.name,
        "operator": key.operator,
        "role": key.role,
        "rotates": rotates,
        "scope": key.scope.to_json(),
        "tenant": key.tenant,
    }
    return Event(
        event_type=KEY_CREATED, entity_id=f"key:{key.id}", actor=actor, payload=payload, expected_version="none"
    )


def key_revoked(key: Key, actor: dict[str, str]) -> Event:
    """The event that ends a key."""
    return Event(
        event_type=KEY_REVOKED,
        entity_id=f"key:{key.id}",
        actor=actor,
        payload={"id": key.id, "tenant": key.tenant},
        expected_version=1,  # of two that end it at once, one does
    )


def tenant_changed(tenant: Tenant, actor: dict[str, str], *, suspended: bool) -> Event:
    """The event that stops a tenant's keys from working, or lets them work again."""
    kind = TENANT_SUSPENDED if suspended else TENANT_RESUMED
    return Event(event_type=kind, entity_id=f"tenant:{tenant.name}", actor=actor, payload={"name": tenant.name})


def plan_defined(directory: Directory, plan: Plan, actor: dict[str, str]) -> Event:
    """The event that defines a plan, or defines it anew. Raises `RejectedError` when there are too many."""
    if plan.name not in directory.plans and len(directory.plans) >= PLANS_MAX:
        raise RejectedError(f"a deployment has at most {PLANS_MAX:,} plans", cure="define one of them anew")
    return Event(event_type=PLAN_DEFINED, entity_id=f"plan:{plan.name}", actor=actor, payload=plan.to_json())


def tenant_planned(tenant: Tenant, plan: str | None, actor: dict[str, str]) -> Event:
    """The event that gives a tenant a plan, or takes it away."""
    payload = {"name": tenant.name, "plan": plan}
    return Event(event_type=TENANT_PLANNED, entity_id=f"tenant:{tenant.name}", actor=actor, payload=payload)
