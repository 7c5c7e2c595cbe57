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
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tallystick.clock import Clock, wall_clock
from tallystick.core import timestamp
from tallystick.core.event import Event
from tallystick.errors import BusyError, ConflictError, DeniedError, RejectedError, TallystickError
from tallystick.govern.access import (
    NO_KEY,
    Key,
    Principal,
    Scope,
    check_expiry,
    check_name,
    check_role,
    id_of,
    key_text,
)
from tallystick.govern.directory import (
    Directory,
    Tenant,
    key_created,
    key_revoked,
    tenant_changed,
    tenant_created,
)
from tallystick.ids import random_bytes
from tallystick.ledger import Ledger
from tallystick.limits import LEDGERS_OPEN_MAX
from tallystick.opening import open_ledger
from tallystick.write.queue import FOLDER as QUEUE_FOLDER

DEFAULT_TENANT: Final = "default"
FRESH_SECONDS: Final = 0.02
"""How old the directory may be when it is asked: asking the log each time would cost as much as an append."""

IDLE_SECONDS: Final = 300.0

UNKNOWN: Final = "this key or token is not known, is over, or is not for where you are"
"""What whoever cannot be authenticated is told, whatever is wrong."""

_RESUME_SECONDS: Final = 60.0
_SYSTEM: Final = "system"
_log: Final = logging.getLogger("tallystick.deployment")
_ITSELF: Final = {"id": "tallystick", "type": "system"}
_SECRET_BYTES: Final = 32


class Deployment:
    """Tenants, their keys and their ledgers. Safe for many threads. A context manager: leaving it closes all ledgers.

    `name` is the first part of the origins of new ledgers; `keys` the folder of the signing keys.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        keys: str | os.PathLike[str] | None = None,
        clock: Clock = wall_clock,
        open_max: int = LEDGERS_OPEN_MAX,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """Open the deployment of a folder; make it if it is not there. Raises as `tallystick.open` does."""
        self.folder: Final = Path(folder)
        self._keys: Final = Path(keys) if keys is not None else self.folder / "keys"
        self._name: Final = name
        self.clock: Final = clock
        self._changing: Final = threading.Lock()
        self._following: Final = threading.Lock()
        self._directory: Final = Directory()
        self._asked_at = float("-inf")
        self._ledgers: Final = _Ledgers(self._open, open_max=open_max, idle_seconds=idle_seconds)
        self.system: Final = self._open(_SYSTEM)

    # ------------------------------------------------------------------------------------------ who there is

    def begin(self) -> str | None:
        """In a new deployment make the tenant `default` and its operators' first key, whose text it gives.

        None when there are tenants already; also when another process is about to be first.
        """
        with self._changing:
            directory = self._fresh()
            if directory.tenants:
                return None
            tenant = tenant_created(directory, DEFAULT_TENANT, _ITSELF)
            key, text = self._new_key(
                DEFAULT_TENANT, role="Admin", name="the first key", scope=Scope(), expires_at=None, operator=True
            )
            try:
                self._order([tenant, key_created(key, _ITSELF)])
            except ConflictError:
                return None
        return text

    def tenants(self) -> list[Tenant]:
        """All of them, by name."""
        directory = self._fresh()
        return [tenant for _, tenant in sorted(directory.tenants.items())]

    def tenant(self, name: str) -> Tenant:
        """One. Raises `NotFoundError`."""
        return self._fresh().tenant(name)

    def create_tenant(self, name: str, *, actor: dict[str, str]) -> Tenant:
        """Make a tenant; its ledger begins when it is first used. Raises `RejectedError` and `ConflictError`."""
        with self._changing:
            self._order([tenant_created(self._fresh(), name, actor)])
            return self._directory.tenant(name)

    def suspend_tenant(self, name: str, *, actor: dict[str, str], suspended: bool = True) -> Tenant:
        """Have a tenant's keys not work any more, or work again. Its records stay. Raises `NotFoundError`."""
        with self._changing:
            tenant = self._fresh().tenant(name)
            if tenant.suspended != suspended:
                self._order([tenant_changed(tenant, actor, suspended=suspended)])
            return self._directory.tenant(name)

    def keys(self, tenant: str) -> list[Key]:
        """The keys in force of a tenant, oldest first. Raises `NotFoundError`."""
        directory = self._fresh()
        directory.tenant(tenant)
        return directory.keys_of(tenant)

    def key(self, key_id: str) -> Key:
        """One key in force. Raises `NotFoundError`."""
        return self._fresh().key(key_id)

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
    ) -> tuple[Key, str]:
        """Make a key; it, and its text, which is nowhere kept. Raises `RejectedError` and `NotFoundError`."""
        with self._changing:
            self._fresh().tenant(tenant)
            if operator and check_role(role) != "Admin":
                cure = "make it an Admin, or no operator's"
                raise RejectedError("an operators' key is of the role Admin", place="operator", cure=cure)
            key, text = self._new_key(
                tenant, role=role, name=name, scope=scope or Scope(), expires_at=expires_at, operator=operator
            )
            self._order([key_created(key, actor)])
            return self._directory.key(key.id), text

    def rotate_key(self, key_id: str, *, actor: dict[str, str]) -> tuple[Key, str]:
        """Make a key that may do the same in place of one that ends at once. Raises `NotFoundError`."""
        with self._changing:
            old = self._fresh().key(key_id)
            new_id, text, digest = _secret()
            new = replace(old, id=new_id, digest=digest)
            self._order([key_created(new, actor, rotates=old.id), key_revoked(old, actor)])
            return self._directory.key(new.id), text

    def revoke_key(self, key_id: str, *, actor: dict[str, str]) -> None:
        """End a key at once. Raises `NotFoundError`, and `ConflictError` for the operators' last."""
        with self._changing:
            key = self._fresh().key(key_id)
            if key.operator and sum(other.operator for other in list(self._directory.keys.values())) == 1:
                raise ConflictError("it is the operators' last key: make another one first")
            self._order([key_revoked(key, actor)])

    def authenticate(self, text: str, *, address: str | None = None) -> Key:
        """The key of a text. Raises `DeniedError`, always with the same words, in the same time."""
        directory = self._fresh()
        key = directory.keys.get(id_of(text) or "", NO_KEY)
        holds = key.holds(text, clock=self.clock)
        if not holds or not key.scope.admits(address) or directory.tenants[key.tenant].suspended:
            raise DeniedError(UNKNOWN)
        return key

    def is_in_force(self, principal: Principal) -> bool:
        """Whether a key that was authenticated, or a user whose token was, still counts, and so does their tenant."""
        directory = self._fresh()
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
        with self.lease(f"access/{self.tenant(tenant).name}") as ledger:
            yield ledger

    @contextmanager
    def lease(self, name: str) -> Iterator[Ledger]:
        """A ledger by its own name, likewise; the caller knows that it may be."""
        ledger = self._ledgers.take(name)
        try:
            yield ledger
        finally:
            self._ledgers.give_back(name)

    def resume_queues(self) -> None:
        """Have what an earlier process left in queues sealed now, and not only when somebody next uses them."""
        for tenant in self.tenants():
            queue = self.folder / "tenants" / tenant.name / QUEUE_FOLDER
            try:
                if queue.exists() and any(queue.iterdir()):
                    with self.lease(tenant.ledger) as ledger:
                        ledger.queue.drain(seconds=_RESUME_SECONDS)
            except TallystickError as error:
                _log.warning("the queue of %s cannot go on: %s", tenant.name, error)

    def tidy(self) -> None:
        """Close what nobody has used for a while."""
        self._ledgers.tidy()

    @property
    def open_ledgers(self) -> int:
        """How many ledgers of tenants are open."""
        return len(self._ledgers)

    def close(self) -> None:
        """Close all ledgers. Calling it twice does no harm."""
        self._ledgers.close()
        self.system.close()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, name: str) -> Ledger:
        kind, _, tenant = name.partition("/")
        place = {"tenant": "tenants"}.get(kind, kind)
        return open_ledger(
            self.folder / place / tenant,
            name=name,
            deployment=self._name,
            keys=self._keys / place / tenant,
            clock=self.clock,
        )

    def _order(self, events: list[Event]) -> None:
        """Seal what was ordered, and know it at once."""
        self.system.append_many(events)
        self._asked_at = float("-inf")
        self._follow()

    def _fresh(self) -> Directory:
        if time.monotonic() - self._asked_at > FRESH_SECONDS:
            self._follow()
        return self._directory

    def _follow(self) -> None:
        asked_at = time.monotonic()
        size = self.system.size
        if size > self._directory.size:
            with self._following:
                self._directory.follow(self.system.read(min(self._directory.size, size), size))
        self._asked_at = asked_at

    def _new_key(self, tenant: str, **given: Any) -> tuple[Key, str]:
        now = self.clock()
        check_role(given["role"])
        check_name(given["name"])
        given["expires_at"] = check_expiry(given["expires_at"], now=now)
        key_id, text, digest = _secret()
        return Key(id=key_id, digest=digest, tenant=tenant, created_at=timestamp.render(now), **given), text


