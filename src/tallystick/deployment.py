"""A deployment: many ledgers under one folder, one for each tenant, and the system ledger that says who there is.

    folder/system/            the system ledger: tenants and keys, as events
    folder/tenants/<name>/    the ledger of a tenant
    folder/access/<name>/     its access trail: who was denied what, who ordered what, and if so configured who read
    folder/keys/              the keys of each, or in a folder of their own

Ledgers are opened when they are needed, never more than a bound at once, and closed when nobody has used them for a
while. Several processes may have one deployment open: what one of them orders, the others know `FRESH_SECONDS` later.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tallystick.clock import Clock, wall_clock
from tallystick.core.event import Event
from tallystick.errors import ConflictError, DamagedError, DeniedError, RejectedError, TallystickError, TamperError
from tallystick.govern.access import (
    NO_KEY,
    OPERATORS_ROLES,
    UNKNOWN,
    Before,
    ForbiddenNetworkError,
    Key,
    Principal,
    Scope,
    check_role,
    id_of,
    new_key,
    new_secret,
    nothing_before,
)
from tallystick.govern.directory import (
    Directory,
    Tenant,
    key_created,
    key_revoked,
    plan_defined,
    tenant_changed,
    tenant_created,
    tenant_planned,
)
from tallystick.govern.plans import Plan
from tallystick.leases import Ledgers, drain
from tallystick.ledger import Ledger
from tallystick.limits import LEDGERS_OPEN_MAX
from tallystick.opening import open_own_ledger
from tallystick.plain_file import check_folder
from tallystick.queueing import Pulse
from tallystick.system_ledger import SystemLedger
from tallystick.write.queue import FOLDER as QUEUE_FOLDER

DEFAULT_TENANT: Final = "default"
FRESH_SECONDS: Final = 0.02
"""How old the directory may be when it is asked: asking the log each time would cost as much as an append."""
IDLE_SECONDS: Final = 300.0

_SYSTEM: Final = "system"
_log: Final = logging.getLogger("tallystick.deployment")
_ITSELF: Final = {"id": "tallystick", "type": "system"}


class Deployment:
    """Tenants, their keys and their ledgers. Safe for many threads. A context manager: leaving it closes all ledgers.

    `name` is the first part of the origins of new ledgers; `keys` the folder of the signing keys; `marks` that of the
    head marks, by default `heads` in the keys of each ledger. `keys_group_readable` is that of `tallystick.open`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        keys: str | os.PathLike[str] | None = None,
        keys_group_readable: bool | None = None,
        marks: str | os.PathLike[str] | None = None,
        clock: Clock = wall_clock,
        open_max: int = LEDGERS_OPEN_MAX,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """Open the deployment of a folder; make it if it is not there. Raises as `tallystick.open` does."""
        self.folder: Final = Path(folder)
        self._keys: Final = Path(keys) if keys is not None else self.folder / "keys"
        self._given: Final = dict[str, Any](deployment=name, marks=marks, keys_group_readable=keys_group_readable)
        self.clock: Final = clock
        self.open_max: Final = open_max
        self._changing: Final = threading.Lock()
        self._following: Final = threading.Lock()
        self._read_of: Ledger | None = None
        self._directory = Directory()
        self._asked_at = float("-inf")
        self.pool: Final = Ledgers(self._open, open_max=open_max, idle_seconds=idle_seconds)
        self._system: Final = SystemLedger(lambda: self._open(_SYSTEM), self._folder_of(_SYSTEM))

    # ------------------------------------------------------------------------------------------ who there is

    def begin(self) -> str | None:
        """In a new deployment make the tenant `default` and its operators' first key, whose text it gives.

        None when there are tenants already; also when another process is about to be first.
        """
        with self._changing:
            directory = self.directory()
            if directory.tenants:
                return None
            tenant = tenant_created(directory, DEFAULT_TENANT, _ITSELF)
            given = {"role": "Admin", "name": "the first key", "scope": Scope(), "expires_at": None, "operator": True}
            key, text = new_key(DEFAULT_TENANT, now=self.clock(), **given)
            try:
                self._order([tenant, key_created(key, _ITSELF)])
            except ConflictError:
                return None
        return text

    def operators_key(self) -> str:
        """Make another operators' key, of the tenant `default`, for whoever may write the folder; its text."""
        first = self.begin()
        if first is not None:
            return first
        name = "made on the machine"
        return self.create_key(DEFAULT_TENANT, role="Admin", name=name, actor=_ITSELF, operator=True)[1]

    def tenants(self) -> list[Tenant]:
        """All of them, by name."""
        directory = self.directory()
        return [tenant for _, tenant in sorted(directory.tenants.items())]

    def tenant(self, name: str) -> Tenant:
        """One. Raises `NotFoundError`."""
        return self.directory().tenant(name)

    def create_tenant(self, name: str, *, actor: dict[str, str]) -> Tenant:
        """Make a tenant; its ledger begins when it is first used. Raises `RejectedError` and `ConflictError`."""
        with self._changing:
            self._order([tenant_created(self.directory(), name, actor)])
            return self._directory.tenant(name)

    def suspend_tenant(self, name: str, *, actor: dict[str, str], suspended: bool = True) -> Tenant:
        """Have a tenant's keys not work any more, or work again. Its records stay. Raises `NotFoundError`."""
        with self._changing:
            tenant = self.directory().tenant(name)
            if tenant.suspended != suspended:
                self._order([tenant_changed(tenant, actor, suspended=suspended)])
            return self._directory.tenant(name)

    def plans(self) -> list[Plan]:
        """All of them, by name."""
        return [plan for _, plan in sorted(self.directory().plans.items())]

    def plan_of(self, tenant: str) -> Plan:
        """The plan of a tenant. Raises `NotFoundError`."""
        return self.directory().plan_of(tenant)

    def define_plan(self, plan: Plan, *, actor: dict[str, str]) -> None:
        """Define a plan, or define it anew for all who have it, their records' retention included.

        Raises `RejectedError`.
        """
        with self._changing:
            directory = self.directory()
            if directory.plans.get(plan.name) != plan:
                self._order([plan_defined(directory, plan, actor)])
            having = [tenant for tenant in directory.tenants.values() if tenant.plan == plan.name]
        for tenant in having if plan.retention is not None else ():
            self._shorten(tenant, plan, actor)

    def give_plan(self, tenant: str, plan: str | None, *, actor: dict[str, str]) -> Tenant:
        """Give a tenant a plan; with None it has none any more. Raises `NotFoundError`.

        A plan with a retention sets that for the tenant's ledger, where records were to be kept longer.
        """
        with self._changing:
            directory = self.directory()
            found = directory.tenant(tenant)
            given = None if plan is None else directory.plan(plan)
            if found.plan != plan:
                self._order([tenant_planned(found, plan, actor)])
        if given is not None and given.retention is not None:
            self._shorten(found, given, actor)
        return self.tenant(tenant)

    def keys(self, tenant: str) -> list[Key]:
        """The keys in force of a tenant, oldest first. Raises `NotFoundError`."""
        directory = self.directory()
        directory.tenant(tenant)
        return directory.keys_of(tenant)

    def key(self, key_id: str) -> Key:
        """One key in force. Raises `NotFoundError`."""
        return self.directory().key(key_id)

    def create_key(
        self,
        tenant: str,
        *,
        role: str,
        name: str,
        actor: dict[str, str],
        scope: Scope | None = None,
        expires_at: str | None = None,
        operator: bool = False,
        before: Before = nothing_before,
    ) -> tuple[Key, str]:
        """Make a key, which `before` sees first; it, and its text. Raises `RejectedError` and `NotFoundError`."""
        with self._changing:
            self.directory().tenant(tenant)
            if operator and check_role(role) not in OPERATORS_ROLES:
                cure = f"make it one of {' or '.join(OPERATORS_ROLES)}, or no operator's"
                raise RejectedError(f"an operators' key is no {role}", place="operator", cure=cure)
            if operator and scope is not None and not scope.is_whole:
                cure = "make it without event_types and entity_prefixes, or no operator's"
                raise RejectedError("an operators' key is for all there is", place="operator", cure=cure)
            given = {"name": name, "scope": scope or Scope(), "expires_at": expires_at, "operator": operator}
            key, text = new_key(tenant, now=self.clock(), role=role, **given)
            before(key)
            self._order([key_created(key, actor)])
            return self._directory.key(key.id), text

    def rotate_key(self, key_id: str, *, actor: dict[str, str], before: Before = nothing_before) -> tuple[Key, str]:
        """Make a key that may do the same in place of one that ends at once. Raises `NotFoundError`."""
        with self._changing:
            old = self.directory().key(key_id)
            new_id, text, digest = new_secret()
            new = replace(old, id=new_id, digest=digest)
            before(new)
            self._order([key_created(new, actor, rotates=old.id), key_revoked(old, actor)])
            return self._directory.key(new.id), text

    def revoke_key(self, key_id: str, *, actor: dict[str, str]) -> None:
        """End a key at once. Raises `NotFoundError`, and `ConflictError` for the operators' last."""
        with self._changing:
            key = self.directory().key(key_id)
            others = [one for one in list(self._directory.keys.values()) if one.may("ManageTenants")]
            if others == [key]:
                raise ConflictError("it is the operators' last key: make another one first")
            self._order([key_revoked(key, actor)])

    def authenticate(self, text: str, *, address: str | None = None) -> Key:
        """The key of a text. Raises `DeniedError`, in the same words and time for every reason, the address last."""
        directory = self.directory()
        key = directory.keys.get(id_of(text) or "", NO_KEY)
        holds = key.holds(text, clock=self.clock)
        if not holds or directory.tenants[key.tenant].suspended:
            raise DeniedError(UNKNOWN)
        if not key.scope.admits(address):
            raise ForbiddenNetworkError(key)
        return key

    def is_in_force(self, principal: Principal) -> bool:
        """Whether a key that was authenticated, or a user whose token was, still counts, and so does their tenant."""
        directory = self.directory()
        tenant = directory.tenants.get(principal.tenant)
        if tenant is None or tenant.suspended or principal.is_over(self.clock):
            return False
        return not isinstance(principal, Key) or principal.id in directory.keys

    # ------------------------------------------------------------------------------------------- their ledgers

    @contextmanager
    def ledger(self, tenant: str) -> Iterator[Ledger]:
        """The ledger of a tenant, made if it is not there yet, and not closed while it is used.

        Raises `NotFoundError`, and `BusyError` when too many are in use.
        """
        with self.lease(self.tenant(tenant).ledger) as ledger:
            yield ledger

    @contextmanager
    def trail(self, tenant: str) -> Iterator[Ledger]:
        """The access trail of a tenant, likewise."""
        with self.lease(self.tenant(tenant).trail) as ledger:
            yield ledger

    @contextmanager
    def lease(self, name: str, *, at_once: bool = False) -> Iterator[Ledger]:
        """A ledger by its own name, likewise; the caller knows that it may be.

        `at_once` only if it is open already, else `BusyError`.
        """
        if name == _SYSTEM:
            with self._system.used() as system:
                yield system
            return
        with self.pool.lease(name, at_once=at_once) as ledger:
            yield ledger

    def is_there(self, name: str) -> bool:
        """Whether a ledger, by its own name, was begun; to lease it would begin it."""
        return self._folder_of(name).exists()

    def note(self, event_type: str, entity_id: str, payload: dict[str, Any]) -> None:
        """Put what the deployment noticed by itself into the system ledger."""
        self._order([Event(event_type=event_type, entity_id=entity_id, actor=_ITSELF, payload=payload)])

    def pulses(self) -> list[Pulse]:
        """How the ledgers stand that are open just now."""
        return [*self._system.pulses(), *self.pool.pulses()]

    def resume_queues(
        self, is_ours: Callable[[str], bool] = lambda _: True, *, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Have what an earlier process left in queues sealed now, and not only when somebody next uses them.

        Of tenants, by name, that are this process's; where there are several, each has some. Ends early once `stopped`.
        """
        for tenant in filter(lambda one: is_ours(one.name), self.tenants()):
            if stopped():
                return
            queue = self.folder / "tenants" / tenant.name / QUEUE_FOLDER
            try:
                if queue.exists() and any(queue.iterdir()):
                    with self.lease(tenant.ledger) as ledger:
                        drain(ledger, stopped)
            except (OSError, TallystickError) as error:
                _log.warning("the queue of %s cannot go on: %s", tenant.name, error)

    def tidy(self) -> None:
        """Close what nobody has used for a while."""
        self.pool.tidy()

    def look(self) -> None:
        """Look whether the files of all ledgers that are open are there still, and report those that are not."""
        for error in self._system.look():
            self.pool.on_damage(_SYSTEM, error)
        self.pool.look()

    @property
    def system(self) -> Ledger:
        """The system ledger, opened again and verified if its files were replaced. Raises `TamperError` and
        `DamagedError` as long as it does not verify."""
        return self._system.current()

    def close(self) -> None:
        """Close all ledgers. Calling it twice does no harm."""
        self.pool.close()
        self._system.close()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, name: str) -> Ledger:
        folder = self._folder_of(name)
        keys = self._keys / check_folder(folder, below=self.folder).relative_to(self.folder)
        return open_own_ledger(folder, name=name, keys=keys, clock=self.clock, **self._given)

    def _folder_of(self, name: str) -> Path:
        kind, _, tenant = name.partition("/")
        return self.folder / {"tenant": "tenants"}.get(kind, kind) / tenant

    def _order(self, events: list[Event]) -> None:
        """Seal what was ordered, and know it at once."""
        with self._system.used() as system:
            system.append_many(events)
        self._asked_at = float("-inf")
        self._follow()

    def directory(self) -> Directory:
        """What the system ledger says, as it is now. Only to be read."""
        if time.monotonic() - self._asked_at > FRESH_SECONDS:
            self._follow()
        return self._directory

    def _follow(self) -> None:
        asked_at = time.monotonic()
        try:
            self._read_on()
        except (TamperError, DamagedError):
            self._read_on()  # in what is there now, if it verifies
        self._asked_at = asked_at

    def _read_on(self) -> None:
        with self._system.used() as system, self._following:
            directory = self._directory if system is self._read_of else Directory()  # else it may be of a lost history
            if system.proven_size > directory.size:  # else an older head, put back, would hide what was revoked
                directory.follow(system.read_proven(directory.size))
            self._read_of, self._directory = system, directory

    def _shorten(self, tenant: Tenant, plan: Plan, actor: dict[str, str]) -> None:
        """Have a tenant's records kept no longer than the plan says."""
        with self.lease(tenant.ledger) as ledger:
            policy, _ = ledger.retention.policy()
            wanted = plan.shortened(policy)
            if policy != wanted:
                ledger.retention.set(wanted, actor=actor, reason=f"the plan {plan.name}")