class _Ledgers:
    """Open ledgers by name, the least lately used first."""

    def __init__(self, open_one: Callable[[str], Ledger], *, open_max: int, idle_seconds: float) -> None:
        self._open_one: Final = open_one
        self._open_max: Final = open_max
        self._idle_seconds: Final = idle_seconds
        self._known: Final[OrderedDict[str, _Open]] = OrderedDict()
        self.turn: Final = threading.RLock()

    def __len__(self) -> int:
        return len(self._known)

    def take(self, name: str) -> Ledger:
        with self.turn:
            found = self._known.get(name)
            if found is None:
                self._make_room()
                found = self._known[name] = _Open(self._open_one(name))
            found.users += 1
            self._known.move_to_end(name)
            return found.ledger

    def give_back(self, name: str) -> None:
        with self.turn:
            found = self._known.get(name)
            if found is not None:  # else all were closed meanwhile
                found.users -= 1
                found.used_at = time.monotonic()

    def tidy(self) -> None:
        with self.turn:
            before = time.monotonic() - self._idle_seconds
            for name in [name for name, one in self._known.items() if not one.users and one.used_at < before]:
                self._known.pop(name).ledger.close()

    def close(self) -> None:
        with self.turn:
            while self._known:
                self._known.popitem()[1].ledger.close()

    def _make_room(self) -> None:
        if len(self._known) < self._open_max:
            return
        for name, one in self._known.items():
            if not one.users:
                self._known.pop(name).ledger.close()
                return
        raise BusyError(f"{self._open_max} ledgers are in use, and no more are opened: wait a moment, then repeat")


class _Open:
    __slots__ = ("ledger", "used_at", "users")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.users = 0
        self.used_at = time.monotonic()


def _secret() -> tuple[str, str, bytes]:
    """A new key's id, its text, and what of it is kept."""
    key_id = random_bytes(8).hex()
    text = key_text(key_id, random_bytes(_SECRET_BYTES))
    return key_id, text, sha256(text.encode()).digest()
